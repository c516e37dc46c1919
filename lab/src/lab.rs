//! Exploits by the thousand among benign load, each from an address of its own, so that what
//! Clew says can be held against who it was.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clew_protocol::incident::{Incident, StepKind};
use clew_protocol::verdict::Proof;
use serde_json::{Map, Value, json};

use crate::backend::{Backend, Kind, benign};
use crate::clew::Clew;
use crate::client::send;
use crate::control::Control;
use crate::crowd::{Crowd, Seen};
use crate::demo::open_to_all;
use crate::figures::{self, quantile, rounded};

/// Bystanders, and the pause each makes between requests: a loaded service, not a drowned one.
const CLIENTS: u8 = 16;
const PAUSE: Duration = Duration::from_millis(20);
/// Benign requests before the first exploit; half of them in company teach that a thread of this
/// service works on one request at a time.
const LESSONS: Duration = Duration::from_secs(12);
/// Longest from the kernel's decision to the cancelled request, in 99 of 100.
const CANCEL_P99_MS: f64 = 2.0;
const BASELINE: Duration = Duration::from_secs(8);

pub(crate) fn run(clew: &Path, attempts: u32) -> Result<()> {
    let work = tempfile::Builder::new().prefix("clew-lab-").tempdir()?;
    open_to_all(work.path())?;
    let mut services = Map::new();
    for kind in [Kind::Log4Shell, Kind::Injection] {
        println!(
            "{}: {attempts} attempts among {CLIENTS} benign clients",
            kind.name()
        );
        let backend = Backend::start(kind, work.path())?;
        services.insert(
            kind.name().to_owned(),
            service(clew, &backend, work.path(), attempts)?,
        );
    }
    let kept = services.clone();
    figures::write("lab", &Value::Object(services))?;
    for (name, figures) in kept {
        for key in [
            "side_effects",
            "leaked_response_bytes",
            "wrong",
            "innocent_bans",
            "benign_failed",
        ] {
            ensure!(figures[key] == 0, "{name}: {key} is {}", figures[key]);
        }
        ensure!(
            figures["killed"] == attempts,
            "{name}: {} killed",
            figures["killed"]
        );
        ensure!(
            figures["attributed"] == attempts,
            "{name}: {} attributed",
            figures["attributed"]
        );
        let slowest = figures["exec_to_cancel_ms"]["p99"].as_f64();
        ensure!(
            slowest.is_some_and(|it| it <= CANCEL_P99_MS),
            "{name}: 1 in 100 requests was cancelled {} ms after the kernel's decision or later, not within \
             {CANCEL_P99_MS}; a thread of the same priority that was due meanwhile ran {} ms late or later \
             as often",
            figures["exec_to_cancel_ms"]["p99"],
            figures["wakeup_delay_ms"]["p99"]
        );
    }
    Ok(())
}

