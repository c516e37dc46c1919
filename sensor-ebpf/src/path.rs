//! The path of an open file, up through dentries and mounts to the task's root, as
//! `d_path()` (fs/d_path.c) does it; that helper is not allowed at these hooks.

use core::ffi::c_void;

use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_kernel};
use clew_sensor_abi::record::PATH_BYTES;

use crate::kernel::{blur, probe};
use crate::maps::offset;

/// Most components and mounts in a path.
const DEPTH: u32 = 48;
/// `NAME_MAX`.
const NAME_BYTES: u32 = 255;

/// A walk from a file to the root.
#[derive(Clone, Copy)]
pub struct Walk {
    dentry: *const c_void,
    vfsmount: *const c_void,
    root_dentry: *const c_void,
    root_vfsmount: *const c_void,
    to: *mut [u8; PATH_BYTES],
    /// First byte written; the path ends at `PATH_BYTES`.
    start: u32,
    arrived: bool,
}

impl Walk {
    /// From the `struct path` at `from` to the one at `root`.
    ///
    /// # Safety
    ///
    /// Both are kernel addresses, or nonsense that reads as zero.
    #[inline(always)]
    pub unsafe fn new(from: *const c_void, root: *const c_void) -> Self {
        // SAFETY: probes.
        unsafe {
            Self {
                dentry: probe(from, offset!(path_dentry)),
                vfsmount: probe(from, offset!(path_mnt)),
                root_dentry: probe(root, offset!(path_dentry)),
                root_vfsmount: probe(root, offset!(path_mnt)),
                to: core::ptr::null_mut(),
                start: PATH_BYTES as u32,
                arrived: false,
            }
        }
    }
}

impl Walk {
    /// From the entry at `from` to the top of its file system.
    ///
    /// # Safety
    ///
    /// It is a kernel address, or nonsense that reads as zero.
    #[inline(always)]
    pub unsafe fn within(from: *const c_void) -> Self {
        Self {
            dentry: from,
            vfsmount: core::ptr::null(),
            root_dentry: core::ptr::null(),
            root_vfsmount: core::ptr::null(),
            to: core::ptr::null_mut(),
            start: PATH_BYTES as u32,
            arrived: false,
        }
    }
}

/// Writes the path to the end of `to`; where it starts, and whether it reaches the root.
#[inline(always)]
pub fn walk(mut walk: Walk, to: *mut [u8; PATH_BYTES]) -> (u32, bool) {
    walk.to = to;
    blur(&mut walk.start);
    // SAFETY: `step` has the signature bpf_loop wants.
    unsafe { bpf_loop(DEPTH, step as *mut c_void, (&raw mut walk).cast(), 0) };
    blur(&mut walk);
    (walk.start, walk.arrived)
}

#[inline(never)]
extern "C" fn step(_: u32, walk: *mut Walk) -> c_long {
    // SAFETY: bpf_loop passes what `walk` gave it; kernel objects are probed, and the buffer is
    // indexed under a mask.
    unsafe {
        let walk = &mut *walk;
        if walk.dentry == walk.root_dentry && walk.vfsmount == walk.root_vfsmount {
            walk.arrived = true;
            return 1;
        }
        let mount_root: *const c_void = probe(walk.vfsmount, offset!(vfsmount_mnt_root));
        let parent: *const c_void = probe(walk.dentry, offset!(dentry_d_parent));
        if walk.dentry == mount_root || walk.dentry == parent {
            return cross_mount(walk);
        }
        let name_at = walk
            .dentry
            .cast::<u8>()
            .wrapping_add(offset!(dentry_d_name))
            .cast();
        let name: *const c_void = probe(name_at, offset!(qstr_name));
        let length = probe::<u32>(name_at, offset!(qstr_len)) & NAME_BYTES;
        if length == 0 || walk.start < length + 1 || walk.start > PATH_BYTES as u32 {
            return 1;
        }
        let at = walk.start - length;
        // at + length is the old start, so the copy ends inside the buffer; the mask and the
        // bound on the length show the verifier that it stays inside the record.
        let buffer = (*walk.to).as_mut_ptr().add(at as usize & (PATH_BYTES - 1));
        bpf_probe_read_kernel(buffer.cast(), length, name);
        let slash = (at - 1) & (PATH_BYTES as u32 - 1);
        *(*walk.to).as_mut_ptr().add(slash as usize) = b'/';
        walk.start = slash;
        walk.dentry = parent;
    }
    0
}

/// Goes from the root of a mount to where it is mounted; stops at the topmost.
#[inline(always)]
unsafe fn cross_mount(walk: &mut Walk) -> c_long {
    // SAFETY: probes; `vfsmount` is a member of a `struct mount`.
    unsafe {
        let mount: *const c_void = walk
            .vfsmount
            .cast::<u8>()
            .wrapping_sub(offset!(mount_mnt))
            .cast();
        let parent: *const c_void = probe(mount, offset!(mount_mnt_parent));
        if parent.is_null() || parent == mount {
            // Outside the task's root (chroot), or the namespace's own: nothing is above it.
            walk.arrived = true;
            return 1;
        }
        walk.dentry = probe(mount, offset!(mount_mnt_mountpoint));
        walk.vfsmount = parent.cast::<u8>().wrapping_add(offset!(mount_mnt)).cast();
    }
    0
}
