//! Malformed and oversized requests, slow clients, and headers from the wrong people.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::stage::{Stage, ok, wait_until};

/// Sends `request`; the status of the answer, 0 for a closed connection.
pub(crate) fn verdict_on(stage: &Stage, request: &str) -> Result<u16> {
    let mut client = stage.client()?;
    client.send(request)?;
    Ok(client.response().map_or(0, |response| response.status))
}

#[test]
fn malformed_heads_never_reach_a_backend() -> Result<()> {
    let stage = Stage::new(ok)?;
    let shapes = [
        ("no version", "GET /\r\nHost: a\r\n\r\n"),
        ("not HTTP", "\x16\x03\x01 nonsense\r\n\r\n"),
        (
            "obs-fold",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
        ),
        ("space before colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (
            "two different lengths",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
        (
            "a length that is none",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        ),
        (
            "unknown transfer coding",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "NUL in a value",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        ),
        (
            "CR in a value",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        ),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (
            "a host with an escape",
            "GET / HTTP/1.1\r\nHost: a%00\r\n\r\n",
        ),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    let mut wrong = Vec::new();
    for (name, shape) in shapes {
        let status = verdict_on(&stage, shape)?;
        if !(status == 0 || (400..500).contains(&status)) {
            wrong.push(format!("{name}: {status}"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn oversized_requests_are_refused() -> Result<()> {
    let stage = Stage::with(ok, |config| config.limits.body_bytes = 1000)?;
    let long = "x".repeat(40_000);
    ensure!(
        verdict_on(
            &stage,
            &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")
        )? == 431
    );
    ensure!(verdict_on(&stage, &format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"))? == 431);
    let many: String = (0..150).map(|n| format!("X-{n}: 1\r\n")).collect();
    ensure!(verdict_on(&stage, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"))? == 431);
    let declared = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n";
    ensure!(verdict_on(&stage, declared)? == 413);
    let chunk = format!("400\r\n{}\r\n", "y".repeat(1024));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    let status = verdict_on(&stage, &chunked)?;
    ensure!(status == 413 || status == 0, "{status}");
    ensure!(verdict_on(&stage, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")? == 200);
    Ok(())
}

/// A byte now and then meets every per-read timeout; the head as a whole has a deadline.
#[test]
fn heads_have_a_total_deadline() -> Result<()> {
    let stage = Stage::with(ok, |config| {
        config.limits.head_deadline = Duration::from_millis(300)
    })?;
    let mut client = stage.client()?;
    let start = Instant::now();
    let mut closed = false;
    for byte in "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: 1111111111111111111111111111111".chars() {
        if client.send(&byte.to_string()).is_err() {
            closed = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    ensure!(closed || client.rest()?.is_empty());
    ensure!(start.elapsed() < Duration::from_secs(3));
    wait_until("counted", || stage.handle.counters().slow_heads == 1)?;
    Ok(())
}
