//! Tag and bind: a request is found in what arrives, and bound to the task that has read it.

use std::time::Duration;

use anyhow::{Result, ensure};
use clew_protocol::kernel::{KernelEvent, Strength};
use clew_protocol::{Moment, Sequence};
use clew_sensor::{Mode, Policy};

use crate::Test;
use crate::stage::{Stage, head_with};

pub(crate) const TESTS: &[Test] = &[
    (
        "tag::binds_a_request_to_its_reader",
        binds_a_request_to_its_reader,
    ),
    ("tag::heads_split_byte_by_byte", heads_split_byte_by_byte),
    ("tag::heads_split_anywhere", heads_split_anywhere),
    (
        "tag::request_lines_of_8_kilobytes",
        request_lines_of_8_kilobytes,
    ),
    ("tag::ipv6", ipv6),
    ("tag::keep_alive_and_bodies", keep_alive_and_bodies),
    (
        "tag::data_before_there_is_a_socket",
        data_before_there_is_a_socket,
    ),
    (
        "tag::bodies_that_look_like_nothing_but_tokens",
        bodies_that_look_like_nothing_but_tokens,
    ),
    (
        "bind::pipelined_requests_one_read",
        pipelined_requests_one_read,
    ),
    (
        "bind::pipelined_requests_read_one_by_one",
        pipelined_requests_read_one_by_one,
    ),
    (
        "tag::forged_tokens_mean_nothing",
        forged_tokens_mean_nothing,
    ),
    (
        "tag::replayed_tokens_mean_nothing",
        replayed_tokens_mean_nothing,
    ),
    (
        "tag::tokens_elsewhere_in_the_head_of_a_stranger",
        tokens_elsewhere_in_the_head_of_a_stranger,
    ),
    ("bind::a_request_read_by_splice", a_request_read_by_splice),
    (
        "bind::who_only_peeks_has_not_read",
        who_only_peeks_has_not_read,
    ),
    (
        "bind::what_was_read_before_the_answer_to_another",
        what_was_read_before_the_answer_to_another,
    ),
    (
        "bind::a_stranger_is_nobody_that_is_known",
        a_stranger_is_nobody_that_is_known,
    ),
];

fn binds_a_request_to_its_reader() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/");
    client.send(&head)?;
    ensure!(client.answer()? == "ok");
    let bound = stage.wait_bound(sequence)?;
    ensure!(bound.process.tgid == stage.backend.pid());
    ensure!(bound.tid == stage.backend.pid());
    ensure!(bound.same_read == 0 && !bound.previous_unanswered);
    let python = std::fs::canonicalize("/usr/bin/python3")?;
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(python)?);
    ensure!(bound.executable.inode == inode);
    Ok(())
}

/// One thread, two connections: the second is read while the first waits for its answer, and never
/// answered itself.
fn what_was_read_before_the_answer_to_another() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let (mut client, mut other) = (stage.connect()?, None);
    for (target, is_early) in [("/", false), ("/two", true), ("/", true), ("/", false)] {
        let (first, head) = stage.head(target);
        client.send(&head)?;
        let second = (target == "/two").then(|| stage.head("/"));
        if let Some((_, head)) = &second {
            let other = other.insert(stage.connect()?);
            other.send(head)?;
        }
        ensure!(client.answer()? == "ok");
        let last = second.map_or(first, |(sequence, _)| sequence);
        let bound = stage.wait_bound(last)?;
        ensure!(bound.previous_unanswered == is_early, "{bound:?}");
    }
    Ok(())
}

fn heads_split_byte_by_byte() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    for _ in 0..3 {
        let (sequence, head) = stage.head("/a/b?c=d");
        for byte in head.chars() {
            client.send(&byte.to_string())?;
        }
        ensure!(client.answer()? == "ok");
        stage.wait_bound(sequence)?;
    }
    Ok(())
}

fn heads_split_anywhere() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let mut state = 1_u64;
    for round in 0..200 {
        let (sequence, head) = stage.head(&format!("/{}", "x".repeat(round)));
        let mut rest = head.as_str();
        while !rest.is_empty() {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let cut = (1 + (state >> 33) as usize % 60).min(rest.len());
            client.send(&rest[..cut])?;
            rest = &rest[cut..];
        }
        ensure!(client.answer()? == "ok");
        stage.wait_bound(sequence)?;
    }
    Ok(())
}

