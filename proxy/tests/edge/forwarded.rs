//! Who the client is, and how it came, behind hops that say so.

use std::time::Duration;

use anyhow::{Result, ensure};
use clew_proxy::ForwardingHeader;

use crate::stage::{Stage, localhost, ok};

fn trusting(header: ForwardingHeader) -> Result<Stage> {
    Stage::with(ok, |config| {
        config.trusted_hops.networks = vec![localhost().into()];
        config.trusted_hops.header = header;
    })
}

/// The status of a request with `fields`, whose bytes are those of Latin-1.
fn status(stage: &Stage, fields: &str) -> Result<u16> {
    let mut client = stage.client()?;
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let bytes: Vec<u8> = request.chars().map(|char| char as u8).collect();
    std::io::Write::write_all(&mut client.stream, &bytes)?;
    Ok(client.response()?.status)
}

/// Each header with the other one against it, and with bytes that are no text.
#[test]
fn bans_follow_the_header_that_hops_own() -> Result<()> {
    use ForwardingHeader::{Forwarded, XForwardedFor};
    let banned = "X-Forwarded-For: \u{e9}, 198.51.100.7\r\nForwarded: for=198.51.100.8\r\n";
    let other = "X-Forwarded-For: 198.51.100.8\r\nForwarded: \u{e9}, for=198.51.100.7\r\n";
    for (header, banned, other) in [(XForwardedFor, banned, other), (Forwarded, other, banned)] {
        let stage = trusting(header)?;
        let address: std::net::IpAddr = "198.51.100.7".parse()?;
        ensure!(stage.handle.ban(address, Duration::from_secs(60), None));
        ensure!(status(&stage, banned)? == 403, "{header:?}");
        ensure!(status(&stage, other)? == 200, "{header:?}");
        let client = stage.started()?.client;
        ensure!(client.address.to_string() == "198.51.100.8" && !client.shared);
    }
    Ok(())
}

/// What a hop says, and no client may, is how its own client came.
#[test]
fn the_scheme_is_kept_from_trusted_hops_only() -> Result<()> {
    let fields = "X-Forwarded-For: \u{e9}, 198.51.100.8\r\nX-Forwarded-Proto: https\r\n";
    let trusting = trusting(ForwardingHeader::XForwardedFor)?;
    for (stage, scheme) in [(trusting, "https"), (Stage::new(ok)?, "http")] {
        ensure!(status(&stage, fields)? == 200);
        let head = stage.upstream_head()?.to_ascii_lowercase();
        ensure!(
            head.contains(&format!("x-forwarded-proto: {scheme}\r\n")),
            "{head}"
        );
        ensure!(head.contains(", 198.51.100.8, 127.0.0.1\r\n"), "{head}");
        ensure!(status(&stage, "")? == 200);
        let head = stage.upstream_head()?.to_ascii_lowercase();
        ensure!(head.contains("x-forwarded-proto: http\r\n"), "{head}");
    }
    Ok(())
}
