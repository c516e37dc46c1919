//! How long the edge waits for whom.

use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::stage::{Connection, Stage, echo, flood, ok, wait_until};

/// A WebSocket is no request body: neither its deadline nor its size limit applies.
#[test]
fn websockets_outlive_the_limits_of_bodies() -> Result<()> {
    let stage = Stage::with(echo, |config| {
        config.limits.body_deadline = Duration::from_millis(200);
        config.limits.body_bytes = 1000;
    })?;
    let mut client = stage.client()?;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    ensure!(client.head()?.starts_with("HTTP/1.1 101"));
    for _ in 0..4 {
        client.send(&"x".repeat(500))?;
        client.stream.read_exact(&mut [0; 500])?;
        std::thread::sleep(Duration::from_millis(150));
    }
    std::thread::sleep(Duration::from_millis(400));
    client.send("still here")?;
    client.stream.read_exact(&mut [0; 10])?;
    Ok(())
}

#[test]
fn idle_connections_are_closed() -> Result<()> {
    let stage = Stage::with(ok, |config| {
        config.limits.keepalive = Duration::from_secs(1)
    })?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    let start = Instant::now();
    ensure!(client.rest()?.is_empty());
    ensure!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}

/// Says so when the edge closes the connection.
fn tell(connection: &mut Connection) -> Result<()> {
    ok(connection)?;
    connection.show("closed".to_owned());
    Ok(())
}

#[test]
fn unused_upstream_connections_are_kept_as_long_as_is_configured() -> Result<()> {
    for (idle_timeout, is_closed) in [(Some(Duration::from_millis(200)), true), (None, false)] {
        let stage = Stage::with(tell, |config| {
            config.services[0].idle_timeout = idle_timeout
        })?;
        ensure!(stage.client()?.get("/")?.status == 200);
        ensure!(stage.upstream_head()?.starts_with("GET / "));
        std::thread::sleep(Duration::from_millis(600));
        let shown = stage.try_upstream_head();
        ensure!(shown.is_some() == is_closed, "{idle_timeout:?}: {shown:?}");
    }
    Ok(())
}

/// Speaks slowly, or falls silent.
fn trickle(connection: &mut Connection) -> Result<()> {
    let pause = || std::thread::sleep(Duration::from_millis(200));
    let head = connection.head().unwrap_or_default();
    pause();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")?;
    for _ in 0..3 {
        pause();
        connection.send("x")?;
    }
    if head.starts_with("GET /silent") {
        (0..5).for_each(|_| pause());
    }
    pause();
    connection.send("x")
}

#[test]
fn a_backend_may_be_slow_and_not_silent() -> Result<()> {
    let stage = Stage::with(trickle, |config| {
        config.services[0].read_timeout = Duration::from_millis(500);
    })?;
    let mut client = stage.client()?;
    for _ in 0..2 {
        ensure!(client.get("/slow")?.body == "xxxx");
        // Nobody waits for a backend now.
        std::thread::sleep(Duration::from_millis(600));
    }
    client.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let rest = client.rest()?;
    ensure!(!rest.ends_with("xxxx"), "{rest}");
    Ok(())
}

/// Answers when it has the whole body; without one, never.
fn swallow(connection: &mut Connection) -> Result<()> {
    let head = connection.head().unwrap_or_default();
    if head.starts_with("GET ") {
        connection.head();
        return Ok(());
    }
    connection.body(&head)?;
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

/// A backend has nothing to say before it has heard what it is asked.
#[test]
fn a_backend_need_not_speak_while_the_client_does() -> Result<()> {
    let stage = Stage::with(swallow, |config| {
        config.services[0].read_timeout = Duration::from_millis(500);
    })?;
    let mut client = stage.client()?;
    // What was waited for before a verdict is waited for no more.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let started = stage.started()?;
    ensure!(stage.cancel(started.sequence));
    ensure!(client.response()?.status == 403);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")?;
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(200));
        client.send("x")?;
    }
    ensure!(client.response()?.status == 200);
    Ok(())
}

/// What a client takes its time to read is no silence of the backend.
#[test]
fn a_backend_is_not_late_when_its_client_is() -> Result<()> {
    let stage = Stage::with(flood, |config| {
        config.services[0].read_timeout = Duration::from_millis(200);
    })?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    client.head()?;
    let mut quarter = vec![0; 25_000_000];
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        client.stream.read_exact(&mut quarter)?;
    }
    Ok(())
}

/// A client that asks for much and reads nothing would hold its backend for ever.
#[test]
fn clients_that_do_not_read_are_cut() -> Result<()> {
    let stage = Stage::with(flood, |config| {
        config.limits.write_deadline = Duration::from_millis(300);
    })?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    stage.started()?;
    wait_until("given up", || stage.handle.in_flight() == 0)
}

#[test]
fn idle_connections_do_not_delay_shutdown() -> Result<()> {
    let stage = Stage::with(ok, |config| config.shutdown_grace = Duration::from_secs(30))?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    let unused = stage.client()?;
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    drop(stage);
    ensure!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    drop(unused);
    Ok(())
}

/// Heads are held in memory until they end: without a bound, a megabyte for each connection.
#[test]
fn endless_heads_are_cut_early() -> Result<()> {
    let stage = Stage::new(ok)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ")?;
    let line = "x".repeat(1000);
    let mut sent = 0;
    while sent < 900 && client.send(&line).is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_micros(300));
    }
    ensure!(sent < 400, "{sent} KB taken");
    Ok(())
}

/// The service without host names takes what the others do not name, wherever it stands.
#[test]
fn unknown_hosts_go_to_the_default_service() -> Result<()> {
    let stage = Stage::with(ok, |config| {
        let mut first = config.services[0].clone();
        first.name = "first".to_owned();
        first.hosts = vec!["a.example".to_owned()];
        config.services.insert(0, first);
    })?;
    for (host, service) in [("a.example:80", "first"), ("b.example", "test")] {
        let mut client = stage.client()?;
        client.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
        ensure!(client.response()?.status == 200);
        ensure!(&*stage.started()?.service == service, "{host}");
    }
    Ok(())
}