fn request_lines_of_8_kilobytes() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    for length in [100, 126, 127, 128, 129, 184, 1000, 4096, 8192, 20_000] {
        let mut client = stage.connect()?;
        let (sequence, head) = stage.head(&format!("/{}", "q".repeat(length)));
        client.send(&head)?;
        ensure!(client.answer()? == "ok");
        stage.wait_bound(sequence)?;
    }
    Ok(())
}

fn ipv6() -> Result<()> {
    let mut stage = Stage::with(Mode::Enforce, "::1", 65_536, |_| Policy::default())?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/");
    client.send(&head)?;
    ensure!(client.answer()? == "ok");
    stage.wait_bound(sequence)?;
    Ok(())
}

/// What looks like the start of a token line in a body, or is one with a bad MAC, changes nothing.
fn keep_alive_and_bodies() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    for filler in [
        "\nx",
        "\n\nx-clew-token",
        "\r\nx-clew-token: zz",
        "\nx-clew-token: 0123456789abcdef0123456789abcdef\r\n",
    ] {
        let (sequence, head) = stage.head("/");
        // The backend knows no bodies: it takes this for the head of the next request.
        client.send(&head)?;
        ensure!(client.answer()? == "ok");
        stage.wait_bound(sequence)?;
        client.send(&format!(
            "GET /{} HTTP/1.1\r\nA: {filler}\r\n\r\n",
            "y".repeat(500)
        ))?;
        ensure!(client.answer()? == "ok");
    }
    ensure!(stage.sensor.counters().accepted == 4);
    Ok(())
}

/// `TCP_DEFER_ACCEPT`: the first data comes to the listener's socket.
fn data_before_there_is_a_socket() -> Result<()> {
    let mut stage = Stage::special("defer")?;
    for round in 0..50 {
        let mut client = stage.connect()?;
        for _ in 0..2 {
            let (sequence, head) = stage.head("/");
            // In two pieces: the line, or the token, is cut in every place once.
            let (first, second) = head.split_at(1 + round);
            client.send(first)?;
            std::thread::sleep(std::time::Duration::from_millis(2));
            client.send(second)?;
            ensure!(client.answer()? == "ok");
            stage.wait_bound(sequence)?;
        }
    }
    // A stranger's first data is as early, and means nothing.
    let mut client = stage.connect()?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    ensure!(client.answer()? == "ok");
    ensure!(stage.sensor.counters().accepted == 100);
    ensure!(stage.sensor.counters().no_storage == 0);
    Ok(())
}

/// Every two bytes start like a token line, up to the next request in the same segments.
fn bodies_that_look_like_nothing_but_tokens() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let (_, first) = stage.head("/");
    let (second, head) = stage.head("/");
    // The backend knows no bodies: it takes the filler for a field of one more head.
    let filler = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "\nx".repeat(30_000));
    client.send(&(first + &filler + &head))?;
    for _ in 0..3 {
        ensure!(client.answer()? == "ok");
    }
    stage.wait_bound(second)?;
    Ok(())
}

fn pipelined_requests_one_read() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let (_, first) = stage.head("/1");
    let (_, second) = stage.head("/2");
    let (third, third_head) = stage.head("/3");
    client.send(&(first + &second + &third_head))?;
    for _ in 0..3 {
        ensure!(client.answer()? == "ok");
    }
    let bound = stage.wait_bound(third)?;
    ensure!(bound.same_read == 2, "{bound:?}");
    Ok(())
}

/// The backend reads ten bytes at a time: each request is bound when it is reached, not when it
/// arrives.
fn pipelined_requests_read_one_by_one() -> Result<()> {
    let mut stage = Stage::with(Mode::Enforce, "127.0.0.1", 10, |_| Policy::default())?;
    let mut client = stage.connect()?;
    let heads: Vec<_> = (0..5).map(|n| stage.head(&format!("/{n}"))).collect();
    client.send(
        &heads
            .iter()
            .map(|(_, head)| head.as_str())
            .collect::<String>(),
    )?;
    for _ in 0..5 {
        ensure!(client.answer()? == "ok");
    }
    for (sequence, _) in heads {
        ensure!(stage.wait_bound(sequence)?.same_read == 0);
    }
    Ok(())
}

