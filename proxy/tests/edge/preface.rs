//! The PROXY header in front of a connection.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::hostile::verdict_on;
use crate::stage::{Client, Stage, localhost, ok, wait_until};

/// An edge that wants PROXY headers, and trusts this host to write them.
fn trusting() -> Result<Stage> {
    Stage::with(ok, |config| {
        config.listeners[0].proxy_protocol = true;
        config.trusted_hops.networks = vec![localhost().into()];
        config.limits.handshake_deadline = Duration::from_millis(500);
    })
}

/// A version 2 header: `PROXY` for a client, `LOCAL` without one.
fn version_2(client: Option<&str>) -> Result<Vec<u8>> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let client: Option<SocketAddr> = client.map(str::parse).transpose()?;
    match client.map(|it| it.ip()) {
        None => bytes.extend([0x20, 0, 0, 0]),
        Some(IpAddr::V4(address)) => {
            bytes.extend([0x21, 0x11, 0, 12]);
            bytes.extend(address.octets());
            bytes.extend([127, 0, 0, 1]);
        }
        Some(IpAddr::V6(address)) => {
            bytes.extend([0x21, 0x21, 0, 36]);
            bytes.extend(address.octets());
            bytes.extend([0; 16]);
        }
    }
    if let Some(client) = client {
        bytes.extend(client.port().to_be_bytes());
        bytes.extend([0, 80]);
    }
    Ok(bytes)
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn status_after(client: &mut Client) -> u16 {
    client.response().map_or(0, |response| response.status)
}

#[test]
fn proxy_headers_are_believed_from_trusted_hops_only() -> Result<()> {
    let header = "PROXY TCP4 198.51.100.9 127.0.0.1 4711 80\r\n";
    let request = format!("{header}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let stage = trusting()?;
    ensure!(verdict_on(&stage, &request)? == 200);
    let client = stage.started()?.client;
    ensure!(client.address.to_string() == "198.51.100.9" && client.port == 4711);
    ensure!(
        verdict_on(&stage, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")? == 0,
        "no header"
    );

    let stage = Stage::with(ok, |config| config.listeners[0].proxy_protocol = true)?;
    ensure!(verdict_on(&stage, &request)? == 0, "untrusted peer");
    let mut client = stage.client()?;
    client
        .stream
        .write_all(&version_2(Some("198.51.100.9:1"))?)?;
    ensure!(client.rest()?.is_empty(), "untrusted peer, version 2");
    wait_until("counted", || stage.handle.counters().failed_handshakes == 2)?;

    let stage = Stage::new(ok)?;
    ensure!(
        verdict_on(&stage, &request)? != 200,
        "listener without PROXY"
    );
    Ok(())
}

#[test]
fn version_2_names_the_client() -> Result<()> {
    let stage = trusting()?;
    for (named, seen, shared) in [
        (Some("198.51.100.9:4711"), "198.51.100.9", false),
        (Some("[2001:db8::9]:4711"), "2001:db8::9", false),
        (Some("[::ffff:198.51.100.9]:4711"), "198.51.100.9", false),
        // The balancer's own: it is no client, and never banned.
        (None, "127.0.0.1", true),
    ] {
        let mut bytes = version_2(named)?;
        bytes.extend(REQUEST);
        let mut client = stage.client()?;
        client.stream.write_all(&bytes)?;
        ensure!(status_after(&mut client) == 200, "{named:?}");
        let client = stage.started()?.client;
        ensure!(client.address.to_string() == seen, "{named:?}: {client:?}");
        ensure!(client.shared == shared, "{named:?}: {client:?}");
        ensure!(named.is_none() || client.port == 4711);
    }
    Ok(())
}

#[test]
fn a_banned_client_is_refused_behind_its_hop() -> Result<()> {
    let stage = trusting()?;
    let banned: IpAddr = "198.51.100.9".parse()?;
    stage.handle.ban(banned, Duration::from_secs(60), None);
    for (named, status) in [("198.51.100.9:1", 0), ("198.51.100.8:1", 200)] {
        let mut client = stage.client()?;
        let mut bytes = version_2(Some(named))?;
        bytes.extend(REQUEST);
        client.stream.write_all(&bytes)?;
        ensure!(status_after(&mut client) == status, "{named}");
    }
    Ok(())
}

/// However the network cuts it.
#[test]
fn a_header_in_pieces_is_read() -> Result<()> {
    let stage = trusting()?;
    for header in [
        version_2(Some("[2001:db8::9]:4711"))?,
        b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n".to_vec(),
    ] {
        let mut client = stage.client()?;
        client.stream.set_nodelay(true)?;
        for byte in header.iter().chain(REQUEST) {
            client.stream.write_all(&[*byte])?;
            std::thread::sleep(Duration::from_millis(2));
        }
        ensure!(status_after(&mut client) == 200, "{header:?}");
        ensure!(stage.started()?.client.address.to_string() == "2001:db8::9");
    }
    Ok(())
}

#[test]
fn truncated_and_stalled_headers_are_refused() -> Result<()> {
    let stage = trusting()?;
    let header = version_2(Some("198.51.100.9:4711"))?;
    for length in 0..header.len() {
        let mut client = stage.client()?;
        client.stream.write_all(&header[..length])?;
        client.stream.shutdown(std::net::Shutdown::Write)?;
        ensure!(client.rest()?.is_empty(), "{length} bytes");
    }
    let mut client = stage.client()?;
    client.stream.write_all(&header[..20])?;
    let start = Instant::now();
    ensure!(client.rest()?.is_empty());
    ensure!(start.elapsed() < Duration::from_secs(2), "no deadline");
    // Its addresses are shorter than an IPv4 client's, or longer than anybody's.
    for length in [[0, 4], [0xff, 0xff]] {
        let mut wrong = header.clone();
        wrong[14..16].copy_from_slice(&length);
        wrong.extend([0; 2000]);
        let mut client = stage.client()?;
        client.stream.write_all(&wrong)?;
        ensure!(client.rest()?.is_empty(), "length {length:?}");
    }
    ensure!(stage.try_upstream_head().is_none());
    Ok(())
}
