//! Bans at an interface: how soon a packet of a banned source is dropped, and what looking costs.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clew_protocol::incident::Incident;
use clew_sensor::statistics;
use serde_json::{Value, json};

use crate::attribution::mix::encode;
use crate::clew::{Clew, free_port};
use crate::client::{connect_from, send_to};
use crate::control::Control;
use crate::figures::{quantile, rounded};
use crate::wire::Wire;

/// Attackers, each with an address of its own.
const ATTACKERS: u16 = 400;
/// Between two packets of an attacker.
const BETWEEN: Duration = Duration::from_micros(50);
/// For so long an attacker goes on sending; its ban comes within milliseconds.
const SENDING: Duration = Duration::from_millis(100);
/// Bans held, addresses and prefixes each.
const HELD: u32 = 100_000;
/// Longest that the slowest hundredth may take from the kernel's decision to the first packet dropped.
const DROPPED_MS: f64 = 5.0;
/// So many are few.
const FEW: u32 = 1_000;
/// Looks in a row that show what a look does, and not what memory is like.
const OFTEN: u32 = 200;
/// What a look may cost more with all of them than with few.
const FLAT: f64 = 2.0;

/// Attackers come in at an interface of `clew`'s in front of the service at `upstream`.
pub(super) fn measure(clew: &Path, upstream: u16, work: &Path, markers: &Path) -> Result<Value> {
    let wire = Wire::new()?;
    let port = free_port()?;
    let configuration = work.join("barrier.toml");
    std::fs::write(
        &configuration,
        format!(
            "[[listener]]\naddress = \"0.0.0.0:{port}\"\n\
             [[service]]\nname = \"default\"\nupstreams = [\"127.0.0.1:{upstream}\"]\n\
             [ban]\ninterfaces = [\"{}\"]\n",
            wire.name
        ),
    )?;
    let state = work.join("barrier");
    let clew = Clew::start_with(clew, &configuration, port, "enforce", state)?;
    let to = SocketAddr::new(wire.here(), port);
    let control = Control::start();
    for nth in 0..ATTACKERS {
        let marker = markers.join(format!("barrier-{nth}"));
        let line = format!("127.0.0.1;touch {}", marker.display());
        let head = format!(
            "GET /ping?host={} HTTP/1.1\r\nHost: lab\r\n\r\n",
            encode(&line)
        );
        let source = Wire::client(nth);
        let attacker = wire.there(move || attack(source, to, &head))?;
        attacker
            .join()
            .map_err(|_| anyhow!("the attacker panicked"))??;
        ensure!(!marker.exists(), "{source}: the command ran");
    }
    let late = control.stop()?;
    let incidents = clew.wait_incidents(ATTACKERS.into())?;
    let dropped = clew.dropped()?;
    let neighbour = Wire::client(ATTACKERS);
    let served = wire.there(move || {
        send_to(
            neighbour,
            to,
            "GET /orders?n=1 HTTP/1.1\r\nHost: lab\r\n\r\n",
        )
    })?;
    let served = served
        .join()
        .map_err(|_| anyhow!("the neighbour panicked"))??;
    ensure!(served.status == 200, "a neighbour got {}", served.status);
    clew.stop()?;
    let spans = (0..ATTACKERS).map(|nth| spans(&incidents, &dropped, Wire::client(nth)));
    let spans = spans.collect::<Result<Vec<_>>>()?;
    let all = |of: fn(&Spans) -> f64| quantiles(spans.iter().map(of).collect());
    Ok(json!({
        "attempts": ATTACKERS,
        "event_to_ban_ms": all(|it| it.to_ban),
        "ban_to_drop_ms": all(|it| it.to_drop),
        "event_to_drop_ms": all(|it| it.to_ban + it.to_drop),
        "wakeup_delay_ms": quantiles(late),
        "bans_held": HELD,
        "prefixes_held": HELD,
        "few": FEW,
        "look_ns": looks(OFTEN)?,
        "first_look_ns": looks(1)?,
    }))
}

/// What the program costs per packet, without what it costs to measure it.
fn looks(repeat: u32) -> Result<Value> {
    let (few, all) = (
        statistics::barrier(FEW, repeat)?,
        statistics::barrier(HELD, repeat)?,
    );
    let look = |of: fn(&statistics::BarrierCost) -> Duration| {
        let net = |cost| of(cost).saturating_sub(cost.aside).as_nanos() as f64;
        let (few, all) = (net(&few), net(&all));
        json!({ "with_few": few, "with_all": all, "ratio": rounded(all / few.max(1.0)) })
    };
    Ok(json!({
        "passed": look(|cost| cost.passed),
        "refused": look(|cost| cost.refused),
        "refused_by_prefix": look(|cost| cost.refused_by_prefix),
    }))
}

/// What has to hold of what [`measure`] says.
pub(super) fn check(figures: &Value) -> Result<()> {
    let number = |path: &str| {
        figures
            .pointer(path)
            .and_then(Value::as_f64)
            .context("no figure")
    };
    let slowest = number("/event_to_drop_ms/p99")?;
    ensure!(
        slowest <= DROPPED_MS,
        "packets of the banned were dropped after {slowest} ms, not {DROPPED_MS}"
    );
    for kind in ["passed", "refused"] {
        let ratio = number(&format!("/look_ns/{kind}/ratio"))?;
        ensure!(
            ratio <= FLAT,
            "with {HELD} bans a look costs {ratio} times what it costs with {FEW} ({kind})"
        );
    }
    Ok(())
}

/// Sends `head`, and beside it a head that does not end, a byte in each packet.
fn attack(source: Ipv4Addr, to: SocketAddr, head: &str) -> Result<()> {
    let mut stream = connect_from(source, to)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nX-Slow: ")?;
    std::thread::scope(|scope| {
        // The answer may be lost: its connection is dropped with all others.
        scope.spawn(|| send_to(source, to, head));
        let end = Instant::now() + SENDING;
        while Instant::now() < end && stream.write_all(b"a").is_ok() {
            std::thread::sleep(BETWEEN);
        }
    });
    Ok(())
}

/// Milliseconds from the kernel's decision to the ban, and from there to the first packet dropped: the time
/// until the attacker sends one is in it.
struct Spans {
    to_ban: f64,
    to_drop: f64,
}

fn quantiles(mut all: Vec<f64>) -> Value {
    all.sort_by(f64::total_cmp);
    let quantile = |share| rounded(quantile(&all, share));
    json!({ "p50": quantile(0.5), "p99": quantile(0.99) })
}

fn spans(incidents: &[Incident], dropped: &[(IpAddr, f64)], source: Ipv4Addr) -> Result<Spans> {
    let source = IpAddr::from(source);
    let incident = incidents.iter().find(|incident| {
        let request = incident.request.as_ref();
        request.is_some_and(|request| request.source_ip == source)
    });
    let incident = incident.with_context(|| format!("{source}: no incident names it"))?;
    let to_ban = incident.timing.exec_to_ban_ms;
    let first = dropped.iter().find(|(address, _)| *address == source);
    Ok(Spans {
        to_ban: to_ban.with_context(|| format!("{source} was not banned"))?,
        to_drop: first
            .with_context(|| format!("{source}: no packet was dropped"))?
            .1,
    })
}