fn forged_tokens_mean_nothing() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let real = stage.token(stage.fresh());
    let mut flipped = real.clone().into_bytes();
    flipped[31] = if flipped[31] == b'0' { b'1' } else { b'0' };
    for forged in [String::from_utf8(flipped)?, "0".repeat(32), "g".repeat(32)] {
        client.send(&head_with("/", &forged))?;
        ensure!(client.answer()? == "ok");
    }
    ensure!(
        stage
            .events()?
            .iter()
            .all(|event| !matches!(event, KernelEvent::Bound(_)))
    );
    ensure!(stage.sensor.counters().accepted == 0);
    ensure!(
        stage.sensor.counters().forged == 1,
        "{:?}",
        stage.sensor.counters()
    );
    Ok(())
}

fn replayed_tokens_mean_nothing() -> Result<()> {
    let mut stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/");
    for _ in 0..3 {
        client.send(&head)?;
        ensure!(client.answer()? == "ok");
        // On a connection of its own too.
        let mut other = stage.connect()?;
        drop(std::mem::replace(&mut client, stage.connect()?));
        other.send(&head)?;
        ensure!(other.answer()? == "ok");
    }
    stage.wait_bound(sequence)?;
    let bound = stage
        .events()?
        .iter()
        .filter(|e| matches!(e, KernelEvent::Bound(_)))
        .count();
    ensure!(bound == 1, "bound {bound} times");
    ensure!(stage.sensor.counters().replayed == 5);
    Ok(())
}

/// A stranger's connection is looked at to its second line only: a valid token further down is
/// not even read.
fn tokens_elsewhere_in_the_head_of_a_stranger() -> Result<()> {
    let stage = Stage::new(Mode::Enforce)?;
    let mut client = stage.connect()?;
    let token = stage.token(stage.fresh());
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: a\r\nx-clew-token: {token}\r\n\r\n"
    ))?;
    ensure!(client.answer()? == "ok");
    ensure!(stage.sensor.counters().accepted == 0);
    Ok(())
}

/// `sock_recv_length`, the usual hook, does not see such a reader.
fn a_request_read_by_splice() -> Result<()> {
    let mut stage = Stage::special("splice")?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/");
    client.send(&head)?;
    ensure!(client.answer()? == "ok");
    let bound = stage.wait_bound(sequence)?;
    ensure!(bound.tid == stage.backend.pid());
    Ok(())
}

/// The backend looks at what has come, waits, and takes it then.
fn who_only_peeks_has_not_read() -> Result<()> {
    let mut stage = Stage::special("peek")?;
    let mut client = stage.connect()?;
    let (sequence, head) = stage.head("/");
    let sent = Moment::now();
    client.send(&head)?;
    ensure!(client.answer()? == "ok");
    let bound = stage.wait_bound(sequence)?;
    ensure!(bound.at.since(sent) >= Duration::from_millis(200));
    Ok(())
}

/// What a request without a token does was blamed on the last one that had one.
fn a_stranger_is_nobody_that_is_known() -> Result<()> {
    for start in ["GET", "\r\nGET", "get"] {
        let mut stage = Stage::new(Mode::Enforce)?;
        let (known, head) = stage.head("/");
        let mut client = stage.connect()?;
        client.send(&head)?;
        ensure!(client.answer()? == "ok");
        drop(client);
        let mut client = stage.connect()?;
        client.send(&format!("{start} /run/id HTTP/1.1\r\nHost: test\r\n\r\n"))?;
        let exec = stage.wait_exec(known)?;
        ensure!(exec.decision == stage.end().0, "{start:?}: {exec:?}");
        ensure!(
            exec.lineage.strength == Strength::Process
                && exec.lineage.recent == [known, Sequence::STRANGER],
            "{start:?}: {:?}",
            exec.lineage
        );
        ensure!(client.answer()? == stage.end().1);
        drop(client);
        let (sequence, head) = stage.head("/run/id");
        let mut client = stage.connect()?;
        client.send(&head)?;
        let exec = stage.wait_exec(sequence)?;
        ensure!(
            !exec.lineage.recent.contains(&Sequence::STRANGER),
            "a thread that has read it and is at nothing else: {:?}",
            exec.lineage
        );
    }
    Ok(())
}
