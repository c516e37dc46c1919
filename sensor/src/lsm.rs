//! Whether BPF programs are asked by the kernel's security modules.
//!
//! A kernel built with them takes such programs, and puts them in place, also when it never asks them: it must have
//! been told to at boot (`lsm=`).

use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// The modules that are asked, in their order (security/inode.c).
const LIST: &str = "/sys/kernel/security/lsm";
/// Where the file system that has the list is mounted for a moment where nobody has.
const PRIVATE_MOUNT: &str = "/run/clew/securityfs";

/// Whether BPF is among them.
///
/// # Errors
///
/// The list cannot be read, although the kernel has it.
pub(crate) fn is_active() -> io::Result<bool> {
    let list = match std::fs::read_to_string(LIST) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => read_privately(),
        read => read,
    };
    match list {
        Ok(list) => Ok(list.trim_end().split(',').any(|name| name == "bpf")),
        // The kernel has no such file system, and so no modules.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn read_privately() -> io::Result<String> {
    let at = Path::new(PRIVATE_MOUNT);
    std::fs::create_dir_all(at)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("none", at, "securityfs", flags, None)?;
    let list = std::fs::read_to_string(at.join("lsm"));
    unmount(at, UnmountFlags::DETACH)?;
    list
}
