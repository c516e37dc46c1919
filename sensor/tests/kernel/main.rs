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

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not root: the tests of the kernel programs are skipped, and counted as ignored");
    }
    let missing = if root { stage::missing() } else { Vec::new() };
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
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test().map_err(|error| Failed::from(format!("{error:?}")))
            })
            .with_ignored_flag(!root || needs(name).is_some_and(|it| missing.contains(&it)))
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
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
