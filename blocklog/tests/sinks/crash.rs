//! Killed at any moment: a process writes, a server takes.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::server::Server;
use crate::stage::{PATIENCE, id_of, report, report_one, start, wait_until};

/// How often the writer is killed.
const KILLS: usize = 25;

/// The writer, until it goes.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Names the state directory of the process that is killed.
pub(crate) const STATE: &str = "CLEW_BLOCKLOG_STATE";
/// Its configuration.
const CONFIGURATION: &str = "CLEW_BLOCKLOG_CONFIGURATION";

/// How many requests it reports, where it is to end in good order.
const COUNT: &str = "CLEW_BLOCKLOG_COUNT";

/// What is killed: reports requests one after the other, and says the id of each that is in the spool.
pub(crate) fn write(state: &Path) -> Result<()> {
    let log = start(state, &std::env::var(CONFIGURATION)?)?;
    if let Ok(count) = std::env::var(COUNT) {
        report(&log, count.parse()?);
        log.finish(PATIENCE);
        return Ok(());
    }
    let written = || log.counters().spool.map_or(0, |it| it.written);
    loop {
        let before = written();
        let id = report_one(&log);
        wait_until("it is written", || written() > before)?;
        println!("{id}");
    }
}

/// This program, as the process that writes.
fn writer(state: &Path, text: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command.arg(std::env::current_exe().unwrap_or_default());
    command.env(STATE, state).env(CONFIGURATION, text);
    command.stdout(Stdio::piped());
    command
}

/// A pipe that nobody reads has room for some thirty events: the file has them all nevertheless.
pub(crate) fn standard_output_that_is_not_read_makes_nobody_wait() -> Result<()> {
    let state = tempfile::tempdir()?;
    let file = state.path().join("block.json");
    let text = format!(
        "[[log]]\nsink = 'stdout'\n[[log]]\nsink = 'file'\npath = '{}'\n",
        file.display()
    );
    let mut child = Writer(writer(state.path(), &text).env(COUNT, "500").spawn()?);
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("the file has all", || lines().lines().count() == 500)?;
    let mut out = String::new();
    let mut pipe = child.0.stdout.take().context("its output")?;
    pipe.read_to_string(&mut out)?;
    assert_eq!(out, lines());
    assert!(child.0.wait()?.success());
    Ok(())
}

pub(crate) fn kill_9_loses_nothing_that_was_written() -> Result<()> {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let busy = Arc::new(Mutex::new(fastrand::Rng::with_seed(3)));
    let served = Arc::clone(&taken);
    // One request in four is taken, and the answer is lost.
    let server = Server::start(move |request| {
        let text = String::from_utf8_lossy(&request.body);
        let ids = text.lines().map(|line| id_of(line).expect("an event"));
        served.lock().expect("the lock").extend(ids);
        let fails = busy.lock().expect("the lock").u8(..4) == 0;
        (if fails { 503 } else { 200 }, "{}".to_owned())
    })?;
    let state = tempfile::tempdir()?;
    let text = format!(
        "[[log]]\nsink = 'webhook'\nurl = '{}'\nretry_seconds = 1\nbatch_events = 20\n",
        server.url()
    );
    let mut random = fastrand::Rng::with_seed(11);
    let mut written = Vec::new();
    for _ in 0..KILLS {
        let mut writer = Writer(self::writer(state.path(), &text).spawn()?);
        let out = writer.0.stdout.take().context("its output")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                heard.lock().expect("the lock").push(line);
            }
        });
        // As it starts, or after some events: at any moment of what comes next.
        let count = random.usize(..40);
        wait_until("it has written", || {
            lines.lock().expect("the lock").len() >= count
        })?;
        std::thread::sleep(Duration::from_micros(random.u64(..30_000)));
        drop(writer);
        reader.join().expect("lines");
        // A line is an id that the spool has.
        written.append(&mut *lines.lock().expect("the lock"));
    }
    assert!(written.len() > KILLS, "{} events", written.len());
    let log = start(state.path(), &text)?;
    wait_until("all is sent", || {
        log.counters().sinks[0].waiting_events == 0
    })?;
    let counters = log.finish(PATIENCE);
    assert_eq!(counters.sinks[0].dropped, 0);

    // What came first of each, in order: all that was written, and what was written just before it was killed.
    let mut seen = HashSet::new();
    let taken = taken.lock().expect("the lock");
    let first: Vec<&String> = taken.iter().filter(|it| seen.insert(it.as_str())).collect();
    let known: HashSet<&str> = written.iter().map(String::as_str).collect();
    let ours: Vec<&String> = first
        .iter()
        .copied()
        .filter(|it| known.contains(it.as_str()))
        .collect();
    assert_eq!(ours, written.iter().collect::<Vec<_>>());
    let total = counters.spool.context("a spool")?.written;
    assert_eq!(first.len() as u64, total, "each once, and nothing else");
    Ok(())
}
