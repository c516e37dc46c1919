//! Who did it, on every stack: a seeded mix of visitors and attackers at rising concurrency, and what
//! Clew said held against what was sent.

mod drive;
mod judge;
pub(crate) mod mix;
pub(crate) mod stack;

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clew_protocol::IncidentId;
use serde_json::{Value, json};

use self::drive::drive;
use self::judge::Cell;
use self::mix::{Aim, Mix, Planned};
use self::stack::{Running, STACKS, Stack};
use crate::clew::{Clew, free_port};
use crate::demo::open_to_all;
use crate::figures;

/// Requests of visitors from which Clew learns how a stack works, more at a time than a stack has workers:
/// how a process with one thread works shows in those who wait for it.
const WARM_UP: u32 = 20_000;
const CROWD: u32 = 200;
/// Visitors at a time in learn mode.
const COMPANY: u32 = 16;
/// Until the work that a request has left behind has been done, and reported.
const AFTERMATH: Duration = Duration::from_secs(4);
/// Share of attempts that must be named: where a thread has one request at a time, and elsewhere.
const EXACT_BLOCKING: f64 = 0.999;
const EXACT_EVENT_LOOP: f64 = 0.95;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Stacks, by name; default: all
    #[arg(long, value_delimiter = ',')]
    stacks: Vec<String>,
    /// Requests at a time, a cell each
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,200")]
    concurrency: Vec<u32>,
    /// Requests per cell
    #[arg(long, default_value_t = 2500)]
    requests: u32,
    /// How long each stack is watched in learn mode
    #[arg(long, default_value_t = 60)]
    learn_seconds: u64,
    /// Of the mix
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(clew: &Path, options: &Options) -> Result<()> {
    let stacks = chosen(&options.stacks)?;
    let work = tempfile::Builder::new().prefix("clew-lab-").tempdir()?;
    open_to_all(work.path())?;
    let mut cells = Vec::new();
    println!("{HEAD}");
    for stack in stacks {
        let bench = Bench::new(clew, stack, work.path())?;
        cells.extend(bench.run(options)?);
    }
    figures::save("attribution", &summary(&cells))?;
    for cell in &cells {
        check(cell)?;
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Stack>> {
    for name in names {
        let known: Vec<_> = STACKS.iter().map(|it| it.name).collect();
        ensure!(
            known.contains(&name.as_str()),
            "there is no stack {name}; there are {}",
            known.join(", ")
        );
    }
    let is_chosen = |it: &&Stack| names.is_empty() || names.iter().any(|name| name == it.name);
    Ok(STACKS.iter().filter(is_chosen).collect())
}

/// One stack, ready to be attacked.
struct Bench<'a> {
    clew: &'a Path,
    stack: &'static Stack,
    running: Running,
    state: PathBuf,
    markers: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(clew: &'a Path, stack: &'static Stack, work: &Path) -> Result<Self> {
        Ok(Self {
            clew,
            stack,
            running: stack.start(work)?,
            state: work.join(format!("clew-{}", stack.name)),
            markers: stack::private(&work.join(format!("markers-{}", stack.name)))?,
        })
    }

    fn start(&self, mode: &str) -> Result<Clew> {
        let port = free_port()?;
        let file = self.state.with_extension("toml");
        let config = format!(
            "[[listener]]\naddress = \"127.0.0.1:{port}\"\n\n{}\n[sensor]\nredact_environment = false\n",
            self.running.service
        );
        std::fs::write(&file, config)?;
        Clew::start_with(self.clew, &file, port, mode, self.state.clone())
    }

    fn run(&self, options: &Options) -> Result<Vec<Cell>> {
        self.learn(Duration::from_secs(options.learn_seconds), options.seed)?;
        let clew = self.start("enforce")?;
        drive(&Mix::calm(WARM_UP, options.seed), clew.port, CROWD);
        // What learning has reported is no news.
        let mut reported = clew.incidents()?.iter().map(|it| it.id).collect();
        let mut cells = Vec::new();
        for (nth, &concurrency) in options.concurrency.iter().enumerate() {
            let cell = self.cell(&clew, nth as u8, concurrency, options, &mut reported)?;
            println!("{}", row(&cell));
            cells.push(cell);
        }
        clew.stop()?;
        Ok(cells)
    }

    /// Watches visitors in learn mode. What they had done is in the profile afterwards.
    fn learn(&self, span: Duration, seed: u64) -> Result<()> {
        let clew = self.start("learn")?;
        let end = Instant::now() + span;
        let mut round = 0;
        while Instant::now() < end {
            drive(&Mix::calm(200, seed + round), clew.port, COMPANY);
            round += 1;
        }
        clew.stop()
    }

    fn cell(
        &self,
        clew: &Clew,
        nth: u8,
        concurrency: u32,
        options: &Options,
        reported: &mut HashSet<IncidentId>,
    ) -> Result<Cell> {
        let mix = Mix {
            stack: self.stack,
            exploits: &self.running.exploits,
            markers: &self.markers,
            cell: nth,
            sink: free_port()?,
        };
        let plan = mix.plan(options.requests, options.seed + u64::from(nth));
        let sinks = sinks(&plan, mix.sink)?;
        let (upload, rest) = plan.split_at(1);
        let mut cell = Cell {
            stack: self.stack.name,
            blocking: self.stack.blocking,
            concurrency,
            ..Cell::default()
        };
        let mut answers = drive(upload, clew.port, 1);
        answers.extend(drive(rest, clew.port, concurrency));
        cell.answered(&plan, &answers);
        std::thread::sleep(AFTERMATH);
        let mut incidents = clew.incidents()?;
        incidents.retain(|it| reported.insert(it.id));
        cell.judged(&plan, &answers, &incidents);
        cell.side_effects = self.side_effects()? + reached(&sinks);
        Ok(cell)
    }

    /// Marks of programs that ran; none is left for the next cell.
    fn side_effects(&self) -> Result<usize> {
        let mut count = 0;
        for entry in std::fs::read_dir(&self.markers)? {
            std::fs::remove_file(entry?.path())?;
            count += 1;
        }
        Ok(count)
    }
}

/// Listens wherever an attack's connection would go.
fn sinks(plan: &[Planned], port: u16) -> Result<Vec<TcpListener>> {
    let targets = plan.iter().filter(|it| it.aim == Aim::Connect);
    let listen = |planned: &Planned| {
        let listener = TcpListener::bind(SocketAddr::new(planned.mark.parse()?, port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    targets.map(listen).collect()
}

/// How many were connected to.
fn reached(sinks: &[TcpListener]) -> usize {
    sinks.iter().filter(|it| it.accept().is_ok()).count()
}

fn summary(cells: &[Cell]) -> Value {
    let sum = |of: fn(&Cell) -> usize| cells.iter().map(of).sum::<usize>();
    json!({
        "cells": cells,
        "requests": sum(|it| it.requests),
        "attempts": sum(|it| it.attempts),
        "exact": sum(Cell::exact_all),
        "candidates": sum(|it| it.candidates),
        "wrong": sum(|it| it.wrong),
    })
}

const HEAD: &str = "stack             at once  requests  attempts  killed  effects  leaked  exact (content lineage sole)  candidates  wrong  missed  bans  failed";

fn row(cell: &Cell) -> String {
    use clew_protocol::verdict::Proof;
    let by = |proof| cell.exact.get(&proof).copied().unwrap_or(0);
    format!(
        "{:17} {:7} {:9} {:9} {:7} {:8} {:7} {:6} {:>22}  {:10} {:6} {:7} {:5} {:7}",
        cell.stack,
        cell.concurrency,
        cell.requests,
        cell.attempts,
        cell.killed,
        cell.side_effects,
        cell.leaked_response_bytes,
        cell.exact_all(),
        format!(
            "({} {} {})",
            by(Proof::Content),
            by(Proof::Lineage),
            by(Proof::Sole)
        ),
        cell.candidates,
        cell.wrong,
        cell.missed,
        cell.innocent_bans,
        cell.benign_failed,
    )
}

fn check(cell: &Cell) -> Result<()> {
    let name = format!("{} at {}", cell.stack, cell.concurrency);
    for (key, value) in [
        ("side effects", cell.side_effects),
        ("leaked bytes", cell.leaked_response_bytes),
        ("wrong", cell.wrong),
        ("missed", cell.missed),
        ("innocent bans", cell.innocent_bans),
        ("benign failed", cell.benign_failed),
    ] {
        ensure!(value == 0, "{name}: {key}: {value}");
    }
    ensure!(
        cell.killed == cell.attempts,
        "{name}: {} killed",
        cell.killed
    );
    let share = cell.exact_all() as f64 / cell.attempts.max(1) as f64;
    let goal = if cell.blocking {
        EXACT_BLOCKING
    } else {
        EXACT_EVENT_LOOP
    };
    ensure!(share >= goal, "{name}: {share:.4} exact, not {goal}");
    Ok(())
}
