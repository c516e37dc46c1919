//! Pins: what keeps the programs at work when the process that loaded them is killed.
//!
//! Each instance has a directory `clew-PID-START` in the BPF file system. START is the process's
//! start time (`/proc/PID/stat`, field 22), so a later process with the same id is not taken
//! for its owner.

use std::collections::HashSet;
use std::fs::DirEntry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;
use clew_sensor_abi::ABI_VERSION;
use rustix::mount::{MountFlags, mount};

use crate::cgroup::mount_point;

const BPF_FS: &str = "/sys/fs/bpf";
const PREFIX: &str = "clew-";
/// How pins of a map are named, in distinction to those of links.
const MAP: &[u8] = b"TASKS-";
/// How long the kernel may take to detach what is no longer pinned; it takes milliseconds.
const DETACHING: Duration = Duration::from_secs(5);

/// The directory of this instance's pins; removed, with all in it, on drop.
#[derive(Debug)]
pub(crate) struct PinDirectory {
    path: PathBuf,
    is_kept: bool,
}

impl PinDirectory {
    /// Makes the directory, mounting the BPF file system where it is not.
    pub(crate) fn create() -> io::Result<Self> {
        let root = bpf_fs()?;
        let pid = std::process::id();
        let start = start_time(pid).unwrap_or(0);
        let path = make_free(&root, pid, start)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
        Ok(Self {
            path,
            is_kept: false,
        })
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// It stays when this is dropped.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Hands the pins to the user the process is about to become, so that it can remove them.
    pub(crate) fn give_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            chown(entry?.path(), Some(uid), Some(gid))?;
        }
        chown(&self.path, Some(uid), Some(gid))
    }
}

impl Drop for PinDirectory {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error,
                "pins left behind; run `clew doctor --clean` as root");
        }
    }
}

/// Makes the first directory of this process that there is not: one process may load more than one
/// sensor (tests do). Making it is what finds out: another thread may load one at the same time.
fn make_free(root: &Path, pid: u32, start: u64) -> io::Result<PathBuf> {
    let mut nth = 0_u32;
    loop {
        let path = root.join(format!("{PREFIX}{pid}-{start}-{nth}"));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && nth < u32::MAX => {
                nth += 1
            }
            Err(error) => return Err(error),
        }
    }
}

fn bpf_fs() -> io::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if let Some(path) = mount_point(&mounts, "bpf") {
        return Ok(path);
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("bpf", BPF_FS, "bpf", flags, None)?;
    Ok(BPF_FS.into())
}

/// Directories whose process has gone without removing them.
pub fn leftovers() -> io::Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let Some(root) = mount_point(&mounts, "bpf") else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_orphan)
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes all [`leftovers`] and waits until the programs they kept attached judge no more.
///
/// # Errors
///
/// The first directory that cannot be read or removed (root owns them after SIGKILL before
/// privileges were dropped); `TimedOut` when programs are still there five seconds later.
pub fn clean() -> io::Result<Vec<PathBuf>> {
    let found = leftovers()?;
    let mut programs = HashSet::new();
    for path in &found {
        programs.extend(programs_of(path)?);
        remove(path)?;
    }
    await_end(&programs)?;
    Ok(found)
}

/// The kernel's ids of the programs that the pins in `directory` keep.
fn programs_of(directory: &Path) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let is_link = |entry: &DirEntry| !entry.file_name().as_encoded_bytes().starts_with(MAP);
    let links = entries.iter().filter(|entry| is_link(entry));
    links
        .map(|entry| {
            let link = PinnedLink::from_pin(entry.path()).map_err(io::Error::other)?;
            let info = FdLink::from(link).info().map_err(io::Error::other)?;
            Ok(info.program_id())
        })
        .collect()
}

/// What tasks carry, left by a process that has gone: of the last one that has left something of this kind.
pub(crate) fn left_tasks(kind: &TasksKind) -> io::Result<Option<PathBuf>> {
    let pins = leftovers()?.into_iter().map(|it| it.join(&kind.0));
    let left = pins.filter_map(|pin| Some((pin.metadata().ok()?.modified().ok()?, pin)));
    Ok(left.max().map(|(_, pin)| pin))
}

/// The name of the pin of the map `TASKS`: who finds it under this name understands it.
pub(crate) struct TasksKind(String);

impl TasksKind {
    /// For services of these names, in the order of their numbers.
    pub(crate) fn new<'a>(services: impl Iterator<Item = &'a str>) -> Self {
        let mut names = DefaultHasher::new();
        services.for_each(|it| it.hash(&mut names));
        let map = String::from_utf8_lossy(MAP);
        Self(format!("{map}{ABI_VERSION}-{:016x}", names.finish()))
    }

    pub(crate) fn in_directory(&self, pins: &PinDirectory) -> PathBuf {
        pins.join(&self.0)
    }
}

/// An unlinked pin lets go of its link after an RCU grace period and from a work queue
/// (`bpf_free_inode`, `bpf_link_put`): until then the program runs. It loses its id only once the link is
/// detached (`bpf_link_free`).
fn await_end(programs: &HashSet<u32>) -> io::Result<()> {
    let deadline = Instant::now() + DETACHING;
    // A program that goes between its id and its description is an error of the listing, and gone.
    while loaded_programs()
        .flatten()
        .any(|it| programs.contains(&it.id()))
    {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn remove(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        std::fs::remove_file(entry?.path())?;
    }
    std::fs::remove_dir(directory)
}

fn is_orphan(name: &str) -> bool {
    let mut fields = name.strip_prefix(PREFIX).unwrap_or("").split('-');
    let (Some(pid), Some(start)) = (
        fields.next().and_then(|pid| pid.parse::<u32>().ok()),
        fields.next().and_then(|start| start.parse::<u64>().ok()),
    ) else {
        return false;
    };
    start_time(pid) != Some(start)
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)), clock ticks; none when there is no such
/// process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted behind the last one.
    stat.rsplit_once(')')?
        .1
        .split_ascii_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owner_is_no_orphan() {
        let pid = std::process::id();
        let start = start_time(pid).expect("own start time");
        assert!(!is_orphan(&format!("clew-{pid}-{start}-0")));
        assert!(is_orphan(&format!("clew-{pid}-{}-0", start + 1)));
        assert!(!is_orphan("something-else"));
        assert!(!is_orphan("clew-x-y"));
    }
}
