//! The OWASP Core Rule Set in front of nginx: what nginx would act on, no spelling hides.
//!
//! Debian's `modsecurity-crs` and `nginx`; where one is not installed the tests are ignored.

mod nginx;
mod paths;
#[allow(dead_code, reason = "made for the other tests, too")]
#[path = "../edge/stage.rs"]
mod stage;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clew_proxy::{Config, RulesConfig};
use clew_rules::engine::{Options, RuleSet, compile};
use libtest_mimic::{Arguments, Trial};

use crate::nginx::Nginx;
use crate::stage::{Stage, ok};

const CRS: &str = "/usr/share/modsecurity-crs/owasp-crs.load";

fn main() -> ExitCode {
    let missing = !Path::new(CRS).exists() || !Nginx::is_installed();
    let trial = |name: &str, test: fn() -> Result<()>| {
        let run = move || test().map_err(|error| format!("{error:?}").into());
        Trial::test(name, run).with_ignored_flag(missing)
    };
    let trials = vec![
        trial(
            "no_spelling_of_a_path_hides_a_file",
            paths::no_spelling_of_a_path_hides_a_file,
        ),
        trial(
            "no_spelling_of_an_argument_hides_a_file",
            paths::no_spelling_of_an_argument_hides_a_file,
        ),
        trial("ordinary_requests_pass", paths::ordinary_requests_pass),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// An edge that judges by CRS as it is installed, in front of `nginx`.
fn guarded(nginx: &Nginx) -> Result<Stage> {
    let upstream = nginx.address();
    let rules = crs()?;
    Stage::with(ok, |config: &mut Config| {
        config.services[0].upstreams = vec![upstream];
        let mut rules = RulesConfig::new(rules);
        // Without optimization everything is slow.
        rules.budget = Duration::from_secs(20);
        config.rules = Some(rules);
    })
}

fn crs() -> Result<Arc<RuleSet>> {
    let mut before = tempfile::Builder::new().suffix(".conf").tempfile()?;
    std::io::Write::write_all(&mut before, b"SecRuleEngine On\nSecRequestBodyAccess On\n")?;
    let files = [before.path().to_owned(), CRS.into()];
    let ast = clew_rules::seclang::load(&files).map_err(|errors| anyhow!("{errors:?}"))?;
    let rules = compile(&ast, Options::default()).map_err(|errors| anyhow!("{errors:?}"))?;
    Ok(Arc::new(rules))
}
