//! Who did it, by each proof that an incident can rest on, and what follows from it. Behind Clew there are
//! threads that know nothing of it; two people are there at once, one of them for nothing.

use std::io::Read;
use std::net::Ipv4Addr;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Test;
use crate::stage::{Stage, answer, connect_from, get_from, send, stopped, wait_until};

pub(crate) const TESTS: &[Test] = &[
    ("proofs::content", content),
    ("proofs::sole", sole),
    ("proofs::lineage", lineage),
    ("proofs::candidates", candidates),
    (
        "proofs::what_follows_a_stop_is_mute",
        what_follows_a_stop_is_mute,
    ),
    (
        "proofs::what_one_writes_and_another_runs",
        what_one_writes_and_another_runs,
    ),
];

const VISITOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Visitors who are served together (`/together` in `backend.py`), and how often: each time all but one of them were
/// read while others were worked on, which makes more lessons than it takes (`correlator/src/workload.rs`).
const VISITORS: usize = 8;
const ROUNDS: usize = 150;

/// Nothing is known of how the backend works, and two are there: what one has sent is in what ran.
fn content() -> Result<()> {
    let stage = Stage::with_threads()?;
    let visit = visit(&stage)?;
    is_blocked(&attack(
        &stage,
        &format!("/run/{}", command(&stage, "%20")),
    )?)?;
    let incident = is_banned_for(&stage, "content")?;
    ensure!(
        incident["evidence"]
            .as_str()
            .is_some_and(|it| it.contains("marker"))
    );
    is_served(&stage, visit)
}

/// Nothing in the request says what ran, but nobody else was there. It is ended; that he meant it is not proven, and
/// he is not banned.
fn sole() -> Result<()> {
    let stage = Stage::with_threads()?;
    plant(&stage)?;
    is_blocked(&attack(&stage, "/code")?)?;
    let incident = told(&stage, |it| it["request"]["status"] == 403)?;
    ensure!(incident["proof"] == "sole", "{incident}");
    ensure!(is_attacker(&incident["request"]), "{incident}");
    ensure!(incident["action"] == "cancelled", "{incident}");
    nothing_ran_and_banned_are(&stage, &[])
}

/// Of a backend that is known to work on one request a thread, the thread says whose it was.
fn lineage() -> Result<()> {
    let stage = Stage::with_threads()?;
    learn(&stage)?;
    let visit = visit(&stage)?;
    is_blocked(&attack(
        &stage,
        &format!("/run/{}", command(&stage, "%20")),
    )?)?;
    is_banned_for(&stage, "lineage")?;
    is_served(&stage, visit)
}

/// Two are there, and nothing says which: the program is killed, and both are named as those that it may have been.
fn candidates() -> Result<()> {
    let stage = Stage::with_threads()?;
    plant(&stage)?;
    let visit = visit(&stage)?;
    let (status, body) = attack(&stage, "/code")?;
    ensure!(
        (status, body.as_str()) == (200, stopped()?),
        "{status} {body}"
    );
    let incident = told(&stage, |_| true)?;
    ensure!(incident["proof"] == "candidates", "{incident}");
    ensure!(incident["action"] == "stopped", "{incident}");
    ensure!(incident["request"].is_null(), "{incident}");
    let named = incident["candidates"].as_array().context("no candidates")?;
    ensure!(named.len() == 2, "{incident}");
    ensure!(named.iter().any(is_attacker), "{incident}");
    ensure!(named.iter().any(|it| !is_attacker(it)), "{incident}");
    is_served(&stage, visit)?;
    nothing_ran_and_banned_are(&stage, &[])
}

/// Half of the answer is out: the client never sees what the backend sends after the kernel has decided.
fn what_follows_a_stop_is_mute() -> Result<()> {
    let stage = Stage::with_threads()?;
    let mut stream = connect_from(ATTACKER, stage.port)?;
    let target = format!("/tell/{}", command(&stage, "%20"));
    send(&mut stream, &target, "close")?;
    let mut got = Vec::new();
    while !got.ends_with(b"before") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        got.push(byte[0]);
    }
    free(&stage)?;
    let mut rest = Vec::new();
    // However it is cut.
    let _ = stream.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest).into_owned();
    ensure!(!rest.contains(stopped()?), "{rest}");
    is_banned_for(&stage, "content")?;
    Ok(())
}

