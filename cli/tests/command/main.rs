//! The `clew` command as a user runs it: real processes, real kernel, real files.
//!
//! What loads BPF programs needs root; without it those tests say so and count as ignored.

mod faults;
mod life;
mod rules;
mod stage;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    // One at a time: a clew that starts removes what a killed one has left, which is what some tests
    // look at.
    let arguments = Arguments {
        test_threads: Some(1),
        ..Arguments::from_args()
    };
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: tests that load BPF programs are skipped, and counted as ignored");
    }
    let privileged = [life::TESTS, faults::TESTS].concat();
    let privileged = privileged
        .into_iter()
        .map(|test| trial(test).with_ignored_flag(!root));
    let trials = privileged.chain(rules::TESTS.iter().copied().map(trial));
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn trial((name, test): Test) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:?}")))
    })
}

/// A test and its name.
pub(crate) type Test = (&'static str, fn() -> anyhow::Result<()>);
