//! One clew takes the place of another, under load, and no client notices but by waiting.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::h2;
use super::load::{Load, Pace, Tally, Turn};
use super::site::{PATIENCE, SHOP, Site, WEAK};
use crate::clew::free_port;

/// How often.
const UPGRADES: u32 = 3;
/// Requests before, between and after.
const REQUESTS: u64 = 2000;

/// Clients that keep their connections for long, and others that have a new one for each request.
const KEEPING: Pace = Pace {
    clients: 4,
    period: Duration::from_millis(1),
    per_connection: 10_000,
    noted: &[],
};
const NEW: Pace = Pace {
    clients: 4,
    period: Duration::from_millis(2),
    per_connection: 1,
    noted: &[],
};

/// Clients of HTTP/2, over TLS.
const HTTP_2: u8 = 4;

pub(super) fn run(site: &Site) -> Result<Value> {
    let identity = h2::Identity::make(&site.work)?;
    let secure = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let listener = format!(
        "[[listener]]\naddress = \"{secure}\"\ntls = {{ certificate = {:?}, key = {:?} }}\n",
        identity.certificate, identity.key
    );
    let case = site.case("upgrade", site.is_root, &listener)?;
    let mut clew = case.start()?;
    let script = |_: u8, nth: u32| Turn {
        host: if nth % 16 == 1 { WEAK } else { SHOP },
        target: format!("/item/{nth}"),
        right: &[200],
    };
    let keeping = Load::start(case.to, 13, KEEPING, script);
    let new = Load::start(case.to, 14, NEW, script);
    let multiplexed = h2::Load::start(secure, 16, HTTP_2, &identity)?;
    for _ in 0..UPGRADES {
        keeping.wait(REQUESTS, PATIENCE)?;
        clew = clew.take_over()?;
    }
    keeping.wait(REQUESTS, PATIENCE)?;
    let (mut all, new) = (keeping.stop()?, new.stop()?);
    let (multiplexed, resent) = multiplexed.stop()?;
    let connections = json!({
        "kept": all.connections, "for_one_request": new.connections, "http_2": multiplexed.connections,
    });
    let by_http_2 = multiplexed.sent;
    all.add(new);
    all.add(multiplexed);
    clew.stop()?;
    let Tally {
        sent,
        failed,
        failures,
        longest,
        ..
    } = all;
    Ok(json!({
        "upgrades": UPGRADES,
        "upgrade_with_sensor": site.is_root,
        "upgrade_requests": sent,
        "upgrade_requests_http_2": by_http_2,
        "upgrade_requests_sent_again": resent,
        "upgrade_connections": connections,
        "upgrade_failed_requests": failed,
        "upgrade_failures": failures,
        "upgrade_longest_pause_ms": longest.as_millis() as u64,
    }))
}
