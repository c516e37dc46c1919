//! What comes after a stop waits for whose deed it was.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clew_protocol::Sequence;
use clew_protocol::request::RequestStarted;
use clew_proxy::{Config, OnFailure, StopCount};

use crate::stage::{Client, Connection, PATIENCE, Script, Stage, echo, ok, wait_until};
use crate::tls_stage::{Secure, on_runtime, request};

/// What the kernel has stopped.
#[derive(Clone, Default)]
struct Kernel(Arc<AtomicU64>);

impl Kernel {
    fn stop(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn counted(&self, config: &mut Config) {
        let stops = self.0.clone();
        if let Some(tagging) = &mut config.tagging {
            tagging.stops = StopCount::new(move || stops.load(Ordering::SeqCst));
            tagging.hold_span = 2 * PATIENCE;
        }
    }

    fn stage(&self, script: Script) -> Result<Stage> {
        Stage::with(script, |config| self.counted(config))
    }

    /// A client whose connection has served, and whose request after a stop waits: its answer has come.
    fn waiting(&self) -> Result<(Stage, Client, RequestStarted)> {
        let stage = self.stage(ok)?;
        let mut client = stage.client()?;
        ensure!(client.get("/")?.status == 200);
        stage.started()?;
        self.stop();
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let started = stage.started()?;
        hears_nothing(&mut client)?;
        Ok((stage, client, started))
    }
}

const SILENCE: Duration = Duration::from_millis(100);

fn hears_nothing(client: &mut Client) -> Result<()> {
    let before = client.stream.read_timeout()?;
    client.stream.set_read_timeout(Some(SILENCE))?;
    let heard = client.stream.peek(&mut [0; 64]);
    client.stream.set_read_timeout(before)?;
    ensure!(
        heard
            .as_ref()
            .is_err_and(|it| it.kind() == std::io::ErrorKind::WouldBlock),
        "expected silence, got {heard:?}"
    );
    Ok(())
}

#[test]
fn a_response_waits_until_the_stop_is_decided() -> Result<()> {
    let (stage, mut client, _) = Kernel::default().waiting()?;
    stage.handle.decided(1);
    let response = client.response()?;
    ensure!(response.status == 200 && response.body == "ok");
    // Keep-alive survives, and nothing waits any more.
    ensure!(client.get("/")?.status == 200);
    let counters = stage.handle.counters();
    ensure!(counters.held_responses == 1 && counters.unjudged_responses == 0);
    Ok(())
}

/// Not one byte of what the backend has answered, though it is here.
#[test]
fn a_response_that_waits_may_be_condemned() -> Result<()> {
    let (stage, mut client, started) = Kernel::default().waiting()?;
    ensure!(stage.cancel(started.sequence));
    stage.handle.decided(1);
    let response = client.response()?;
    ensure!(response.status == 403 && response.body.contains(&started.id.to_string()));
    let ended = stage.ended()?;
    ensure!(ended.cancelled_at.is_some() && ended.status == Some(403));
    ensure!(client.get("/")?.status == 200, "keep-alive");
    Ok(())
}

/// Others go on; the one that is held goes when it is free.
#[test]
fn one_may_wait_longer_than_the_others() -> Result<()> {
    let kernel = Kernel::default();
    let stage = kernel.stage(ok)?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    stage.started()?;
    kernel.stop();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let sequence = stage.started()?.sequence;
    stage.handle.hold(sequence);
    stage.handle.hold(sequence);
    stage.handle.decided(1);
    ensure!(stage.client()?.get("/")?.status == 200);
    stage.handle.release(sequence);
    hears_nothing(&mut client)?;
    stage.handle.release(sequence);
    ensure!(client.response()?.status == 200);
    // One that is over takes no harm.
    stage.handle.hold(sequence);
    stage.handle.release(Sequence(1 << 40));
    Ok(())
}

/// The correlator may wait for this end before it can tell whose the stop was.
#[test]
fn the_end_of_a_response_that_waits_is_told() -> Result<()> {
    let (stage, mut client, started) = Kernel::default().waiting()?;
    let sequence = started.sequence;
    ensure!(stage.answered()? == sequence);
    stage.handle.decided(1);
    ensure!(client.response()?.status == 200);
    ensure!(stage.ended()?.sequence == sequence);
    Ok(())
}

fn nothing(connection: &mut Connection) -> Result<()> {
    while connection.head().is_some() {
        connection.send("HTTP/1.1 204 No Content\r\n\r\n")?;
    }
    Ok(())
}

/// Its head is all there is of it.
#[test]
fn a_response_without_a_body_ends_with_its_head() -> Result<()> {
    let kernel = Kernel::default();
    let stage = kernel.stage(nothing)?;
    let mut client = stage.client()?;
    kernel.stop();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let sequence = stage.started()?.sequence;
    ensure!(stage.answered()? == sequence);
    stage.handle.decided(1);
    ensure!(client.head()?.starts_with("HTTP/1.1 204"));
    Ok(())
}

fn on_demand(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
    std::thread::sleep(3 * SILENCE);
    connection.send("6\r\nsecond\r\n")?;
    std::thread::sleep(2 * SILENCE);
    connection.send("5\r\nthird\r\n0\r\n\r\n")?;
    Ok(())
}

/// A stream that has begun: what comes after the stop waits, in its order.
#[test]
fn a_stream_waits_where_it_is() -> Result<()> {
    for is_condemned in [false, true] {
        let kernel = Kernel::default();
        let stage = kernel.stage(on_demand)?;
        let mut client = stage.client()?;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        client.head()?;
        let mut first = [0; "5\r\nfirst\r\n".len()];
        client.stream.read_exact(&mut first)?;
        kernel.stop();
        std::thread::sleep(4 * SILENCE);
        hears_nothing(&mut client)?;
        if is_condemned {
            ensure!(stage.cancel(stage.started()?.sequence));
        }
        stage.handle.decided(1);
        if is_condemned {
            ensure!(client.rest()?.is_empty());
        } else {
            let mut rest = [0; "6\r\nsecond\r\n5\r\nthird\r\n0\r\n\r\n".len()];
            client.stream.read_exact(&mut rest)?;
            ensure!(&rest == b"6\r\nsecond\r\n5\r\nthird\r\n0\r\n\r\n");
        }
    }
    Ok(())
}

/// What an upgraded connection carries is no body, and waits all the same; both ways go on afterwards.
#[test]
fn a_websocket_waits_too() -> Result<()> {
    let kernel = Kernel::default();
    let stage = kernel.stage(echo)?;
    let mut client = stage.client()?;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    ensure!(client.head()?.starts_with("HTTP/1.1 101"));
    for stops in 1..=2 {
        kernel.stop();
        client.send("ping")?;
        hears_nothing(&mut client)?;
        stage.handle.decided(stops);
        client.stream.read_exact(&mut [0; 4])?;
    }
    client.send("pong")?;
    client.stream.read_exact(&mut [0; 4])?;
    kernel.stop();
    client.send("late")?;
    hears_nothing(&mut client)?;
    ensure!(stage.cancel(stage.started()?.sequence));
    ensure!(client.rest()?.is_empty());
    Ok(())
}

/// What never comes is not waited for for ever, and that is counted.
#[test]
fn a_verdict_that_does_not_come_is_given_up() -> Result<()> {
    let kernel = Kernel::default();
    let stage = Stage::with(ok, |config| {
        kernel.counted(config);
        if let Some(tagging) = &mut config.tagging {
            tagging.hold_span = SILENCE;
        }
    })?;
    let mut client = stage.client()?;
    kernel.stop();
    let sent = Instant::now();
    ensure!(client.get("/")?.status == 200);
    ensure!((SILENCE..PATIENCE).contains(&sent.elapsed()));
    wait_until("counted", || {
        stage.handle.counters().unjudged_responses == 1
    })
}

#[test]
fn streams_of_one_connection_wait_alike() -> Result<()> {
    on_runtime(async {
        let kernel = Kernel::default();
        let secure = Secure::with(ok, |config| kernel.counted(config))?;
        let mut client = secure.http2().await?;
        kernel.stop();
        let (first, _) = client.send_request(request("/a")?, true)?;
        let (second, _) = client.send_request(request("/b")?, true)?;
        let sequence = secure.stage.started()?.sequence;
        secure.stage.started()?;
        tokio::time::sleep(SILENCE).await;
        ensure!(secure.stage.cancel(sequence));
        secure.stage.handle.decided(1);
        let answers = tokio::time::timeout(PATIENCE, async { tokio::try_join!(first, second) });
        let (first, second) = answers.await.context("no answer")??;
        ensure!(first.status() == 403 && second.status() == 200);
        Ok(())
    })
}

/// Where no verdict comes, the response goes on, or is refused, as it was told to.
#[test]
fn an_overdue_verdict_fails_open_or_closed() -> Result<()> {
    for (overdue, status) in [(OnFailure::Open, 200), (OnFailure::Closed, 503)] {
        let kernel = Kernel::default();
        let stage = Stage::with(ok, |config| {
            kernel.counted(config);
            if let Some(tagging) = &mut config.tagging {
                tagging.hold_span = Duration::from_millis(100);
                tagging.overdue = overdue;
            }
        })?;
        kernel.stop();
        let mut client = stage.client()?;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
        let response = client.response()?;
        ensure!(response.status == status, "{overdue:?}: {response:?}");
        ensure!(stage.handle.counters().unjudged_responses > 0);
    }
    Ok(())
}

/// Where the correlator does not keep up, requests go on unfollowed, or are refused, as it was told to.
#[test]
fn a_full_queue_fails_open_or_closed() -> Result<()> {
    for (unrecorded, status) in [(OnFailure::Open, 200), (OnFailure::Closed, 503)] {
        let (send, kept) = std::sync::mpsc::sync_channel(0);
        let stage = Stage::with(ok, |config| {
            if let Some(tagging) = &mut config.tagging {
                tagging.records = send;
                tagging.unrecorded = unrecorded;
            }
        })?;
        let answered = stage.client()?.get("/")?.status;
        ensure!(answered == status, "{unrecorded:?}: {answered}");
        ensure!(stage.handle.counters().lost_records > 0);
        drop(kept);
    }
    Ok(())
}
