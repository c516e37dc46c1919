//! The evasion suite: attacks carried out from inside a request handler, each in a way that hides
//! from some kind of sensor, and what Clew made of each. Every result is measured: a file that was
//! made or not, a socket that was reached or not.

mod cases;
mod direct;
mod limits;
mod sink;
mod stage;
pub(crate) mod storm;
mod tokens;
mod watch;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::clew::Clew;
use crate::crowd::Crowd;
use crate::demo::open_to_all;
use crate::figures;
use cases::{CASES, Case, How};
use stage::{Mode, Stage};
use watch::{Outcome, Verdict};

/// Most documented limits.
const DECLARED: usize = 8;
/// Bystanders, each at its own pace.
const CLIENTS: u8 = 2;
const PAUSE: Duration = Duration::from_millis(50);
/// The one visitor of each service whose requests teach the profile.
const VISITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);

/// Runs every case, or those whose names are given, and writes `evasions.json`.
///
/// # Errors
///
/// A case is neither stopped nor reported nor a documented limit, there are too many limits, or a
/// benign request failed.
pub(crate) fn run(clew: &Path, only: &[String]) -> Result<()> {
    let work = tempfile::Builder::new()
        .prefix("clew-evasions-")
        .tempdir()?;
    open_to_all(work.path())?;
    let mut stage = Stage::start(work.path())?;
    let chosen: Vec<&Case> = CASES
        .iter()
        .filter(|case| only.is_empty() || only.iter().any(|name| name == case.name))
        .collect();
    ensure!(!chosen.is_empty(), "no case has such a name");
    println!("{} cases; first without Clew", chosen.len());
    let possible = without_clew(&mut stage, &chosen)?;
    println!("learning what the services do");
    learn(&stage, clew)?;
    println!("and now with Clew");
    let state = work.path().join("state");
    let clew = Clew::start_with(clew, &stage.configuration, stage.port, "enforce", state)?;
    let crowd = Crowd::start(CLIENTS, clew.port, PAUSE, |_, _| stage::benign(Mode::Plain));
    let mut outcomes = Vec::new();
    for (nth, case) in chosen.iter().enumerate() {
        let outcome = if possible.contains(case.name) || !case.is_request() {
            case.play(&mut stage, &clew, nth)
                .with_context(|| case.name.to_owned())?
        } else {
            Outcome::impossible(&stage.note(case.name, "without"))
        };
        println!(
            "{:28} {:10} {}",
            case.name,
            outcome.verdict.name(),
            outcome.reason
        );
        outcomes.push((case.name, outcome));
    }
    let benign = crowd.stop()?;
    for failure in &benign.failures {
        println!("a benign request: {failure}");
    }
    clew.stop()?;
    report(&outcomes, benign.sent, benign.sent - benign.ok)
}

/// Plays the cases straight against the backends: those that work are worth stopping.
fn without_clew(stage: &mut Stage, chosen: &[&Case]) -> Result<HashSet<&'static str>> {
    let mut possible = HashSet::new();
    for case in chosen {
        if let How::Request(mode) = case.how
            && case.works(stage, mode)?
        {
            possible.insert(case.name);
        }
    }
    Ok(possible)
}

/// A visitor of each service, in learn mode.
fn learn(stage: &Stage, clew: &Path) -> Result<()> {
    let state = stage.work.join("state");
    let clew = Clew::start_with(clew, &stage.configuration, stage.port, "learn", state)?;
    for mode in Mode::ALL {
        let answer = crate::client::send(VISITOR, clew.port, &stage::benign(mode))?;
        ensure!(
            answer.status == 200,
            "{}: a benign request got {}",
            mode.name(),
            answer.status
        );
    }
    clew.stop()
}

fn report(outcomes: &[(&str, Outcome)], sent: u64, failed: u64) -> Result<()> {
    let count = |verdict| outcomes.iter().filter(|it| it.1.verdict == verdict).count();
    let cases: Vec<Value> = outcomes
        .iter()
        .map(|(name, it)| json!({"name": name, "result": it.verdict.name(), "reason": it.reason}))
        .collect();
    let declared = count(Verdict::Declared);
    println!(
        "\n{} stopped, {} reported, {declared} declared, {} missed; {failed} of {sent} benign requests failed",
        count(Verdict::Stopped),
        count(Verdict::Reported),
        count(Verdict::Missed)
    );
    figures::save(
        "evasions",
        &json!({
            "cases": cases,
            "stopped": count(Verdict::Stopped),
            "reported": count(Verdict::Reported),
            "declared": declared,
            "missed": count(Verdict::Missed),
            "benign_sent": sent,
            "benign_failed": failed,
        }),
    )?;
    let missed: Vec<&str> = outcomes
        .iter()
        .filter(|it| it.1.verdict == Verdict::Missed)
        .map(|it| it.0)
        .collect();
    ensure!(missed.is_empty(), "missed: {}", missed.join(", "));
    ensure!(
        declared <= DECLARED,
        "{declared} limits; at most {DECLARED} may be declared"
    );
    ensure!(failed == 0, "{failed} of {sent} benign requests failed");
    Ok(())
}
