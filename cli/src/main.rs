//! The `clew` command.
#![forbid(unsafe_code)]

mod access;
mod api;
mod ask;
mod audit;
mod banning;
mod barrier;
mod beat;
mod config;
mod ears;
mod handover;
mod inspection;
mod journal;
mod kernel;
mod log;
mod metrics;
mod packs;
mod privilege;
mod raw;
mod reload;
mod rules;
mod run;
mod show;
mod signals;
mod store;
mod tend;
mod top;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use clew_protocol::incident::Incident;
use clew_sensor::doctor::Finding;

use crate::ask::{AuditArgs, BansCommand};
use crate::config::{Overrides, default_state};
use crate::raw::ModeName;
use crate::reload::Source;
use crate::show::Style;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A web application firewall that knows what a request did.
///
/// Clew stands in front of a service as a reverse proxy and follows each request into the
/// service with eBPF: into threads, children and connections. A request that starts a program it
/// should not is stopped in the kernel, cancelled, and its source banned.
#[derive(Parser)]
#[command(
    version,
    after_help = "Start here:\n  clew doctor                               what this kernel and your rights allow\n  clew run --upstream 127.0.0.1:8080        protect a service\n  clew incidents list                       what happened"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Logs as JSON lines on standard error
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Protect a service
    Run(RunArgs),
    /// Check a configuration file and say what is wrong with it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Look at what this kernel and these rights allow, step by step
    Doctor {
        /// Remove programs that a killed clew has left in the kernel
        #[arg(long)]
        clean: bool,
        /// Say what fails how with this configuration
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What happened
    Incidents {
        #[command(subcommand)]
        command: IncidentsCommand,
    },
    /// SecLang rules: check, evaluate, test, explain
    Rules {
        #[command(subcommand)]
        command: rules::RulesCommand,
    },
    /// Rule packs: write, check, test, sign, install, activate
    Packs {
        #[command(subcommand)]
        command: packs::PacksCommand,
    },
    /// Sources that are refused
    Bans {
        #[command(subcommand)]
        command: BansCommand,
    },
    /// What the clew that runs has counted since it started
    Counters(StateArgs),
    /// What runs, and how it is
    Status(StateArgs),
    /// Have the clew that runs read its configuration anew: rules, packs, policy, certificates
    Reload(StateArgs),
    /// Who has changed what
    Audit(AuditArgs),
    /// Watch the clew that runs
    Top(StateArgs),
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  clew run --upstream 127.0.0.1:8080\n  clew run --upstream 127.0.0.1:8080 --listen 0.0.0.0:80 --mode observe\n  clew run --upstream 127.0.0.1:8080 --rules /usr/share/modsecurity-crs/owasp-crs.load\n  clew run --config /etc/clew.toml"
)]
struct RunArgs {
    /// Configuration file (TOML); every key is in examples/clew.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A backend, plain HTTP/1.1; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    upstream: Vec<SocketAddr>,
    /// Where clients connect [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// What happens to what is not allowed [default: enforce]
    #[arg(long, value_enum)]
    mode: Option<ModeName>,
    /// SecLang rule files, or folders of *.conf, that requests are judged by
    #[arg(long, value_name = "FILE", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// Run the edge alone; needs no root, and sees nothing of what requests do
    #[arg(long)]
    no_sensor: bool,
    /// Where incidents, bans and the admin socket are kept [default: /var/lib/clew for root]
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// Take the place of the clew that serves this state directory: it hands its sockets over, finishes its requests,
    /// and ends; clients that connect meanwhile wait
    #[arg(long)]
    take_over: bool,
}

#[derive(Subcommand)]
enum IncidentsCommand {
    /// One line each, oldest first
    List(StateArgs),
    /// One incident as a tree: client, request, processes, attempt, measure
    Show {
        /// Its id, or the start of it; "last" for the newest
        id: String,
        #[command(flatten)]
        state: StateArgs,
    },
}

#[derive(Args)]
struct StateArgs {
    /// The state directory that `clew run` uses [default: /var/lib/clew for root]
    #[arg(long = "state", value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StateArgs {
    fn directory(&self) -> PathBuf {
        self.directory.clone().unwrap_or_else(default_state)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::open(cli.log_json);
    match command(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("clew: {error:#}");
            ExitCode::FAILURE
        }
    }
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
                rules: args.rules,
                candidate: None,
            };
            let source = Source {
                path: args.config,
                overrides,
            };
            run::run(source, args.take_over)?;
        }
        Command::Check { file } => {
            config::load(&file, &Overrides::default())?;
            println!("{} is valid", file.display());
        }
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
    }
    Ok(ExitCode::SUCCESS)
}

fn doctor(clean: bool, config: Option<&Path>, json: bool) -> Result<ExitCode> {
    if clean {
        let removed =
            clew_sensor::clean().context("cannot remove what was left behind; run as root")?;
        for path in &removed {
            println!("removed {}", path.display());
        }
        if removed.is_empty() {
            println!("nothing was left behind");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = clew_sensor::doctor::examine();
    if let Some(path) = config {
        findings.extend(failures(&config::load(path, &Overrides::default())?));
    }
    let well = findings.iter().all(|it| it.ok || !it.needed);
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for finding in &findings {
            let mark = match (finding.ok, finding.needed) {
                (true, _) => "ok  ",
                (false, true) => "FAIL",
                (false, false) => "note",
            };
            println!(
                "{mark} {:9} {:34} {}",
                finding.step, finding.provider, finding.detail
            );
            if let Some(remedy) = &finding.remedy {
                println!("     -> {remedy}");
            }
        }
        println!(
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
                println!("{}", serde_json::to_string_pretty(&incidents)?);
            } else if incidents.is_empty() {
                println!("no incidents in {}", state.directory().display());
            }
            for incident in incidents.iter().filter(|_| !state.json) {
                println!("{}", show::line(incident));
            }
        }
        IncidentsCommand::Show { id, state } => {
            let incidents = store::read(&state.directory())?;
            let incident = find(&incidents, &id, &state.directory())?;
            if state.json {
                println!("{}", serde_json::to_string_pretty(incident)?);
            } else {
                print!("{}", show::tree(incident, Style::of_stdout()));
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
