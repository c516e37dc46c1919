//! The programs on the real kernel. Each test loads its own sensor, with its own key, and starts
//! its own backend process; all of it goes when the test ends.
//!
//! Without root they cannot run, say so, and are counted as ignored.

mod announced;
mod barrier;
mod file;
mod hop;
mod policy;
mod send;
mod stage;
mod stop;
mod thread;

use std::env;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What a kernel is tried with that is not at hand (`scripts/kernels`, `CLEW_TESTS=chain`): each step between a
/// request and what becomes of it, once. Nearly all the time of a test is the verifier's there.
const CHAIN: &[&str] = &[
    "tag::heads_split_anywhere",
    "tag::replayed_tokens_mean_nothing",
    "bind::pipelined_requests_one_read",
    "bind::pipelined_requests_read_one_by_one",
    "hop::http",
    "hop::fastcgi",
    "send::a_head_without_a_token",
    "announced::binds_and_judges",
    "barrier::the_banned_do_not_come_in",
    "decide::a_shell_never_runs",
    "decide::the_record_says_what_it_was",
    "decide::children_of_every_kind",
    "decide::a_thread_that_becomes_a_shell",
    "decide::a_full_ring_saves_nobody",
    "decide::a_full_ring_lets_nobody_start",
    "decide::observe_stops_nothing",
    "stops::are_counted_before_anybody_can_know",
    "unload::nothing_is_left",
    "policy::arguments_are_part_of_the_rule",
    "policy::connections_a_profile_lacks_are_denied",
    "policy::flows_of_every_kind_are_denied",
    "policy::raw_sockets_are_denied_or_learned",
    "file::a_secret_is_not_opened",
    "file::what_was_written_is_known_when_it_is_read",
    "file::nothing_is_written_there",
    "file::what_is_moved_there_is_written_there",
];

fn main() {
    let arguments = Arguments::from_args();
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: the tests of the kernel programs are skipped, and counted as ignored");
    }
    let missing = if root && !arguments.list {
        stage::missing()
    } else {
        Vec::new()
    };
    let tests = [
        thread::TESTS,
        hop::TESTS,
        send::TESTS,
        announced::TESTS,
        barrier::TESTS,
        stop::TESTS,
        policy::TESTS,
        file::TESTS,
    ]
    .concat();
    for name in CHAIN {
        assert!(tests.iter().any(|(test, _)| test == name), "no test {name}");
    }
    let is_chain = env::var_os("CLEW_TESTS").is_some_and(|it| it == "chain");
    let chosen = tests
        .into_iter()
        .filter(|(name, _)| !is_chain || CHAIN.contains(name));
    let trials = chosen
        .map(|test| trial(test, &missing).with_ignored_flag(!root))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// A test, which says why where this kernel has nothing to run it with.
fn trial((name, test): Test, missing: &[&'static str]) -> Trial {
    let lost = needs(name).filter(|it| missing.contains(it));
    Trial::ignorable_test(name, move || match lost {
        Some(lost) => Ok(Completion::ignored_with(format!("here {lost}"))),
        None => test()
            .map(|()| Completion::Completed)
            .map_err(|error| Failed::from(format!("{error:?}"))),
    })
}

/// What a test cannot do without: a part that not every kernel has, by what is lost without it.
fn needs(test: &str) -> Option<&'static str> {
    match test {
        "send::a_connection_that_is_older_than_the_programs" => {
            Some("what is sent on connections that are older than the programs is not followed")
        }
        "decide::a_thread_that_becomes_a_shell" => {
            Some("a thread that becomes a program without a fork is not judged")
        }
        "file::what_is_moved_there_is_written_there" => {
            Some("what requests move to where it is watched is not seen")
        }
        _ => None,
    }
}

/// A test and its name.
pub(crate) type Test = (&'static str, fn() -> anyhow::Result<()>);
