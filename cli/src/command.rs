//! The command line: commands, their arguments, and what `--help`, manual pages and completions say of them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::ask::{AuditArgs, BansCommand};
use crate::config::default_state;
use crate::raw::ModeName;
use crate::{packs, rules};

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
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Logs as JSON lines on standard error
    #[arg(long, global = true)]
    pub(crate) log_json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Protect a service
    Run(RunArgs),
    /// Check a configuration file and say what is wrong with it
    Check {
        /// The file
        #[arg(required_unless_present = "schema")]
        file: Option<PathBuf>,
        /// Print the JSON Schema of configuration files, for editors
        #[arg(long, conflicts_with = "file")]
        schema: bool,
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
    /// Print what completes commands in a shell
    #[command(
        after_help = "Examples:\n  clew completions bash > /usr/share/bash-completion/completions/clew\n  clew completions zsh > /usr/share/zsh/vendor-completions/_clew\n  clew completions fish > /usr/share/fish/vendor_completions.d/clew.fish"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write that of each command
    #[command(hide = true)]
    Man {
        /// Where to, a file for each command: clew.1, clew-run.1, ...
        #[arg(long)]
        directory: Option<PathBuf>,
    },
}

#[derive(Args)]
#[command(
    after_help = "Examples:\n  clew run --upstream 127.0.0.1:8080\n  clew run --upstream 127.0.0.1:8080 --listen 0.0.0.0:80 --mode observe\n  clew run --upstream 127.0.0.1:8080 --rules /usr/share/modsecurity-crs/owasp-crs.load\n  clew run --config /etc/clew.toml"
)]
pub(crate) struct RunArgs {
    /// Configuration file (TOML); every key is in examples/clew.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A backend, plain HTTP/1.1; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) upstream: Vec<SocketAddr>,
    /// Where clients connect [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// What happens to what is not allowed [default: enforce]
    #[arg(long, value_enum)]
    pub(crate) mode: Option<ModeName>,
    /// SecLang rule files, or folders of *.conf, that requests are judged by
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) rules: Vec<PathBuf>,
    /// Run the edge alone; needs no root, and sees nothing of what requests do
    #[arg(long)]
    pub(crate) no_sensor: bool,
    /// Where incidents, bans and the admin socket are kept [default: /var/lib/clew for root]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) state: Option<PathBuf>,
    /// Take the place of the clew that serves this state directory: it hands its sockets over, finishes its requests,
    /// and ends; clients that connect meanwhile wait
    #[arg(long)]
    pub(crate) take_over: bool,
}

#[derive(Subcommand)]
pub(crate) enum IncidentsCommand {
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
pub(crate) struct StateArgs {
    /// The state directory that `clew run` uses [default: /var/lib/clew for root]
    #[arg(long = "state", value_name = "DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl StateArgs {
    /// The directory named, or the default one.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.clone().unwrap_or_else(default_state)
    }
}