/// One has left it there, in words that do not show in what runs; another has the service read it. Both are in one
/// incident.
fn what_one_writes_and_another_runs() -> Result<()> {
    let stage = Stage::watching_its_files()?;
    let spelt: String = command(&stage, " ")
        .bytes()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let saved = get_from(VISITOR, stage.port, &format!("/save/{spelt}"))?;
    ensure!(saved == (200, "ok".to_owned()), "{saved:?}");
    attack(&stage, "/code")?;
    let incident = told(&stage, |_| true)?;
    let steps = incident["steps"].as_array().context("no steps")?;
    let read = steps.iter().find(|it| it["kind"] == "file");
    let read = read.with_context(|| format!("no file: {incident}"))?;
    let code = stage.directory.path().join("code");
    ensure!(
        read["access"] == "read" && read["path"] == code.to_string_lossy().as_ref(),
        "{read}"
    );
    let writer = &read["written_by"][0];
    ensure!(
        writer["proof"] == "sole" && writer["request"]["source_ip"] == VISITOR.to_string(),
        "{read}"
    );
    let stopped = steps.iter().find(|it| it["kind"] == "exec");
    let stopped = stopped.with_context(|| format!("no program: {incident}"))?;
    ensure!(
        stopped["decision"] == "killed" || stopped["decision"] == "denied",
        "{stopped}"
    );
    let shown = String::from_utf8(stage.ask(&["incidents", "show", "last"])?.stdout)?;
    ensure!(shown.contains("written by GET /save/"), "{shown}");
    nothing_ran_and_banned_are(&stage, &[])
}

/// What the attacker wants run.
fn command(stage: &Stage, space: &str) -> String {
    let marker = stage.directory.path().join("marker-of-the-attack");
    format!("touch{space}{}", marker.display())
}

/// The backend is told apart from any request what is to be run.
fn plant(stage: &Stage) -> Result<()> {
    let code = stage.directory.path().join("code");
    Ok(std::fs::write(code, command(stage, " "))?)
}

fn attack(stage: &Stage, target: &str) -> Result<(u16, String)> {
    get_from(ATTACKER, stage.port, target)
}

type Visit = JoinHandle<Result<(u16, String)>>;

/// A request that does nothing until it is freed, and that the backend has read.
fn visit(stage: &Stage) -> Result<Visit> {
    let port = stage.port;
    let visit = thread::spawn(move || get_from(VISITOR, port, "/hold"));
    let held = stage.directory.path().join("held");
    wait_until("the visitor's request", || Ok(held.exists()))?;
    Ok(visit)
}

fn free(stage: &Stage) -> Result<()> {
    Ok(std::fs::write(stage.directory.path().join("free"), "")?)
}

fn is_served(stage: &Stage, visit: Visit) -> Result<()> {
    free(stage)?;
    let served = visit.join().expect("a visitor");
    let (status, body) = served.context("the visitor")?;
    ensure!((status, body.as_str()) == (200, "ok"), "{status} {body}");
    Ok(())
}

/// Shows Clew that threads of the backend work on one request at a time.
fn learn(stage: &Stage) -> Result<()> {
    let port = stage.port;
    let visitor = move || -> Result<()> {
        let mut stream = connect_from(VISITOR, port)?;
        for _ in 0..ROUNDS {
            send(&mut stream, "/together", "keep-alive")?;
            ensure!(answer(&mut stream)?.0 == 200);
        }
        Ok(())
    };
    let visitors: Vec<_> = (0..VISITORS).map(|_| thread::spawn(visitor)).collect();
    visitors
        .into_iter()
        .try_for_each(|it| it.join().expect("a visitor"))
}

fn is_blocked((status, body): &(u16, String)) -> Result<()> {
    ensure!(
        *status == 403 && !body.contains(stopped()?),
        "{status} {body}"
    );
    Ok(())
}

fn is_attacker(request: &Value) -> bool {
    request["source_ip"] == ATTACKER.to_string()
}

/// The one incident there is, as soon as `is_whole`.
fn told(stage: &Stage, is_whole: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let seen = wait_until("incident", || {
        let shown = stage.ask(&["incidents", "show", "last", "--json"])?.stdout;
        last = serde_json::from_slice(&shown).unwrap_or_default();
        Ok(!last.is_null() && is_whole(&last))
    });
    seen.with_context(|| last.to_string())?;
    let all = stage.ask(&["incidents", "list", "--json"])?.stdout;
    let all: Vec<Value> = serde_json::from_slice(&all)?;
    ensure!(all.len() == 1, "{all:?}");
    Ok(last)
}

/// The attacker is named by this proof, and banned, and nobody else is.
fn is_banned_for(stage: &Stage, proof: &str) -> Result<Value> {
    let incident = told(stage, |it| it["action"] == "banned")?;
    ensure!(incident["proof"] == proof, "{incident}");
    ensure!(is_attacker(&incident["request"]), "{incident}");
    ensure!(incident["ban"]["address"] == ATTACKER.to_string());
    ensure!(attack(stage, "/").is_err(), "the attacker comes in");
    nothing_ran_and_banned_are(stage, &[ATTACKER])?;
    Ok(incident)
}

fn nothing_ran_and_banned_are(stage: &Stage, banned: &[Ipv4Addr]) -> Result<()> {
    ensure!(!stage.directory.path().join("marker-of-the-attack").exists());
    let listed = String::from_utf8(stage.ask(&["bans", "list"])?.stdout)?;
    let lines = listed.lines().filter(|line| line.starts_with("127."));
    let found: Vec<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    let banned: Vec<String> = banned.iter().map(Ipv4Addr::to_string).collect();
    ensure!(found == banned, "{listed}");
    Ok(())
}
