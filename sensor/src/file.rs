//! Executables by identity.

use std::io;
use std::path::{Path, PathBuf};

use clew_sensor_abi::FileKey;
use rustix::fs::{AtFlags, CWD, StatxFlags};

/// What is mounted where, read once for all files that are looked up.
pub(crate) struct Mounts(String);

impl Mounts {
    /// `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
    pub(crate) fn read() -> Self {
        Self(std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    /// The identity of the file at `path`, symbolic links followed, as the kernel programs see it: its inode
    /// and the device of its superblock. `stat(2)` shows another device for what lies on btrfs, or below an
    /// overlay.
    ///
    /// # Errors
    ///
    /// Those of `statx(2)`.
    pub(crate) fn key_of(&self, path: &Path) -> io::Result<FileKey> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), wanted)?;
        let shown = u64::from(stat.stx_dev_major) << 20 | u64::from(stat.stx_dev_minor);
        Ok(FileKey {
            device: superblock(&self.0, stat.stx_mnt_id).unwrap_or(shown),
            inode: stat.stx_ino,
        })
    }
}

/// The device of a mount's superblock, in the kernel's own encoding (`MKDEV`, include/linux/kdev_t.h).
fn superblock(mounts: &str, id: u64) -> Option<u64> {
    let device_of = |line: &str| {
        let mut fields = line.split(' ');
        let is_it = fields.next()?.parse() == Ok(id);
        let (major, minor) = fields.nth(1).filter(|_| is_it)?.split_once(':')?;
        Some(major.parse::<u64>().ok()? << 20 | minor.parse::<u64>().ok()?)
    };
    mounts.lines().find_map(device_of)
}

/// The kernel's device number as `stat(2)` would show it.
pub(crate) fn user_device(device: u64) -> u64 {
    rustix::fs::makedev((device >> 20) as u32, (device & 0xf_ffff) as u32)
}

/// Launchers that start another program at once: the second exec is the one to judge.
///
/// JDK 12 and later start every child through `jspawnhelper`.
pub(crate) fn known_trampolines() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for base in ["/usr/lib/jvm", "/usr/java", "/opt"] {
        let Ok(entries) = std::fs::read_dir(base) else {
            continue;
        };
        found.extend(
            entries
                .flatten()
                .map(|entry| entry.path().join("lib/jspawnhelper"))
                .filter(|path| path.is_file()),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_the_device_of_its_superblock() {
        let mounts = "22 27 0:21 / /proc rw - proc proc rw\n45 27 0:40 / /m rw - overlay o rw\n";
        assert_eq!(superblock(mounts, 45), Some(40));
        assert_eq!(superblock(mounts, 22), Some(21));
        assert_eq!(superblock(mounts, 2), None);
        assert_eq!(superblock("45", 45), None);
    }

    #[test]
    fn a_plain_file_has_the_device_that_stat_shows() {
        let path = std::env::current_exe().expect("this test's own file");
        let (key, stat) = (Mounts::read().key_of(&path), std::fs::metadata(&path));
        let (key, stat) = (key.expect("a key"), stat.expect("a file"));
        assert_eq!(key.inode, std::os::unix::fs::MetadataExt::ino(&stat));
        let shown = std::os::unix::fs::MetadataExt::dev(&stat);
        assert_eq!(user_device(key.device), shown);
    }
}
