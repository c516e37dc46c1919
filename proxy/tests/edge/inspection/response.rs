//! Responses.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{judged, rules};
use crate::stage::{Connection, Stage, wait_until};
use crate::tls_stage::{Secure, on_runtime, request};

const LEAK: &str = r#"
SecRuleEngine On
SecResponseBodyAccess On
SecResponseBodyMimeType text/plain text/html
SecResponseBodyLimit 200000
SecResponseBodyLimitAction ProcessPartial
SecRule RESPONSE_HEADERS:X-Leak "@contains secret" "id:1,phase:3,deny,status:403"
SecRule RESPONSE_BODY "@contains secret" "id:2,phase:4,deny,status:403"
SecRule RESPONSE_STATUS "@streq 500" "id:3,phase:4,deny,status:404"
"#;

/// Answers with what the target asks for.
fn talks(connection: &mut Connection) -> Result<()> {
    while let Some(head) = connection.head() {
        let path = head.split(' ').nth(1).context("no target")?.to_owned();
        match path.as_str() {
            "/head" => connection.send("HTTP/1.1 200 OK\r\nX-Leak: secret\r\nContent-Length: 0\r\n\r\n")?,
            "/body" => connection.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nmy secret..",
            )?,
            "/chunks" => {
                connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nmy sec\r\n")?;
                std::thread::sleep(Duration::from_millis(100));
                connection.send("3\r\nret\r\n0\r\n\r\n")?;
            }
            "/gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(b"my secret")?;
                let body = encoder.finish()?;
                connection.send(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len()))?;
                connection.stream.write_all(&body)?;
            }
            "/image" => connection.send(
                "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 6\r\n\r\nsecret",
            )?,
            "/500" => connection.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")?,
            "/long" => {
                connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000006\r\n\r\n")?;
                connection.send(&"x".repeat(1_000_000))?;
                connection.send("secret")?;
            }
            "/events" => {
                connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for _ in 0..3 {
                    connection.send("6\r\nsecret\r\n")?;
                    std::thread::sleep(Duration::from_millis(300));
                }
                connection.send("0\r\n\r\n")?;
            }
            "/half" => {
                connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf")?;
                return Ok(());
            }
            _ => connection.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nfine",
            )?,
        }
    }
    Ok(())
}

#[test]
fn leaks_do_not_leave() -> Result<()> {
    let stage = judged(talks, LEAK, |_| {})?;
    let mut client = stage.client()?;
    for path in ["/head", "/body", "/chunks", "/gzip"] {
        let response = client.get(path)?;
        ensure!(response.status == 403, "{path}: {}", response.status);
        ensure!(!response.head.contains("secret") && !response.body.contains("secret"));
        let fine = client.get("/fine")?;
        ensure!(fine.status == 200 && fine.body == "fine", "after {path}");
    }
    ensure!(client.get("/500")?.status == 404);
    ensure!(
        client.get("/image")?.body == "secret",
        "of a type that is not looked at"
    );
    wait_until("over", || stage.handle.in_flight() == 0)?;
    ensure!(stage.handle.counters().denied_requests == 5);
    Ok(())
}

#[test]
fn leaks_do_not_leave_over_http2() -> Result<()> {
    let rules = rules(LEAK)?;
    let secure = Secure::with(talks, |config| {
        config.rules = Some(super::patient(rules));
    })?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        for (path, status) in [
            ("/head", 403),
            ("/body", 403),
            ("/chunks", 403),
            ("/fine", 200),
            ("/half", 502),
        ] {
            client = client.ready().await?;
            let (response, _) = client.send_request(request(path)?, true)?;
            let response = response.await?;
            ensure!(response.status() == status, "{path}: {}", response.status());
            let mut body = response.into_body();
            let mut text = Vec::new();
            while let Some(piece) = body.data().await {
                text.extend_from_slice(&piece?);
            }
            ensure!(status != 200 || text == b"fine");
        }
        Ok(())
    })
}

#[test]
fn what_is_longer_than_the_limit_is_streamed() -> Result<()> {
    let stage = judged(talks, LEAK, |_| {})?;
    let mut client = stage.client()?;
    let response = client.get("/long")?;
    ensure!(response.status == 200 && response.body.len() == 1_000_006);
    ensure!(client.get("/fine")?.status == 200);
    let strict = LEAK.replace("ProcessPartial", "Reject");
    let stage = judged(talks, &strict, |_| {})?;
    ensure!(stage.client()?.get("/long")?.status == 500);
    Ok(())
}

/// A backend that dies under a response that is held: nothing of it was sent.
#[test]
fn half_a_response_is_a_502() -> Result<()> {
    let stage = judged(talks, LEAK, |_| {})?;
    ensure!(stage.client()?.get("/half")?.status == 502);
    Ok(())
}

#[test]
fn events_are_not_held() -> Result<()> {
    let stage = judged(talks, LEAK, |_| {})?;
    let mut client = stage.client()?;
    let start = std::time::Instant::now();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(client.head()?.starts_with("HTTP/1.1 200"));
    let mut piece = [0; 11];
    std::io::Read::read_exact(&mut client.stream, &mut piece)?;
    ensure!(&piece == b"6\r\nsecret\r\n");
    ensure!(
        start.elapsed() < Duration::from_millis(250),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}

#[test]
fn backends_are_asked_for_what_can_be_looked_at() -> Result<()> {
    let head = |stage: &Stage| -> Result<String> {
        stage.client()?.send(
            "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2\r\nIf-Range: \"a\"\r\nAccept-Encoding: dcb, gzip\r\n\r\n",
        )?;
        Ok(stage.upstream_head()?.to_ascii_lowercase())
    };
    let asked = head(&judged(talks, LEAK, |_| {})?)?;
    ensure!(
        !asked.contains("range:") && asked.contains("accept-encoding: gzip\r\n"),
        "{asked}"
    );
    let asked = head(&judged(talks, super::ATTACK, |_| {})?)?;
    ensure!(
        asked.contains("\r\nrange:") && asked.contains("if-range:") && asked.contains("dcb"),
        "{asked}"
    );
    Ok(())
}

/// A verdict of the kernel comes through while rules hold the response.
#[test]
fn a_held_response_is_cancelled() -> Result<()> {
    fn stalls(connection: &mut Connection) -> Result<()> {
        connection.head();
        connection.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf",
        )?;
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    }
    let stage = judged(stalls, LEAK, |_| {})?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let started = stage.started()?;
    std::thread::sleep(Duration::from_millis(100));
    ensure!(stage.cancel(started.sequence));
    ensure!(client.response()?.status == 403);
    Ok(())
}
