//! The `clew` command as a user runs it: real processes, real kernel, real files.
//!
//! What loads BPF programs needs root; without it those tests say so and count as ignored.

mod faults;
mod life;
mod packs;
mod proofs;
mod reload;
mod rules;
mod stage;
mod steering;

use std::env;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a kernel is tried with that is not at hand (`scripts/kernels`, `CLEW_TESTS=chain`), by the beginning of
/// the name: all that a request and a kill have to do with each other.
const CHAIN: &[&str] = &["life::an_attack_is_stopped_told_and_banned", "proofs::"];

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
    let is_chain = env::var_os("CLEW_TESTS").is_some_and(|it| it == "chain");
    let is_chosen = |(name, _): &Test| !is_chain || CHAIN.iter().any(|it| name.starts_with(it));
    let privileged = [
        life::TESTS,
        proofs::TESTS,
        faults::TESTS,
        steering::PRIVILEGED,
        reload::PRIVILEGED,
    ]
    .concat();
    let privileged = privileged
        .into_iter()
        .filter(is_chosen)
        .map(|test| trial(test).with_ignored_flag(!root));
    let others = [rules::TESTS, packs::TESTS, reload::TESTS, steering::TESTS].concat();
    let others = others.into_iter().filter(is_chosen).map(trial);
    let trials = privileged.chain(others);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn trial((name, test): Test) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:?}")))
    })
}

/// A test and its name.
pub(crate) type Test = (&'static str, fn() -> anyhow::Result<()>);
