//! Announced: requests on connections whose bytes the programs cannot read.

use anyhow::{Result, ensure};
use clew_protocol::kernel::{KernelEvent, Strength};
use clew_protocol::{Sequence, ServiceId};

use crate::Test;
use crate::stage::{Client, Stage};

pub(crate) const TESTS: &[Test] = &[
    ("announced::binds_and_judges", binds_and_judges),
    (
        "announced::who_is_not_announced_is_a_stranger",
        who_is_not_announced_is_a_stranger,
    ),
];

/// Says which request is next on the client's connection, and sends it without a token.
fn send(stage: &Stage, client: &mut Client, target: &str) -> Result<Sequence> {
    let sequence = stage.fresh();
    let (local, peer) = (client.stream.local_addr()?, client.stream.peer_addr()?);
    let announcer = stage.sensor.announcer();
    ensure!(announcer.announce(local, peer, ServiceId(1), sequence));
    client.send(&format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))?;
    Ok(sequence)
}

fn binds_and_judges() -> Result<()> {
    let mut stage = Stage::opaque()?;
    let mut client = stage.connect()?;
    // What a handshake sends comes before anything is announced.
    client.send("GET / HTTP/1.1\r\n\r\n")?;
    ensure!(client.answer()? == "ok");
    for _ in 0..3 {
        let sequence = send(&stage, &mut client, "/")?;
        ensure!(client.answer()? == "ok");
        let bound = stage.wait_bound(sequence)?;
        ensure!(bound.process.tgid == stage.backend.pid() && bound.same_read == 0);
        ensure!(!bound.previous_unanswered, "{bound:?}");
    }
    let sequence = send(&stage, &mut client, "/run/true")?;
    ensure!(client.answer()? == stage.end().1);
    let exec = stage.wait_exec(sequence)?;
    ensure!(exec.decision == stage.end().0 && exec.lineage.strength == Strength::Reader);
    ensure!(!exec.lineage.recent.contains(&Sequence::STRANGER));
    Ok(())
}

fn who_is_not_announced_is_a_stranger() -> Result<()> {
    let mut stage = Stage::opaque()?;
    let mut client = stage.connect()?;
    let known = send(&stage, &mut client, "/")?;
    ensure!(client.answer()? == "ok");
    drop(client);
    let mut client = stage.connect()?;
    for _ in 0..10 {
        client.send("GET / HTTP/1.1\r\n\r\n")?;
        ensure!(client.answer()? == "ok");
    }
    client.send("GET /run/true HTTP/1.1\r\n\r\n")?;
    ensure!(client.answer()? == stage.end().1);
    let exec = stage.wait_exec(known)?;
    ensure!(
        exec.lineage.recent == [known, Sequence::STRANGER],
        "{exec:?}"
    );
    let is_bound = |event: &&KernelEvent| matches!(event, KernelEvent::Bound(_));
    ensure!(stage.events()?.iter().filter(is_bound).count() == 1);
    Ok(())
}
