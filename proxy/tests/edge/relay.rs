//! Requests and responses on their way through.

use anyhow::{Result, ensure};
use clew_protocol::{ProxyId, ServiceId, Token, TokenKey};

use crate::stage::{Connection, Stage, echo, ok};

#[test]
fn the_token_is_the_first_field() -> Result<()> {
    let stage = Stage::new(ok)?;
    let mut client = stage.client()?;
    client.send(
        "GET /a%20b?c HTTP/1.1\r\nHost: test\r\nX-Clew-Token: forged\r\nX-Request-Id: mine\r\n\
         aCCept: x\r\nCookie: a=b\r\n\r\n",
    )?;
    let response = client.response()?;
    ensure!(response.status == 200 && response.body == "ok");
    let head = stage.upstream_head()?;
    let started = stage.started()?;
    let token = Token::mint(
        &TokenKey::new([7; 16]),
        ProxyId(1),
        ServiceId(1),
        started.sequence,
    );
    let line = format!("x-clew-token: {}", String::from_utf8_lossy(&token.to_hex()));
    let lines: Vec<_> = head.split("\r\n").collect();
    ensure!(lines[0] == "GET /a%20b?c HTTP/1.1", "{head}");
    ensure!(lines[1] == line, "{head}");
    ensure!(!head.contains("forged") && !head.contains("mine"), "{head}");
    ensure!(
        head.contains("\r\naCCept: x\r\n") && head.contains("\r\nHost: test\r\n"),
        "{head}"
    );
    ensure!(
        head.to_ascii_lowercase()
            .contains("x-forwarded-for: 127.0.0.1\r\n"),
        "{head}"
    );
    ensure!(
        head.contains(&started.id.to_string()) && response.head.contains(&started.id.to_string())
    );
    ensure!(String::from_utf8_lossy(&started.inputs).contains("/a b?c"));
    let ended = stage.ended()?;
    ensure!(ended.status == Some(200) && ended.relayed_body_bytes == 2);
    ensure!(ended.cancelled_at.is_none());
    Ok(())
}

/// Without a sensor too, and however few fields there are.
#[test]
fn a_head_keeps_its_spelling_without_a_token() -> Result<()> {
    let stage = Stage::with(ok, |config| config.tagging = None)?;
    let fields = [
        "X-Clew-Token: forged",
        "X-Request-Id: mine",
        "aCCept: x",
        "X-Api-KEY: y",
    ];
    for count in 0..=fields.len() {
        let sent = fields[..count].join("\r\n");
        let separator = if count == 0 { "" } else { "\r\n" };
        let mut client = stage.client()?;
        client.send(&format!(
            "GET /a%20b?c HTTP/1.1\r\nHost: test\r\n{sent}{separator}\r\n"
        ))?;
        let response = client.response()?;
        let head = stage.upstream_head()?;
        ensure!(
            head.starts_with("GET /a%20b?c HTTP/1.1\r\nHost: test\r\n"),
            "{head}"
        );
        ensure!(!head.contains("forged") && !head.contains("mine"), "{head}");
        ensure!(head.contains("aCCept: x") == (count > 2), "{head}");
        ensure!(head.contains("X-Api-KEY: y") == (count > 3), "{head}");
        let id = response
            .head
            .lines()
            .find(|line| line.starts_with("x-request-id: "));
        ensure!(id.is_some_and(|id| head.contains(id)), "{head}");
        for field in [
            "x-request-id: ",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
        ] {
            ensure!(head.matches(field).count() == 1, "{field}: {head}");
        }
    }
    Ok(())
}

/// RFC 9110 §7.6.1. Each by itself: one of them must not need another to be seen.
#[test]
fn fields_for_one_hop_end_at_the_edge() -> Result<()> {
    let stage = Stage::with(ok, |config| config.tagging = None)?;
    let sent = [
        "Connection: X-Nominated\r\nX-Nominated: gone",
        "Upgrade: gone",
        "TE: gone",
        "Trailer: gone",
        "Keep-Alive: gone",
        "HTTP2-Settings: gone",
        "Proxy-Connection: gone",
        "Proxy-Authenticate: gone",
        "Proxy-Authorization: gone",
    ];
    for fields in sent {
        let mut client = stage.client()?;
        client.send(&format!(
            "GET / HTTP/1.1\r\nHost: test\r\n{fields}\r\nX-Kept: kept\r\n\r\n"
        ))?;
        ensure!(client.response()?.status == 200, "{fields}");
        let head = stage.upstream_head()?;
        ensure!(head.contains("X-Kept: kept\r\n"), "{head}");
        ensure!(!head.contains("gone"), "{head}");
        ensure!(!head.to_lowercase().contains("x-nominated"), "{head}");
    }
    Ok(())
}

