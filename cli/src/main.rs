//! The `clew` command.
#![forbid(unsafe_code)]

mod access;
mod api;
mod ask;
mod audit;
mod banning;
mod barrier;
mod beat;
mod command;
mod config;
mod ears;
mod generated;
mod handover;
mod inspection;
mod journal;
mod kernel;
mod log;
mod metrics;
mod packs;
mod paper;
mod privilege;
mod raw;
mod reference;
mod reload;
mod rules;
mod run;
mod show;
mod signals;
mod spans;
mod store;
mod tend;
mod top;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;
use clew_protocol::incident::Incident;
use clew_sensor::doctor::Finding;

use crate::command::{Cli, Command, IncidentsCommand, StateArgs};
use crate::config::Overrides;
use crate::paper::{put, say};
use crate::reload::Source;
use crate::show::Style;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::open(cli.log_json);
    match command(cli.command) {
        Ok(code) => code,
        // Whoever read what it prints has seen enough.
        Err(error) if is_unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clew: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_unread(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|it| it.kind() == std::io::ErrorKind::BrokenPipe)
}

fn command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => {
            let overrides = Overrides {
                upstreams: args.upstream,
                listen: args.listen,
                mode: args.mode.map(Into::into),
                no_sensor: args.no_sensor,
                state: args.state,
                default_state: Some(config::default_state()),
                rules: args.rules,
                candidate: None,
            };
            let source = Source {
                path: args.config,
                overrides,
            };
            run::run(source, args.take_over)?;
        }
        Command::Check { file, .. } => check(file.as_deref())?,
        Command::Doctor {
            clean,
            config,
            json,
        } => return doctor(clean, config.as_deref(), json),
        Command::Incidents { command } => incidents(command)?,
        Command::Rules { command } => return rules::run(command),
        Command::Packs { command } => return packs::run(command),
        Command::Bans { command } => ask::bans(command)?,
        Command::Counters(state) => ask::counters(&state)?,
        Command::Status(state) => ask::status(&state)?,
        Command::Reload(state) => ask::reload(&state)?,
        Command::Audit(args) => ask::audit(&args)?,
        Command::Top(state) => top::run(&state.directory(), state.json)?,
        Command::Completions { shell } => generated::completions(shell)?,
        Command::Man { directory } => generated::manual(directory.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Without a file the schema of all is asked for.
fn check(file: Option<&Path>) -> Result<()> {
    match file {
        Some(file) => {
            config::load(file, &Overrides::default())?;
            say!("{} is valid", file.display());
        }
        None => say!("{}", serde_json::to_string_pretty(&reference::schema())?),
    }
    Ok(())
}

fn doctor(clean: bool, config: Option<&Path>, json: bool) -> Result<ExitCode> {
    if clean {
        let removed =
            clew_sensor::clean().context("cannot remove what was left behind; run as root")?;
        for path in &removed {
            say!("removed {}", path.display());
        }
        if removed.is_empty() {
            say!("nothing was left behind");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = clew_sensor::doctor::examine();
    if let Some(path) = config {
        findings.extend(failures(&config::load(path, &Overrides::default())?));
    }
    let well = findings.iter().all(|it| it.ok || !it.needed);
    if json {
        say!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let mark = match (finding.ok, finding.needed) {
                (true, _) => "ok  ",
                (false, true) => "FAIL",
                (false, false) => "note",
            };
            say!(
                "{mark} {:9} {:34} {}",
                finding.step,
                finding.provider,
                finding.detail
            );
            if let Some(remedy) = &finding.remedy {
                say!("     -> {remedy}");
            }
        }
        say!(
            "{}",
            if well {
                "clew run will protect"
            } else {
                "clew run cannot protect here"
            }
        );
    }
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What fails how, as the configuration has it.
fn failures(configuration: &config::Configuration) -> Vec<Finding> {
    let fail = &configuration.fail;
    let keys = [
        (
            "fail.sensor",
            fail.sensor,
            "serves without seeing what requests do",
            "does not start",
        ),
        (
            "fail.correlator",
            fail.correlator,
            "serves without protection",
            "stops",
        ),
        (
            "fail.verdict",
            fail.verdict,
            "lets a response go on that no verdict came for",
            "answers 503 where no verdict comes",
        ),
        (
            "fail.record",
            fail.record,
            "serves requests that nobody can be named for",
            "answers 503 when the correlator's queue is full",
        ),
        (
            "fail.audit",
            fail.audit,
            "makes changes that are not in the audit log",
            "makes no changes without the audit log",
        ),
    ];
    let said = keys.map(|(key, choice, open, closed)| match choice {
        raw::OpenOrClosed::Open => (key, format!("open: {open}")),
        raw::OpenOrClosed::Closed => (key, format!("closed: {closed}")),
    });
    let others = configuration.strictness.iter().cloned();
    said.into_iter()
        .chain(others)
        .map(|(key, detail)| Finding {
            step: "fail".to_owned(),
            provider: key.to_owned(),
            ok: true,
            needed: false,
            detail,
            program: None,
            remedy: None,
        })
        .collect()
}

fn incidents(command: IncidentsCommand) -> Result<()> {
    match command {
        IncidentsCommand::List(state) => {
            let incidents = store::read(&state.directory())?;
            if state.json {
                say!("{}", serde_json::to_string_pretty(&incidents)?);
            } else if incidents.is_empty() {
                say!("no incidents in {}", state.directory().display());
            }
            for incident in incidents.iter().filter(|_| !state.json) {
                say!("{}", show::line(incident));
            }
        }
        IncidentsCommand::Show { id, state } => {
            let incidents = store::read(&state.directory())?;
            let incident = find(&incidents, &id, &state.directory())?;
            if state.json {
                say!("{}", serde_json::to_string_pretty(incident)?);
            } else {
                put!("{}", show::tree(incident, Style::of_stdout()));
            }
        }
    }
    Ok(())
}

fn find<'a>(incidents: &'a [Incident], id: &str, state: &Path) -> Result<&'a Incident> {
    if id == "last" {
        return incidents
            .last()
            .with_context(|| format!("no incidents in {}", state.display()));
    }
    let mut found = incidents
        .iter()
        .filter(|it| it.id.to_string().starts_with(id));
    match (found.next(), found.next()) {
        (Some(incident), None) => Ok(incident),
        (Some(_), Some(_)) => bail!("several incidents start with {id:?}; give more of the id"),
        (None, _) => bail!(
            "no incident {id:?} in {}; see clew incidents list",
            state.display()
        ),
    }
}
