//! Vulnerable-by-design backends, attackers and bystanders, and what becomes of them with Clew in
//! front. Everything runs on loopback and ends with this process.
#![forbid(unsafe_code)]

mod attribution;
mod backend;
mod bans;
mod clew;
mod client;
mod control;
mod crowd;
mod demo;
mod evasion;
mod figures;
mod lab;
mod ldap;
mod ops;
mod process;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Real exploits against real services, with Clew in front.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The clew binary
    #[arg(long, default_value = "target/release/clew", global = true)]
    clew: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// One Log4Shell and one command injection, told step by step
    Demo,
    /// Exploits by the thousand among benign load
    Lab {
        /// Exploit attempts per service
        #[arg(long, default_value_t = 1000)]
        attempts: u32,
    },
    /// Who did it, on every stack: visitors and attackers at rising concurrency
    Attribution(attribution::Options),
    /// Whom a ban must not hit: victims of other sites, later visitors, shared addresses
    Bans,
    /// Ten thousand attempts while the attacker forks, and opens flows, as fast as can be
    Storm,
    /// Attacks from inside a handler, each hiding in its own way
    Evasions {
        /// Cases by name; all if none is given
        only: Vec<String>,
    },
    /// The hard cases of operation: swaps, outages, kills, upgrades, and a soak
    Ops(ops::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Demo => demo::run(&cli.clew),
        Command::Lab { attempts } => lab::run(&cli.clew, attempts),
        Command::Bans => bans::run(&cli.clew),
        Command::Attribution(options) => attribution::run(&cli.clew, &options),
        Command::Ops(options) => ops::run(&cli.clew, &options),
        Command::Storm => evasion::storm::run(&cli.clew),
        Command::Evasions { only } => evasion::run(&cli.clew, &only),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
