//! Send: a backend asks another service, and the token's header does not go along.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use anyhow::{Result, ensure};
use clew_protocol::Sequence;
use clew_protocol::kernel::{Handed, Strength};

use crate::Test;
use crate::hop::{ask, readings, was_stopped};
use crate::stage::{Client, Stage};

pub(crate) const TESTS: &[Test] = &[
    ("send::a_head_without_a_token", a_head_without_a_token),
    ("send::a_head_in_pieces", a_head_in_pieces),
    (
        "send::a_head_with_a_forged_token",
        a_head_with_a_forged_token,
    ),
    ("send::a_connection_that_is_kept", a_connection_that_is_kept),
    (
        "send::a_connection_that_is_older_than_the_programs",
        a_connection_that_is_older_than_the_programs,
    ),
    (
        "send::from_a_thread_that_read_nothing",
        from_a_thread_that_read_nothing,
    ),
    ("send::a_stranger_in_between", a_stranger_in_between),
];

/// Has the application server do `work`, through `protocol`; the request's sequence and what came of it.
fn handed(
    stage: &mut Stage,
    client: &mut Client,
    protocol: &str,
    work: &str,
) -> Result<(Sequence, u32, String)> {
    handed_as(Strength::Reader, "via", stage, client, protocol, work)
}

fn handed_as(
    strength: Strength,
    way: &str,
    stage: &mut Stage,
    client: &mut Client,
    protocol: &str,
    work: &str,
) -> Result<(Sequence, u32, String)> {
    let target = format!("/{way}/{protocol}{work}");
    let (sequence, pid, answer) = ask(stage, client, &target)?;
    let readings = readings(stage, sequence)?;
    let readers: Vec<u32> = readings.iter().map(|it| it.process.tgid).collect();
    ensure!(readers == [stage.backend.pid(), pid], "{readings:?}");
    let sender = Handed {
        tgid: stage.backend.pid(),
        strength,
    };
    ensure!(readings[0].handed.is_none(), "{readings:?}");
    ensure!(readings[1].handed == Some(sender), "{readings:?}");
    ensure!(
        readings.iter().all(|it| !it.previous_unanswered),
        "{readings:?}"
    );
    Ok((sequence, pid, answer))
}

fn followed(protocol: &str) -> Result<()> {
    followed_in("whole", protocol)
}

fn followed_in(reading: &str, protocol: &str) -> Result<()> {
    followed_on("hop-tcp", reading, protocol)
}

fn followed_on(backend: &str, reading: &str, protocol: &str) -> Result<()> {
    let mut stage = Stage::special(backend)?;
    let mut client = stage.connect()?;
    for _ in 0..3 {
        let work = format!("/{reading}/");
        let (.., answer) = handed(&mut stage, &mut client, protocol, &work)?;
        ensure!(answer == "ok", "{answer}");
    }
    let work = format!("/{reading}/run/true");
    let (sequence, pid, answer) = handed(&mut stage, &mut client, protocol, &work)?;
    was_stopped(&mut stage, sequence, pid, &answer)
}

fn a_head_without_a_token() -> Result<()> {
    followed("bare")
}

fn a_head_in_pieces() -> Result<()> {
    followed("split")
}

fn a_head_with_a_forged_token() -> Result<()> {
    followed("forged")
}

/// A body that looks like a request with a token is none.
fn a_connection_that_is_kept() -> Result<()> {
    followed_in("body", "bare-kept")
}

fn a_connection_that_is_older_than_the_programs() -> Result<()> {
    followed_on("hop-tcp-early", "body", "bare-kept")
}

/// All that is known is which process has sent it.
fn from_a_thread_that_read_nothing() -> Result<()> {
    let mut stage = Stage::special("hop-tcp")?;
    let mut client = stage.connect()?;
    let strength = Strength::Process;
    handed_as(strength, "pool", &mut stage, &mut client, "bare", "/whole/")?;
    Ok(())
}

/// Whoever is no backend, here this process, asks for nobody.
fn a_stranger_in_between() -> Result<()> {
    let mut stage = Stage::special("hop-tcp")?;
    let mut client = stage.connect()?;
    let (_, head) = stage.head("/where");
    client.send(&head)?;
    let port: u16 = client.answer()?.parse()?;
    let (known, pid, _) = handed(&mut stage, &mut client, "bare", "/whole/")?;
    let mut stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stranger.write_all(b"GET /x/run/true HTTP/1.1\r\nHost: app\r\n\r\n")?;
    let mut answer = [0; 64];
    let size = stranger.read(&mut answer)?;
    ensure!(answer[..size].ends_with(stage.end().1.as_bytes()));
    let lineage = stage.wait_exec(known)?.lineage;
    ensure!(
        lineage.backend.tgid == pid && lineage.strength == Strength::Process,
        "{lineage:?}"
    );
    ensure!(lineage.recent == [known, Sequence::STRANGER], "{lineage:?}");
    Ok(())
}
