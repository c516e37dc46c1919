//! `clew rules test`: what suites come to.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::paper::say;
use anyhow::{Result, bail};
use clew_ftw::{Outcome, Test};
use serde_json::json;

/// Runs the suites at `tests`; succeeds when no enabled test fails.
pub(crate) fn run(
    tests: &Path,
    json: bool,
    mut run: impl FnMut(&Test) -> Result<Outcome>,
) -> Result<ExitCode> {
    let start = Instant::now();
    let (mut passed, mut disabled, mut failures) = (0_usize, 0_usize, Vec::new());
    for suite in clew_ftw::load(tests)? {
        for test in &suite.tests {
            match run(test)? {
                Outcome::Passed => passed += 1,
                Outcome::Disabled => disabled += 1,
                Outcome::Failed(why) => {
                    if !json {
                        say!("FAILED {}: {why}", test.title);
                    }
                    failures.push((test.title.clone(), why));
                }
            }
        }
    }
    let ran = passed + failures.len();
    if ran == 0 {
        bail!(
            "no test was run: {} holds none that is enabled",
            tests.display()
        );
    }
    if json {
        let list = failures
            .iter()
            .map(|(test, why)| json!({ "test": test, "reason": why }));
        say!(
            "{}",
            json!({
                "tests": ran, "passed": passed, "failed": failures.len(), "disabled": disabled,
                "failures": list.collect::<Vec<_>>(), "time_ms": start.elapsed().as_millis() as u64,
            })
        );
    } else {
        say!(
            "{ran} tests: {passed} passed, {} failed; {disabled} more are disabled ({:.1} s)",
            failures.len(),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
