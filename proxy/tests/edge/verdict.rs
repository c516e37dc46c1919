//! Verdicts and bans.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::stage::{Client, Connection, Stage, echo, flood, hang, localhost, ok, wait_until};

#[test]
fn a_hanging_request_is_answered_403_at_once() -> Result<()> {
    let stage = Stage::new(hang)?;
    let mut client = stage.client()?;
    client.send("GET /hang HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n")?;
    let started = stage.started()?;
    stage.upstream_head()?;
    let at = Instant::now();
    ensure!(stage.cancel(started.sequence));
    let response = client.response()?;
    ensure!(
        at.elapsed() < Duration::from_millis(500),
        "{:?}",
        at.elapsed()
    );
    ensure!(response.status == 403);
    ensure!(
        response.body.contains(&started.id.to_string()),
        "{}",
        response.body
    );
    ensure!(response.head.contains("application/json"));
    let ended = stage.ended()?;
    ensure!(ended.cancelled_at.is_some() && ended.status == Some(403));
    ensure!(ended.relayed_body_bytes == 0);
    // Keep-alive survives.
    ensure!(client.get("/fine")?.status == 200);
    wait_until("counted", || stage.handle.counters().cancelled == 1)?;
    Ok(())
}

fn stream(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
    for _ in 0..1000 {
        std::thread::sleep(Duration::from_millis(10));
        connection.send("5\r\nlater\r\n")?;
    }
    Ok(())
}

#[test]
fn a_streaming_response_is_cut_without_a_clean_end() -> Result<()> {
    let stage = Stage::new(stream)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    client.head()?;
    let started = stage.started()?;
    ensure!(stage.cancel(started.sequence));
    let rest = client.rest()?;
    ensure!(!rest.contains("0\r\n\r\n"), "clean end: {rest:?}");
    ensure!(stage.ended()?.cancelled_at.is_some());
    Ok(())
}

fn stream_to_close(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\n\r\nfirst")?;
    std::thread::sleep(Duration::from_secs(30));
    Ok(())
}

/// A body that ends with the connection would end cleanly if the reset looked like a close.
#[test]
fn a_response_that_ends_with_the_connection_is_cut() -> Result<()> {
    let stage = Stage::new(stream_to_close)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    client.head()?;
    let started = stage.started()?;
    ensure!(stage.cancel(started.sequence));
    let rest = client.rest()?;
    ensure!(!rest.ends_with("0\r\n\r\n"), "clean end: {rest:?}");
    Ok(())
}

#[test]
fn an_upload_is_answered_403_before_its_end() -> Result<()> {
    let stage = Stage::new(hang)?;
    let mut client = stage.client()?;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbegin")?;
    stage.upstream_head()?;
    ensure!(stage.cancel(stage.started()?.sequence));
    ensure!(client.response()?.status == 403);
    // The rest of the body must not be read as a request.
    ensure!(client.rest()?.is_empty());
    ensure!(stage.ended()?.cancelled_at.is_some());
    Ok(())
}

#[test]
fn a_websocket_is_cut() -> Result<()> {
    let stage = Stage::new(echo)?;
    let mut client = stage.client()?;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    ensure!(client.head()?.starts_with("HTTP/1.1 101"));
    client.send("ping")?;
    std::io::Read::read_exact(&mut client.stream, &mut [0; 4])?;
    ensure!(stage.cancel(stage.started()?.sequence));
    ensure!(client.rest()?.is_empty());
    ensure!(stage.ended()?.cancelled_at.is_some());
    wait_until("over", || stage.handle.in_flight() == 0)
}

/// Nothing is read from a backend while its client takes nothing: the verdict has to reach a
/// request that waits to write.
#[test]
fn a_client_that_does_not_read_is_cut() -> Result<()> {
    let stage = Stage::new(flood)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let sequence = stage.started()?.sequence;
    // Until the buffers on the way are full.
    std::thread::sleep(Duration::from_millis(300));
    ensure!(stage.cancel(sequence));
    wait_until("over", || stage.handle.in_flight() == 0)?;
    let ended = stage.ended()?;
    ensure!(ended.cancelled_at.is_some());
    ensure!(client.rest()?.len() < 50_000_000, "all of it came");
    Ok(())
}

