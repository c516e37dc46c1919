//! A ban is not a weapon: who may turn one against whom, tried on a real service.

use std::net::Ipv4Addr;
use std::path::Path;

mod barrier;

use anyhow::{Context, Result, ensure};
use clew_protocol::incident::Incident;
use serde::Serialize;

use crate::attribution::mix::encode;
use crate::attribution::stack::{Stack, private};
use crate::clew::Clew;
use crate::client::send;
use crate::demo::{open_to_all, refused};
use crate::figures;

/// The balancer in front, whose word on who its clients are is taken.
const HOP: Ipv4Addr = Ipv4Addr::new(127, 50, 0, 1);
/// An address of many people.
const SHARED: Ipv4Addr = Ipv4Addr::new(127, 60, 0, 1);

/// One way to have somebody banned.
#[derive(Debug, Serialize)]
struct Case {
    name: &'static str,
    /// The program never ran.
    stopped: bool,
    banned: bool,
    /// Whether the next request of the same connection's address was served.
    served_after: bool,
}

/// Whom an attack comes from, and how.
struct Attack {
    name: &'static str,
    source: Ipv4Addr,
    /// Request line and header lines.
    head: String,
    /// Only here a ban is right.
    own: bool,
}

pub(crate) fn run(binary: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("clew-lab-").tempdir()?;
    open_to_all(work.path())?;
    let stack = Stack::named("gunicorn-sync").context("the stack is gone")?;
    let running = stack.start(work.path())?;
    let markers = private(&work.path().join("markers"))?;
    let config = format!("[trust]\nhops = [\"{HOP}\"]\nshared = [\"{SHARED}\"]\n");
    let state = work.path().join("clew");
    let clew = Clew::configured(binary, running.port, "enforce", state, &config)?;
    store(&clew, &markers)?;
    let attacks = attacks(&markers);
    let mut cases = Vec::new();
    for (nth, attack) in attacks.iter().enumerate() {
        let case = attempt(&clew, attack, nth, &markers)?;
        println!(
            "   {:28} stopped: {}, banned: {}, served after: {}",
            case.name, case.stopped, case.banned, case.served_after
        );
        cases.push(case);
    }
    clew.stop()?;
    let barrier = barrier::measure(binary, running.port, work.path(), &markers)?;
    figures::print(&barrier);
    let all = serde_json::json!({ "cases": cases, "barrier": barrier });
    figures::save("bans", &all)?;
    for (case, attack) in cases.iter().zip(&attacks) {
        ensure!(case.stopped, "{}: it was not stopped", case.name);
        let right = case.banned == attack.own && case.served_after != attack.own;
        ensure!(right, "{}: {case:?}", case.name);
    }
    barrier::check(&barrier)
}

/// An attacker leaves something behind that will run in a later visitor's request.
fn store(clew: &Clew, markers: &Path) -> Result<()> {
    let marker = markers.join("stored").display().to_string();
    let source = format!(
        "import subprocess\n\ndef run(cmd):\n    return subprocess.check_output(['touch', '{marker}'])\n"
    );
    let stored = send(
        Ipv4Addr::new(127, 70, 0, 1),
        clew.port,
        &format!(
            "POST /upload?name=news.py HTTP/1.1\r\nHost: lab\r\nContent-Length: {}\r\n\r\n{source}",
            source.len()
        ),
    )?;
    ensure!(stored.status == 200, "the upload got {}", stored.status);
    Ok(())
}

fn attacks(markers: &Path) -> Vec<Attack> {
    let ping = |name: &str| {
        let line = format!("127.0.0.1;touch {}", markers.join(name).display());
        format!("GET /ping?host={} HTTP/1.1\r\nHost: lab\r\n", encode(&line))
    };
    let from = |low| Ipv4Addr::new(127, 80, 0, low);
    vec![
        Attack {
            name: "own",
            source: from(1),
            head: ping("own"),
            own: true,
        },
        Attack {
            name: "cross-site",
            source: from(2),
            head: ping("cross-site") + "Sec-Fetch-Site: cross-site\r\n",
            own: false,
        },
        Attack {
            name: "foreign referer",
            source: from(3),
            head: ping("referer") + "Referer: https://elsewhere.example/page\r\n",
            own: false,
        },
        Attack {
            name: "stored by another",
            source: from(4),
            head: "GET /uploads/news.py?cmd=today HTTP/1.1\r\nHost: lab\r\n".to_owned(),
            own: false,
        },
        Attack {
            name: "shared address",
            source: SHARED,
            head: ping("shared"),
            own: false,
        },
        Attack {
            name: "trusted proxy",
            source: HOP,
            head: ping("hop"),
            own: false,
        },
    ]
}

/// `before` incidents have been reported so far.
fn attempt(clew: &Clew, attack: &Attack, before: usize, markers: &Path) -> Result<Case> {
    let head = &attack.head;
    let bans_before = bans(&clew.incidents()?);
    send(attack.source, clew.port, &format!("{head}\r\n"))?;
    let incidents = clew.wait_incidents(before + 1)?;
    let next = send(
        attack.source,
        clew.port,
        "GET /orders?n=1 HTTP/1.1\r\nHost: lab\r\n\r\n",
    );
    Ok(Case {
        name: attack.name,
        stopped: std::fs::read_dir(markers)?.next().is_none(),
        banned: bans(&incidents) > bans_before,
        served_after: !refused(&next) && next.is_ok_and(|it| it.status == 200),
    })
}

fn bans(incidents: &[Incident]) -> usize {
    incidents.iter().filter(|it| it.ban.is_some()).count()
}
