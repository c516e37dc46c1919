//! The cgroup v2 hierarchy the socket programs are attached to.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

/// Where Clew mounts cgroup2 when nobody else has.
const PRIVATE_MOUNT: &str = "/run/clew/cgroup2";

/// The root of the cgroup2 hierarchy; every process is below it, also where v1 and v2 are used
/// side by side.
///
/// # Errors
///
/// None is mounted and it cannot be mounted here (needs `CAP_SYS_ADMIN`).
fn root() -> io::Result<File> {
    match mounted() {
        Some(path) => File::open(path),
        None => mount_private().and_then(File::open),
    }
}

/// The cgroup at `path`, or the root of the hierarchy.
///
/// # Errors
///
/// As [`root`]; or nothing is at `path`.
pub(crate) fn open(path: Option<&Path>) -> io::Result<File> {
    path.map_or_else(root, File::open)
}

/// The mount point of cgroup2, if there is one.
pub fn mounted() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mount_point(&mounts, "cgroup2")
}

/// First mount point of a file system of type `kind` in the text of `/proc/self/mounts`.
pub(crate) fn mount_point(mounts: &str, kind: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let at = fields.next()?;
        (fields.next()? == kind).then(|| PathBuf::from(at.replace("\\040", " ")))
    })
}

fn mount_private() -> io::Result<&'static Path> {
    let at = Path::new(PRIVATE_MOUNT);
    std::fs::create_dir_all(at)?;
    mount(
        "none",
        at,
        "cgroup2",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )?;
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_by_type() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            mount_point(mounts, "cgroup2"),
            Some("/sys/fs/cgroup/unified".into())
        );
        assert_eq!(mount_point(mounts, "bpf"), None);
    }
}