#[test]
fn others_are_not_touched() -> Result<()> {
    let stage = Stage::new(hang)?;
    let mut victim = stage.client()?;
    victim.send("GET /hang HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let started = stage.started()?;
    let mut others = Vec::new();
    for _ in 0..8 {
        let mut other = stage.client()?;
        ensure!(other.get("/fine")?.status == 200);
        others.push(other);
    }
    ensure!(stage.cancel(started.sequence));
    ensure!(victim.response()?.status == 403);
    for other in &mut others {
        ensure!(other.get("/fine")?.status == 200);
    }
    Ok(())
}

fn short(connection: &mut Connection) -> Result<()> {
    while let Some(head) = connection.head() {
        let empty = head.starts_with("POST /empty");
        connection.send(if empty {
            "HTTP/1.1 204 No Content\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        })?;
    }
    Ok(())
}

const ROUNDS: usize = 1000;

/// Verdicts that come just as a response ends, and its connection goes back to the pool: the next
/// request on it is innocent.
#[test]
fn late_verdicts_spare_the_next_request() -> Result<()> {
    let stage = Stage::with(short, |config| config.threads = 2)?;
    let mut innocent = stage.client()?;
    let innocent = std::thread::spawn(move || -> Result<()> {
        for _ in 0..ROUNDS {
            ensure!(innocent.post("/innocent")? == 200 && innocent.post("/empty")? == 204);
        }
        Ok(())
    });
    let address = stage.address;
    let guilty = std::thread::spawn(move || -> Result<()> {
        for round in 0..ROUNDS {
            let target = ["/empty?guilty", "/guilty"][round % 2];
            let _ = Client::of(address)?.post(target);
        }
        Ok(())
    });
    while !guilty.is_finished() || !innocent.is_finished() {
        if let Some(started) = stage.try_started()
            && started.target.ends_with("guilty")
        {
            stage.cancel(started.sequence);
        }
    }
    for thread in [guilty, innocent] {
        thread.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    }
    Ok(())
}

#[test]
fn a_verdict_after_the_end_does_nothing() -> Result<()> {
    let stage = Stage::new(ok)?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    let started = stage.started()?;
    stage.ended()?;
    ensure!(!stage.cancel(started.sequence));
    ensure!(client.get("/")?.status == 200);
    Ok(())
}

#[test]
fn banned_sources_are_refused() -> Result<()> {
    let stage = Stage::new(ok)?;
    let mut open = stage.client()?;
    ensure!(open.get("/")?.status == 200);
    stage.handle.ban(localhost(), Duration::from_secs(60), None);
    ensure!(open.get("/")?.status == 403);
    let mut fresh = stage.client()?;
    ensure!(fresh.get("/").is_err());
    ensure!(stage.handle.unban(localhost()));
    ensure!(stage.client()?.get("/")?.status == 200);
    Ok(())
}

#[test]
fn bans_follow_the_forwarded_address() -> Result<()> {
    let stage = Stage::with(ok, |config| {
        config.trusted_hops.networks = vec![localhost().into()]
    })?;
    let banned = SocketAddr::from(([198, 51, 100, 7], 0)).ip();
    stage.handle.ban(banned, Duration::from_secs(60), None);
    for (hop, status) in [("198.51.100.7", 403), ("198.51.100.8", 200)] {
        let mut client = stage.client()?;
        client.send(&format!(
            "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: {hop}\r\n\r\n"
        ))?;
        ensure!(client.response()?.status == status);
    }
    Ok(())
}

/// Everybody behind a balancer would be banned with it.
#[test]
fn trusted_hops_are_never_banned() -> Result<()> {
    let stage = Stage::with(ok, |config| {
        config.trusted_hops.networks = vec![localhost().into()];
    })?;
    ensure!(!stage.handle.ban(localhost(), Duration::from_secs(60), None));
    ensure!(stage.client()?.get("/")?.status == 200);
    ensure!(stage.started()?.client.shared);
    Ok(())
}

#[test]
fn requests_in_flight_finish_at_shutdown() -> Result<()> {
    fn slow(connection: &mut Connection) -> Result<()> {
        connection.head();
        std::thread::sleep(Duration::from_millis(300));
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }
    let stage = Stage::new(slow)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    stage.upstream_head()?;
    stage.handle.shutdown();
    ensure!(client.response()?.status == 200);
    wait_until("listener closed", || stage.client().is_err())
}

/// A client that asks again without having seen that the edge stops is served, and told to connect anew.
#[test]
fn no_request_is_lost_at_shutdown() -> Result<()> {
    let stage = Stage::new(crate::stage::ok)?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    stage.handle.shutdown();
    std::thread::sleep(Duration::from_millis(200));
    let last = client.get("/")?;
    ensure!(last.status == 200, "{last:?}");
    ensure!(
        last.head.to_lowercase().contains("connection: close"),
        "{last:?}"
    );
    ensure!(client.rest()?.is_empty());
    Ok(())
}