fn service(clew: &Path, backend: &Backend, work: &Path, attempts: u32) -> Result<Value> {
    let state = work.join(format!("lab-{}", backend.kind.name()));
    let clew = Clew::start(clew, backend.port, "enforce", state)?;
    crowd_for(&clew, LESSONS, Duration::from_millis(1))?;
    let calm = crowd_for(&clew, BASELINE, PAUSE)?;
    let crowd = Crowd::start(CLIENTS, clew.port, PAUSE, benign);
    let (start, control) = (Instant::now(), Control::start());
    let leaked = attack(backend, &clew, attempts)?;
    println!(
        "   {attempts} attempts in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let late = control.stop()?;
    let besieged = crowd.stop()?;
    let incidents = clew.wait_incidents(attempts as usize)?;
    let mut figures = judge(backend, &incidents, attempts, leaked, &calm, &besieged)?;
    figures["wakeup_delay_ms"] = json!({
        "p50": rounded(quantile(&late, 0.5)),
        "p99": rounded(quantile(&late, 0.99)),
    });
    clew.stop()?;
    Ok(figures)
}

fn crowd_for(clew: &Clew, span: Duration, pause: Duration) -> Result<Seen> {
    let crowd = Crowd::start(CLIENTS, clew.port, pause, benign);
    std::thread::sleep(span);
    crowd.stop()
}

/// All attempts, one after the other; bytes that the backend sent after the kernel's decision.
fn attack(backend: &Backend, clew: &Clew, attempts: u32) -> Result<usize> {
    let mut leaked = 0;
    for nth in 0..attempts {
        let answer = send(
            attacker(nth),
            clew.port,
            &backend.exploit(&format!("m-{nth}"), false),
        )?;
        // What a killed program's parent says to a client that could not be named is released,
        // and counts: the figure is what left, not what should have.
        leaked += if answer.status == 403 {
            0
        } else {
            answer.body.len()
        };
    }
    Ok(leaked)
}

fn attacker(nth: u32) -> Ipv4Addr {
    Ipv4Addr::new(127, 2, (nth >> 8) as u8, nth as u8)
}

fn judge(
    backend: &Backend,
    incidents: &[Incident],
    attempts: u32,
    leaked: usize,
    calm: &Seen,
    besieged: &Seen,
) -> Result<Value> {
    let truth: HashMap<String, Ipv4Addr> = (0..attempts)
        .map(|nth| (format!("m-{nth}"), attacker(nth)))
        .collect();
    let culprit = |incident: &Incident| marker_of(incident).and_then(|it| truth.get(&it).copied());
    let named = |incident: &Incident| incident.request.as_ref().map(|request| request.source_ip);
    let right = |incident: &&Incident| culprit(incident).map(IpAddr::V4) == named(incident);
    let attributed = incidents.iter().filter(|it| it.proof != Proof::Candidates);
    let wrong = attributed
        .clone()
        .filter(|incident| !right(incident))
        .count();
    let is_attacker = |address: IpAddr| truth.values().any(|it| IpAddr::V4(*it) == address);
    let innocent_bans = incidents
        .iter()
        .filter_map(|it| it.ban.as_ref())
        .filter(|ban| !is_attacker(ban.address))
        .count();
    let mut cancels: Vec<f64> = incidents
        .iter()
        .filter_map(|it| it.timing.exec_to_cancel_ms)
        .collect();
    cancels.sort_by(f64::total_cmp);
    let usual = quantile(&calm.latencies_ms, 0.5);
    let delay = |share| rounded((quantile(&besieged.latencies_ms, share) - usual).max(0.0));
    Ok(json!({
        "attempts": attempts,
        "killed": incidents.iter().filter(|it| killed(it)).count(),
        "side_effects": backend.side_effects()?,
        "leaked_response_bytes": leaked,
        "attributed": attributed.count(),
        "wrong": wrong,
        "candidates": incidents.iter().filter(|it| it.proof == Proof::Candidates).count(),
        "exec_to_cancel_ms": {
            "p50": rounded(quantile(&cancels, 0.5)),
            "p99": rounded(quantile(&cancels, 0.99)),
        },
        "innocent_bans": innocent_bans,
        "benign_failed": calm.sent - calm.ok + besieged.sent - besieged.ok,
        "benign_sent": calm.sent + besieged.sent,
        "benign_delay_ms": {
            "p99": delay(0.99),
            "maximum": delay(1.0),
            "p99_without_attack": rounded(quantile(&calm.latencies_ms, 0.99) - usual),
            "maximum_without_attack": rounded(quantile(&calm.latencies_ms, 1.0) - usual),
        },
    }))
}

/// The marker that the stopped program was to write.
fn marker_of(incident: &Incident) -> Option<String> {
    let stopped = incident.steps.iter().filter(|step| step.decision.is_stop());
    stopped.into_iter().find_map(|step| match &step.what {
        StepKind::Exec(exec) => Some(exec.args.get(2)?.rsplit('/').next()?.to_owned()),
        StepKind::Connect { .. } | StepKind::File { .. } => None,
    })
}

fn killed(incident: &Incident) -> bool {
    incident.steps.iter().any(|step| step.decision.is_stop())
}
