//! `clew rules`: SecLang rules, without a proxy around them.

mod eval;
pub(crate) mod load;
mod suite;
mod through;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use self::load::load;
use crate::paper::{put, say};

/// What can be done with rules.
#[derive(Subcommand)]
pub(crate) enum RulesCommand {
    /// Load rules; say everything that is wrong with them, and what can never match
    #[command(
        after_help = "Examples:\n  clew rules check /usr/share/modsecurity-crs/owasp-crs.load\n  clew rules check my-rules/"
    )]
    Check {
        /// Rule files, or folders of *.conf, in the order in which they take effect
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What rules say of raw HTTP requests: one verdict a line
    #[command(
        after_help = "A request is read from standard input when no --requests is given:\n  printf 'GET /?x=1 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n' | clew rules eval --rules my-rules.conf"
    )]
    Eval {
        #[command(flatten)]
        rules: RulesArgs,
        /// A file with one request, or a folder of such files, at any depth
        #[arg(long, value_name = "FILE|DIR")]
        requests: Option<PathBuf>,
        /// Print JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Run regression suites (FTW, as CRS 3 and CRS 4 write them)
    Test {
        #[command(flatten)]
        rules: RulesArgs,
        /// A suite, or a folder of suites, at any depth
        #[arg(long, value_name = "FILE|DIR", required = true)]
        tests: PathBuf,
        /// Send the requests to this proxy instead of evaluating them here
        #[arg(long, value_name = "ADDRESS:PORT", requires = "log")]
        through: Option<SocketAddr>,
        /// Where that proxy logs rules that match (its `rules.log`)
        #[arg(long, value_name = "FILE", requires = "through")]
        log: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// A rule as it is written, how it is evaluated, and what a value must have for it to be
    Explain {
        /// Its id
        id: u64,
        #[command(flatten)]
        rules: RulesArgs,
    },
}

/// Which rules.
#[derive(Args)]
pub(crate) struct RulesArgs {
    /// Rule files, or folders of *.conf, in the order in which they take effect
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    rules: Vec<PathBuf>,
}

/// Carries out a command.
pub(crate) fn run(command: RulesCommand) -> Result<ExitCode> {
    match command {
        RulesCommand::Check { paths, json } => check(&paths, json),
        RulesCommand::Eval {
            rules,
            requests,
            json,
        } => eval::run(&load(&rules.rules)?.rules, requests.as_deref(), json),
        RulesCommand::Test {
            rules,
            tests,
            through,
            log,
            json,
        } => {
            let rules = load(&rules.rules)?.rules;
            match through.zip(log) {
                Some((proxy, log)) => {
                    let mut proxy = through::Proxy::new(proxy, &log)?;
                    suite::run(&tests, json, |test| proxy.run(test))
                }
                None => suite::run(&tests, json, |test| Ok(test.run(&rules))),
            }
        }
        RulesCommand::Explain { id, rules } => explain(id, &rules.rules),
    }
}

fn check(paths: &[PathBuf], json: bool) -> Result<ExitCode> {
    let loaded = load(paths)?;
    let warnings = loaded.rules.warnings();
    if json {
        let report = serde_json::json!({
            "files": loaded.files, "rules": loaded.rules.rules().len(),
            "load_ms": loaded.time.as_secs_f64() * 1e3,
            "warnings": warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        say!("{report}");
        return Ok(ExitCode::SUCCESS);
    }
    for warning in warnings {
        say!("warning: {warning}");
    }
    say!(
        "{} rules in {} files, loaded in {:.0} ms; {} warnings",
        loaded.rules.rules().len(),
        loaded.files,
        loaded.time.as_secs_f64() * 1e3,
        warnings.len()
    );
    Ok(ExitCode::SUCCESS)
}

fn explain(id: u64, paths: &[PathBuf]) -> Result<ExitCode> {
    let loaded = load(paths)?;
    let Some(plan) = loaded.rules.explain(id) else {
        bail!(
            "there is no rule {id} among the {} loaded",
            loaded.rules.rules().len()
        );
    };
    if let Some(info) = loaded.rules.rules().iter().find(|rule| rule.id == id) {
        say!("{}:{}", info.file.display(), info.line);
    }
    put!("{plan}");
    Ok(ExitCode::SUCCESS)
}
