//! Ten thousand attempts to start a program while the attacker forks and opens flows as fast as the machine can:
//! what the kernel decides it decides, whatever becomes of the records.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::sink::Sink;
use super::stage::{Mode, Stage, get};
use crate::clew::Clew;
use crate::client::send;
use crate::crowd::Crowd;
use crate::demo::open_to_all;
use crate::figures;

/// Requests that attack, and attempts of each (`services/evasion/lineage.c`).
const REQUESTS: u32 = 100;
const ATTEMPTS: u32 = 100;
/// Between the storm's start and the first attempt.
const RISE: Duration = Duration::from_secs(5);
/// File that ends the storm.
const OVER: &str = "storm-over";
/// Until what the kernel has counted is told, and incidents are written.
const SETTLE: Duration = Duration::from_secs(3);
/// Bystanders.
const CLIENTS: u8 = 2;
const PAUSE: Duration = Duration::from_millis(50);

/// # Errors
///
/// A program ran, a lost record was not counted, an incident does not say that records were lost, or a bystander
/// was hurt.
pub(crate) fn run(clew: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("clew-storm-").tempdir()?;
    open_to_all(work.path())?;
    let mut stage = Stage::start(work.path())?;
    let sink = Sink::open()?;
    let alone = without_clew(&mut stage, &sink)?;
    let state = work.path().join("state");
    let clew = Clew::start_with(clew, &stage.configuration, stage.port, "enforce", state)?;
    let crowd = Crowd::start(CLIENTS, clew.port, PAUSE, |_, _| get(Mode::Plain, "/echo"));
    let before = counted(&clew)?;
    ask(&stage, clew.port, "storm", 0, &sink);
    std::thread::sleep(RISE);
    let start = Instant::now();
    for nth in 1..=REQUESTS {
        ask(&stage, clew.port, "attempts", nth, &sink);
    }
    let took = start.elapsed();
    std::fs::write(stage.work.join(OVER), "")?;
    std::thread::sleep(SETTLE);
    let after = counted(&clew)?;
    let benign = crowd.stop()?;
    let incidents = clew.incidents()?;
    clew.stop()?;

    let grown = |path: &str| Ok::<_, anyhow::Error>(number(&after, path)? - number(&before, path)?);
    let storm = stage.note("storm", "0");
    let (flows, _) = done(&storm, "connects");
    let (flow_rate, fork_rate) = rates(&storm);
    let killed = |nth: u32| done(&stage.note("attempts", &nth.to_string()), "killed").0;
    let killed_by_parents: u64 = (1..=REQUESTS).map(killed).sum();
    let attempts = u64::from(REQUESTS * ATTEMPTS);
    let (connects, lost_connect) = (
        grown("/correlator/connects")?,
        grown("/sensor/lost_connect")?,
    );
    let (execs, lost_exec) = (grown("/correlator/execs")?, grown("/sensor/lost_exec")?);
    let degraded = incidents
        .iter()
        .filter(|it| !it.degraded.is_empty())
        .count();
    let figures = json!({
        "attempts": attempts,
        "killed": grown("/sensor/killed")?,
        "killed_as_their_parents_saw": killed_by_parents,
        "side_effects": marks(&stage)?,
        "seconds": took.as_secs(),
        "flows": flows,
        "flows_per_second": flow_rate,
        "forks_per_second": fork_rate,
        "without_clew": { "flows_per_second": alone.0, "forks_per_second": alone.1 },
        "reported": { "exec": execs, "connect": connects },
        "lost": { "exec": lost_exec, "connect": lost_connect, "bound": grown("/sensor/lost_reads")? },
        "incidents": incidents.len(),
        "incidents_degraded": degraded,
        "benign_sent": benign.sent,
        "benign_failed": benign.sent - benign.ok,
    });
    figures::write("storm", &figures)?;
    ensure!(figures["side_effects"] == 0, "programs ran");
    ensure!(
        figures["killed"] == attempts && killed_by_parents == attempts,
        "not all attempts were killed"
    );
    ensure!(
        connects + lost_connect == flows && execs + lost_exec == attempts,
        "records got lost that were not counted"
    );
    ensure!(
        lost_connect == 0 || degraded == incidents.len(),
        "records were lost, and not every incident says so"
    );
    ensure!(
        benign.sent == benign.ok,
        "bystanders were hurt: {:?}",
        benign.failures
    );
    Ok(())
}

/// Sends a request that attacks, from an address of its own. What it is answered does not matter.
fn ask(stage: &Stage, port: u16, case: &str, nth: u32, sink: &Sink) {
    let mark = stage.mark(case, &nth.to_string());
    let target = format!("/run?case={case}&mark={mark}&port={}", sink.port);
    let [.., high, low] = nth.to_be_bytes();
    let _ = send(
        Ipv4Addr::new(127, 9, high, low),
        port,
        &get(Mode::Plain, &target),
    );
}

/// Flows per second and forks per second that the machine gives where nothing watches.
fn without_clew(stage: &mut Stage, sink: &Sink) -> Result<(u64, u64)> {
    /// The number of this run's request.
    const NTH: u32 = 9999;
    let port = stage.backend(Mode::Plain)?;
    ask(stage, port, "storm", NTH, sink);
    std::thread::sleep(RISE);
    let over = stage.work.join(OVER);
    std::fs::write(&over, "")?;
    std::thread::sleep(SETTLE);
    std::fs::remove_file(over)?;
    Ok(rates(&stage.note("storm", &NTH.to_string())))
}

/// Flows and forks per second, by what those who asked for them have noted.
fn rates(storm: &str) -> (u64, u64) {
    let (flows, flow_ms) = done(storm, "connects");
    let (forks, fork_ms) = done(storm, "forks");
    // Each process counts its own time: two ask for flows.
    let per_second = |done: u64, ms: u64, processes: u64| (done * 1000 * processes).checked_div(ms);
    (
        per_second(flows, flow_ms, 2).unwrap_or(0),
        per_second(forks, fork_ms, 1).unwrap_or(0),
    )
}

/// What the kernel side has counted; it is told once a second.
fn counted(clew: &Clew) -> Result<Value> {
    let deadline = Instant::now() + SETTLE;
    loop {
        // It listens before it can be asked.
        let counters = clew.counters();
        if let Ok(counters) = &counters
            && !counters["kernel"].is_null()
        {
            return Ok(counters["kernel"].clone());
        }
        ensure!(
            Instant::now() < deadline,
            "nothing was counted: {counters:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn number(counters: &Value, path: &str) -> Result<u64> {
    let number = counters.pointer(path).and_then(Value::as_u64);
    number.with_context(|| format!("no counter {path}"))
}

/// Sums of "WHAT N in MS ms" in a handler's notes: of the first number, and of the second if there is one.
fn done(notes: &str, what: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for note in notes.split("; ") {
        let mut words = note.split(' ');
        if words.next() != Some(what) {
            continue;
        }
        let mut numbers = words.filter_map(|it| it.parse::<u64>().ok());
        sums.0 += numbers.next().unwrap_or(0);
        sums.1 += numbers.next().unwrap_or(0);
    }
    sums
}

/// Programs that ran, by what they have left.
fn marks(stage: &Stage) -> Result<usize> {
    let files = std::fs::read_dir(stage.work.join("marks"))?;
    let names = files.flatten().map(|it| it.file_name());
    Ok(names
        .filter(|name| !name.to_string_lossy().ends_with(".note"))
        .count())
}