#[test]
fn keep_alive_and_bodies() -> Result<()> {
    let stage = Stage::new(ok)?;
    let mut client = stage.client()?;
    for _ in 0..5 {
        client.send("POST /f HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")?;
        ensure!(client.response()?.status == 200);
        ensure!(client.get("/")?.status == 200);
    }
    ensure!(stage.handle.counters().connections == 1);
    Ok(())
}

fn events(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
    connection.send("data: 1\n\n")?;
    // The second event waits for the client to have got the first.
    std::io::Read::read(&mut connection.stream, &mut [0])?;
    Ok(())
}

#[test]
fn event_streams_are_not_buffered() -> Result<()> {
    let stage = Stage::new(events)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    client.head()?;
    let mut seen = String::new();
    while !seen.contains("data: 1\n\n") {
        let mut bytes = [0; 64];
        let read = std::io::Read::read(&mut client.stream, &mut bytes)?;
        ensure!(read > 0);
        seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    Ok(())
}

#[test]
fn websockets_pass_through() -> Result<()> {
    let stage = Stage::new(echo)?;
    let mut client = stage.client()?;
    client.send(
        "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    ensure!(client.head()?.starts_with("HTTP/1.1 101"));
    client.send("ping")?;
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut client.stream, &mut bytes)?;
    ensure!(&bytes == b"ping");
    Ok(())
}

fn close(connection: &mut Connection) -> Result<()> {
    connection.head();
    Ok(())
}

#[test]
fn a_backend_that_hangs_up_is_a_502() -> Result<()> {
    let stage = Stage::new(close)?;
    ensure!(stage.client()?.get("/")?.status == 502);
    Ok(())
}

#[test]
fn a_backend_that_is_down_is_a_502() -> Result<()> {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let stage = Stage::with(ok, |config| config.services[0].upstreams = vec![gone])?;
    let response = stage.client()?.get("/")?;
    ensure!(response.status == 502 && response.head.contains("x-request-id: "));
    Ok(())
}

fn ailing(connection: &mut Connection) -> Result<()> {
    while let Some(head) = connection.head() {
        let status = if head.starts_with("GET /health ") {
            "500 Ailing"
        } else {
            "418 Reached"
        };
        connection.send(&format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))?;
    }
    Ok(())
}

#[test]
fn an_ailing_backend_is_passed_over() -> Result<()> {
    let ailing = Stage::new(ailing)?;
    let stage = Stage::with(ok, |config| {
        let service = &mut config.services[0];
        service.upstreams.insert(0, ailing.upstream);
        service.health_path = Some("/health".to_owned());
        service.health_check = Some(clew_proxy::HealthCheck {
            interval: std::time::Duration::from_millis(50),
        });
    })?;
    ensure!(ailing.upstream_head()?.starts_with("GET /health "));
    std::thread::sleep(std::time::Duration::from_millis(100));
    for _ in 0..4 {
        ensure!(stage.client()?.get("/")?.status == 200);
    }
    Ok(())
}

#[test]
fn the_next_backend_takes_over() -> Result<()> {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let stage = Stage::with(ok, |config| config.services[0].upstreams.insert(0, gone))?;
    for _ in 0..4 {
        ensure!(stage.client()?.get("/")?.status == 200);
    }
    Ok(())
}

fn continues(connection: &mut Connection) -> Result<()> {
    let head = connection.head().unwrap_or_default().to_ascii_lowercase();
    if head.contains("expect: 100-continue") {
        connection.send("HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = [0; 5];
    std::io::Read::read_exact(&mut connection.stream, &mut body)?;
    ensure!(&body == b"hello");
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() -> Result<()> {
    let stage = Stage::new(continues)?;
    let mut client = stage.client()?;
    client.send(
        "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    )?;
    ensure!(client.head()?.starts_with("HTTP/1.1 100"));
    client.send("hello")?;
    ensure!(client.response()?.status == 200);
    Ok(())
}

fn splits(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n")?;
    connection.head();
    Ok(())
}

/// A bare CR in a backend's header field never reaches a client, who might take it for a line end.
#[test]
fn response_splitting_is_not_relayed() -> Result<()> {
    let stage = Stage::new(splits)?;
    let mut client = stage.client()?;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let text = client.rest()?;
    ensure!(!text.replace("\r\n", "").contains('\r'), "{text:?}");
    Ok(())
}

/// The correlator's queue is full: requests go on, and what it missed is counted.
#[test]
fn a_full_queue_holds_nobody_up() -> Result<()> {
    let (records, _full) = std::sync::mpsc::sync_channel(1);
    let stage = Stage::with(ok, |config| {
        if let Some(tagging) = &mut config.tagging {
            tagging.records = records;
        }
    })?;
    let mut client = stage.client()?;
    for _ in 0..20 {
        ensure!(client.get("/")?.status == 200);
    }
    ensure!(stage.handle.counters().lost_records >= 30);
    Ok(())
}
