//! Request bodies that do not come in time, and clients that take no response.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clew_proxy::Config;

use crate::stage::{Connection, Stage, flood, hang, ok, wait_until};
use crate::tls_stage::{Secure, on_runtime, request};

const DEADLINE: Duration = Duration::from_millis(600);
/// Twice the deadline would be a timeout that starts anew.
const TOO_LATE: Duration = Duration::from_millis(1000);

fn hurried(config: &mut Config) {
    config.limits.body_deadline = DEADLINE;
}

/// Checks that the deadline has passed since `start`, and has not passed twice.
fn ensure_in_time(start: Instant) -> Result<()> {
    let spent = start.elapsed();
    ensure!((DEADLINE..TOO_LATE).contains(&spent), "{spent:?}");
    Ok(())
}

#[test]
fn bodies_have_a_total_deadline() -> Result<()> {
    let stage = Stage::with(ok, hurried)?;
    let mut client = stage.client()?;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) && client.send("x").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(start.elapsed() < Duration::from_secs(2), "still taken");
    Ok(())
}

/// A byte just before the deadline does not buy another.
#[test]
fn a_body_that_drips_and_stalls_is_a_408() -> Result<()> {
    for declared in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let stage = Stage::with(hang, hurried)?;
        let mut client = stage.client()?;
        let start = Instant::now();
        client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{declared}\r\n\r\n"))?;
        for _ in 0..8 {
            client.send("1\r\nx\r\n")?;
            std::thread::sleep(DEADLINE / 10);
        }
        ensure!(client.response()?.status == 408, "{declared}");
        ensure_in_time(start)?;
    }
    Ok(())
}

/// Sends a piece of its response each 100 ms, whatever comes.
fn talks_meanwhile(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for _ in 0..100 {
        connection.send("1\r\nx\r\n")?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Answers before the body is there, and reads on.
fn answers_early(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    while connection.head().is_some() {}
    Ok(())
}

/// Nor does a response that has begun, or is complete.
#[test]
fn a_body_that_stalls_under_a_response_is_cut() -> Result<()> {
    for script in [talks_meanwhile, answers_early] {
        let stage = Stage::with(script, hurried)?;
        let mut client = stage.client()?;
        let start = Instant::now();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx")?;
        let rest = client.rest()?;
        ensure!(rest.starts_with("HTTP/1.1 200"), "{rest}");
        ensure_in_time(start)?;
        wait_until("over", || stage.handle.in_flight() == 0)?;
    }
    Ok(())
}

#[test]
fn an_http2_body_that_stalls_is_a_408() -> Result<()> {
    // Also where no flight has a name.
    for tagged in [true, false] {
        let secure = Secure::with(hang, |config| {
            hurried(config);
            if !tagged {
                config.tagging = None;
            }
        })?;
        on_runtime(async {
            let mut client = secure.http2().await?;
            let start = Instant::now();
            let (response, mut body) = client.send_request(request("/hang")?, false)?;
            body.send_data(Bytes::from("x"), false)?;
            ensure!(response.await?.status() == 408);
            ensure_in_time(start)?;
            let (other, _) = client
                .ready()
                .await?
                .send_request(request("/fine")?, true)?;
            ensure!(other.await?.status() == 200);
            Ok(())
        })?;
        wait_until("over", || secure.stage.handle.in_flight() == 0)?;
    }
    Ok(())
}

#[test]
fn an_http2_body_that_drips_is_a_408() -> Result<()> {
    let secure = Secure::with(hang, hurried)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let start = Instant::now();
        let (mut response, mut body) = client.send_request(request("/hang")?, false)?;
        let status = loop {
            let _ = body.send_data(Bytes::from("x"), false);
            let patience = Duration::from_millis(50);
            if let Ok(response) = tokio::time::timeout(patience, &mut response).await {
                break response?.status();
            }
        };
        ensure!(status == 408);
        ensure_in_time(start)
    })
}

/// Nobody waits for the backend any more, whose connection must not wait for ever for the client.
#[test]
fn an_http2_body_that_stalls_under_a_response_is_cut() -> Result<()> {
    for script in [talks_meanwhile, answers_early] {
        let secure = Secure::with(script, hurried)?;
        on_runtime(async {
            let mut client = secure.http2().await?;
            let (response, mut body) = client.send_request(request("/")?, false)?;
            body.send_data(Bytes::from("x"), false)?;
            ensure!(response.await?.status() == 200);
            tokio::task::block_in_place(|| {
                wait_until("over", || secure.stage.handle.in_flight() == 0)
            })
        })?;
        let ended = secure.stage.ended()?;
        ensure!(ended.cancelled_at.is_none());
    }
    Ok(())
}

/// Sends its response over twice the deadline of request bodies.
fn takes_long(connection: &mut Connection) -> Result<()> {
    connection.head();
    std::io::Read::read_exact(&mut connection.stream, &mut [0; 1])?;
    std::thread::sleep(DEADLINE);
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")?;
    std::thread::sleep(DEADLINE);
    connection.send("k")
}

/// The deadline is that of the body: its answer may take longer.
#[test]
fn a_complete_body_has_no_deadline() -> Result<()> {
    let secure = Secure::with(takes_long, hurried)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let mut post = request("/")?;
        post.headers_mut().insert("content-length", "1".parse()?);
        let (response, mut body) = client.send_request(post, false)?;
        body.send_data(Bytes::from("x"), true)?;
        let mut body = response.await?.into_body();
        ensure!(body.data().await.context("no data")?? == "o");
        ensure!(body.data().await.context("no data")?? == "k");
        Ok(())
    })?;
    let stage = Stage::with(takes_long, hurried)?;
    let mut client = stage.client()?;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")?;
    ensure!(client.response()?.body == "ok");
    Ok(())
}

/// A client that opens no window, with a verdict on its request and without.
#[test]
fn an_http2_client_without_a_window_is_cut() -> Result<()> {
    for verdict in [false, true] {
        let secure = Secure::with(flood, |config| {
            config.limits.write_deadline = Duration::from_millis(500);
        })?;
        on_runtime(async {
            let stream = secure.connect(&[b"h2"], rustls::ALL_VERSIONS).await?;
            let (client, connection) = h2::client::Builder::new()
                .initial_window_size(0)
                .handshake::<_, Bytes>(stream)
                .await?;
            tokio::spawn(connection);
            let mut client = client.ready().await?;
            let (response, _) = client.send_request(request("/")?, true)?;
            ensure!(response.await?.status() == 200);
            tokio::task::block_in_place(|| {
                let sequence = secure.stage.started()?.sequence;
                ensure!(!verdict || secure.stage.cancel(sequence));
                wait_until("over", || secure.stage.handle.in_flight() == 0)
            })
        })?;
        ensure!(secure.stage.ended()?.cancelled_at.is_some() == verdict);
    }
    Ok(())
}
