//! Hop: a request goes on to another process through a unix socket, and is followed there.

use anyhow::{Context, Result, ensure};
use clew_protocol::Sequence;
use clew_protocol::kernel::{Bound, KernelEvent, Strength};

use crate::Test;
use crate::stage::{Client, Stage};

pub(crate) const TESTS: &[Test] = &[
    ("hop::http", http),
    ("hop::http_read_by_recvmsg", http_read_by_recvmsg),
    ("hop::fastcgi", fastcgi),
    ("hop::fastcgi_read_in_pieces", fastcgi_read_in_pieces),
    ("hop::tcp", tcp),
    ("hop::a_connection_that_is_kept", a_connection_that_is_kept),
    (
        "hop::a_body_that_looks_like_a_request",
        a_body_that_looks_like_a_request,
    ),
    (
        "hop::a_response_that_looks_like_a_request",
        a_response_that_looks_like_a_request,
    ),
    (
        "hop::who_is_sent_no_token_is_a_stranger",
        who_is_sent_no_token_is_a_stranger,
    ),
    ("hop::answered_and_unanswered", answered_and_unanswered),
];

/// Sends a request that the application server answers; its sequence, and the process that did.
pub(crate) fn ask(
    stage: &Stage,
    client: &mut Client,
    target: &str,
) -> Result<(Sequence, u32, String)> {
    let (sequence, head) = stage.head(target);
    client.send(&head)?;
    let answer = client.answer()?;
    let (pid, answer) = answer.split_once(' ').context("no pid")?;
    Ok((sequence, pid.parse()?, answer.to_owned()))
}

/// Every reading of a request.
pub(crate) fn readings(stage: &mut Stage, sequence: Sequence) -> Result<Vec<Bound>> {
    let of_it = |event: &KernelEvent| match event {
        KernelEvent::Bound(bound) if bound.sequence == sequence => Some(bound.clone()),
        _ => None,
    };
    Ok(stage.events()?.iter().filter_map(of_it).collect())
}

/// Who has read it is known, and a shell there is stopped and known to be its.
fn followed(protocol: &str, reading: &str) -> Result<()> {
    followed_through("hop", protocol, reading)
}

fn followed_through(way: &str, protocol: &str, reading: &str) -> Result<()> {
    let mut stage = Stage::special(way)?;
    let mut client = stage.connect()?;
    for _ in 0..3 {
        let target = format!("/via/{protocol}/{reading}/");
        let (sequence, pid, answer) = ask(&stage, &mut client, &target)?;
        ensure!(answer == "ok" && pid != stage.backend.pid());
        let readings = readings(&mut stage, sequence)?;
        let readers: Vec<u32> = readings.iter().map(|it| it.process.tgid).collect();
        ensure!(readers == [stage.backend.pid(), pid], "{readings:?}");
        ensure!(
            readings.iter().all(|it| !it.previous_unanswered),
            "{readings:?}"
        );
    }
    let target = format!("/via/{protocol}/{reading}/run/true");
    let (sequence, pid, answer) = ask(&stage, &mut client, &target)?;
    was_stopped(&mut stage, sequence, pid, &answer)
}

/// A shell of process `pid` was killed, and is known to be the request's.
pub(crate) fn was_stopped(
    stage: &mut Stage,
    sequence: Sequence,
    pid: u32,
    answer: &str,
) -> Result<()> {
    ensure!(answer == stage.end().1, "{answer}");
    let exec = stage.wait_exec(sequence)?;
    ensure!(exec.decision == stage.end().0 && exec.lineage.strength == Strength::Reader);
    ensure!(exec.lineage.backend.tgid == pid && exec.lineage.tid == pid);
    Ok(())
}

fn http() -> Result<()> {
    followed("http", "whole")
}

fn http_read_by_recvmsg() -> Result<()> {
    followed("http", "vectors")
}

fn fastcgi() -> Result<()> {
    followed("fastcgi", "whole")
}

fn fastcgi_read_in_pieces() -> Result<()> {
    followed("fastcgi", "pieces")
}

/// The token's header line is not the first that the application server is sent.
fn tcp() -> Result<()> {
    followed_through("hop-tcp", "http", "whole")
}

/// The body comes in a segment of its own, and looks like a request that was sent before.
fn a_connection_that_is_kept() -> Result<()> {
    for way in ["hop", "hop-tcp"] {
        followed_through(way, "kept", "body")?;
    }
    Ok(())
}

/// A client who has seen a token (some pages show what headers they were sent) names another request with
/// it to no avail.
fn a_body_that_looks_like_a_request() -> Result<()> {
    let mut stage = Stage::special("hop")?;
    let mut client = stage.connect()?;
    let (first, ..) = ask(&stage, &mut client, "/via/fastcgi/whole/")?;
    ensure!(readings(&mut stage, first)?.len() == 2);
    for reading in ["whole", "pieces"] {
        let target = format!("/via/nested/{reading}/run/true");
        let (sequence, _, answer) = ask(&stage, &mut client, &target)?;
        ensure!(answer == stage.end().1, "{answer}");
        stage.wait_exec(sequence)?;
        ensure!(readings(&mut stage, first)?.len() == 2);
    }
    Ok(())
}

/// A client of the backend, here this process, does not become one for being shown a token.
fn a_response_that_looks_like_a_request() -> Result<()> {
    let mut stage = Stage::special("hop")?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/echo");
    client.send(&head)?;
    ensure!(client.answer()?.contains("x-clew-token"));
    ensure!(readings(&mut stage, sequence)?.len() == 1);
    Ok(())
}

fn who_is_sent_no_token_is_a_stranger() -> Result<()> {
    let mut stage = Stage::special("hop")?;
    let mut client = stage.connect()?;
    let (known, ..) = ask(&stage, &mut client, "/via/fastcgi/pieces/")?;
    let (_, pid, answer) = ask(&stage, &mut client, "/via/nameless/pieces/run/true")?;
    ensure!(answer == stage.end().1);
    let exec = stage.wait_exec(known)?;
    let lineage = exec.lineage;
    ensure!(
        lineage.backend.tgid == pid && lineage.strength == Strength::Process,
        "{lineage:?}"
    );
    ensure!(lineage.recent == [known, Sequence::STRANGER], "{lineage:?}");
    Ok(())
}

/// The application server has answered before it reads the next, or has not.
fn answered_and_unanswered() -> Result<()> {
    let mut stage = Stage::special("hop")?;
    let mut client = stage.connect()?;
    for (target, is_early) in [
        ("/", false),
        ("/two/", false),
        ("/", true),
        ("/", true),
        ("/", false),
    ] {
        let (sequence, head) = stage.head(&format!("/via/unheard/whole{target}"));
        client.send(&head)?;
        ensure!(client.answer()? == "0 sent");
        let readings = readings(&mut stage, sequence)?;
        let last = readings.last().context("not read")?;
        ensure!(
            readings.len() == 2 && last.previous_unanswered == is_early,
            "{readings:?}"
        );
    }
    Ok(())
}
