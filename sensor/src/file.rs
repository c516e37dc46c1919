//! Executables by identity.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clew_sensor_abi::FileKey;
use rustix::fs::{major, minor};

/// The identity of the file at `path`, symbolic links followed, as the kernel programs see it.
///
/// # Errors
///
/// Those of `stat(2)`.
pub fn file_key(path: &Path) -> io::Result<FileKey> {
    let stat = std::fs::metadata(path)?;
    Ok(FileKey {
        device: kernel_device(stat.dev()),
        inode: stat.ino(),
    })
}

/// `stat(2)`'s device number in the kernel's own encoding (`MKDEV`, include/linux/kdev_t.h).
fn kernel_device(device: u64) -> u64 {
    u64::from(major(device)) << 20 | u64::from(minor(device))
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
    fn device_numbers_go_both_ways() {
        for device in [rustix::fs::makedev(8, 1), rustix::fs::makedev(259, 70_000)] {
            assert_eq!(user_device(kernel_device(device)), device);
        }
    }
}
