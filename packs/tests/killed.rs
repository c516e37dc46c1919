//! A process that changes the store is stopped at any moment, and now and then killed: what the disk holds then is a whole
//! old or a whole new state, and the next change goes on from there. To be stopped between two system calls leaves on
//! the disk what to be killed there would, and costs no new process: so many more moments are looked at.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clew_packs::contents::Contents;
use clew_packs::signature::Trust;
use clew_packs::store::Store;
use clew_packs::{Host, PackName};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Names the state directory to the child.
const CHILD: &str = "CLEW_PACKS_STATE_OF_CHILD";
/// Where the child begins: each is to be killed in the middle of other changes.
const ROUND: &str = "CLEW_PACKS_ROUND_OF_CHILD";
/// How often the child is stopped.
const STOPS: usize = 1_500;
/// It is killed, and begun anew, instead of going on after so many of them.
const STOPS_OF_A_LIFE: usize = 50;
/// So many different states make it worth while.
const STATES: usize = 6;

fn main() -> Result<()> {
    if let Some(state) = std::env::var_os(CHILD) {
        return churn(Path::new(&state));
    }
    let trials = vec![Trial::test("a_store_survives_kills_at_any_moment", || {
        survives().map_err(|error| Failed::from(format!("{error:#}")))
    })];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trust() -> Trust {
    Trust {
        allow_unsigned: true,
        ..Trust::default()
    }
}

fn archive(version: u32) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let manifest = format!(
        "name = \"one\"\nversion = \"{version}.0.0\"\nclew = \"0.1\"\ndescription = \"A test\"\nmode = \"block\"\n[[exec]]\npath = \"/bin/true\"\n"
    );
    std::fs::write(folder.path().join("pack.toml"), manifest)?;
    // Small: most of the time is to be spent on the disk, where a kill matters.
    for number in 0..3 {
        let text = format!("# {version} {number}\n");
        std::fs::write(folder.path().join(format!("notes-{number}.md")), text)?;
    }
    Ok(Contents::of_folder(folder.path())?.to_archive()?)
}

/// The child: changes without end, or at most a minute's worth.
fn churn(state: &Path) -> Result<()> {
    let store = Store::of(state);
    let archives = (1..=3).map(archive).collect::<Result<Vec<_>>>()?;
    let name: PackName = "one".parse().map_err(anyhow::Error::msg)?;
    let first: usize = std::env::var(ROUND)?.parse()?;
    println!("begins");
    for round in first..first + 5_000 {
        // Some are refused, as those that remove what is active: that is a change that does not happen.
        let _ = store.install(&archives[round % 3], None, &trust());
        let _ = store.activate(&name, None, &trust(), Host::default());
        if round % 4 == 3 {
            let _ = store.rollback(&trust(), Host::default());
        }
        if round % 7 == 6 {
            let _ = store.deactivate(&name);
        }
        let version = semver::Version::new(1 + (round as u64 + 1) % 3, 0, 0);
        let _ = store.remove(&name, &version);
    }
    Ok(())
}

/// Is killed whatever happens to its owner.
struct Killed(Child);

impl Killed {
    /// Returns when it does nothing any more.
    fn stop(&self) -> Result<()> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::STOP)?;
        let status = waitpid(Some(pid), WaitOptions::UNTRACED)?;
        let stopped = status.is_some_and(|(_, status)| status.stopped());
        ensure!(stopped, "the child has ended by itself");
        Ok(())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn survives() -> Result<()> {
    let state = tempfile::tempdir()?;
    let store = Store::of(state.path());
    let originals = (1..=3)
        .map(|version| Ok(Contents::of_archive(&archive(version)?)?))
        .collect::<Result<Vec<_>>>()?;
    let mut random = fastrand::Rng::with_seed(7);
    let mut seen = BTreeSet::new();
    for life in 0..STOPS / STOPS_OF_A_LIFE {
        let child = Command::new(std::env::current_exe()?)
            .env(CHILD, state.path())
            .env(ROUND, life.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut child = Killed(child);
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().context("a pipe")?).read_line(&mut line)?;
        for stop in 0..STOPS_OF_A_LIFE {
            std::thread::sleep(Duration::from_micros(random.u64(0..4_000)));
            child.stop()?;
            let place = || format!("stop {stop} of life {life}");
            whole(&store, &originals, &mut seen).with_context(place)?;
            kill_process(Pid::from_child(&child.0), Signal::CONT)?;
        }
        drop(child);
        whole(&store, &originals, &mut seen).with_context(|| format!("after life {life}"))?;
    }
    ensure!(seen.len() >= STATES, "only {seen:?} were seen");
    // And the store works on.
    let name: PackName = "one".parse().map_err(anyhow::Error::msg)?;
    store.install(&archive(1)?, None, &trust())?;
    store.activate(&name, None, &trust(), Host::default())?;
    Ok(())
}

/// All that is installed is whole, and all that is active is installed.
fn whole(store: &Store, originals: &[Contents], seen: &mut BTreeSet<String>) -> Result<()> {
    let installed = store.list()?;
    for listing in &installed {
        let pack = store.pack(&listing.id, &trust())?;
        let original = &originals[usize::try_from(listing.id.version.major)? - 1];
        ensure!(pack.contents == *original, "{} is not whole", listing.id);
    }
    let active = store.active()?;
    ensure!(
        store.active_packs(&trust())?.len() == active.packs.len(),
        "active"
    );
    let ids: Vec<_> = installed.iter().map(|it| it.id.to_string()).collect();
    let packs: Vec<_> = active.packs.iter().map(ToString::to_string).collect();
    seen.insert(format!("{ids:?} {packs:?}"));
    Ok(())
}
