//! Reading kernel structures at offsets that the loader found in BTF.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use clew_sensor_abi::{FileKey, ProcessKey};

use crate::maps::offset;

/// A `struct task_struct` the verifier trusts.
pub type Task = *mut c_void;

/// Reads a member the verifier knows about: no helper call, faults handled by the kernel.
///
/// # Safety
///
/// `base` is a BTF pointer (a program argument, the current task) and `offset` is the member's.
#[inline(always)]
pub unsafe fn member<T: Copy>(base: *const c_void, offset: usize) -> T {
    // SAFETY: the verifier checks the access against the structure's BTF.
    unsafe { core::ptr::read_volatile(base.cast::<u8>().add(offset).cast::<T>()) }
}

/// Reads a member of any kernel object; zero when it cannot be read.
///
/// # Safety
///
/// `base` came from the kernel; a wrong address yields zero, never a fault.
#[inline(always)]
pub unsafe fn probe<T: Copy>(base: *const c_void, offset: usize) -> T {
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks every address and fills all of the value, with zeros where it cannot read; all
    // T used here may be zero.
    unsafe {
        let from = base.cast::<u8>().wrapping_add(offset).cast();
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

/// Reads from any kernel object to `to`; zeros when it cannot be read.
///
/// # Safety
///
/// As [`probe`].
#[inline(always)]
pub unsafe fn probe_into<T: Copy>(from: *const T, to: &mut T) {
    // SAFETY: room for a T; the helper checks the address, and clears what it cannot fill.
    unsafe {
        let to = (&raw mut *to).cast();
        bpf_probe_read_kernel(to, size_of::<T>() as u32, from.cast());
    }
}

/// Has the verifier forget what it knows of `value`, and with it by which way the program has come here. (One
/// that has callbacks is followed by Linux before 6.4 once for each number that differs.)
///
/// What a callback changes must be forgotten before it is called: before 6.7 the verifier follows it once, and takes
/// what it finds then for what is always there.
#[inline(always)]
pub fn blur<T: Copy>(value: &mut T) {
    let from = &raw const *value;
    // SAFETY: copied onto itself.
    unsafe { probe_into(from, value) };
}

/// The group leader of `task`.
///
/// # Safety
///
/// `task` is a task the verifier trusts.
#[inline(always)]
pub unsafe fn leader(task: Task) -> Task {
    // SAFETY: a member of the right type.
    unsafe { member(task, offset!(task_group_leader)) }
}

/// The process `leader` leads.
///
/// # Safety
///
/// `leader` is a task the verifier trusts.
#[inline(always)]
pub unsafe fn process_key(leader: Task) -> ProcessKey {
    // SAFETY: members of the right type.
    unsafe {
        ProcessKey {
            start: member(leader, offset!(task_start_boottime)),
            tgid: member(leader, offset!(task_tgid)),
            pad: 0,
        }
    }
}

/// `mm->exe_file` of `task`: its inode's identity, and where its path starts.
///
/// # Safety
///
/// `task` is a task the verifier trusts.
#[inline(always)]
pub unsafe fn executable(task: Task) -> (FileKey, *const c_void) {
    // SAFETY: probes of kernel objects; the current task keeps its own alive.
    unsafe {
        let mm: *const c_void = member(task, offset!(task_mm));
        let file: *const c_void = probe(mm, offset!(mm_exe_file));
        (identity(file), path_of(file))
    }
}

/// The identity of an open file.
///
/// # Safety
///
/// As [`probe`].
#[inline(always)]
pub unsafe fn identity(file: *const c_void) -> FileKey {
    // SAFETY: the caller's word.
    unsafe { identity_of_inode(probe(file, offset!(file_f_inode))) }
}

/// The identity of a file.
///
/// # Safety
///
/// As [`probe`].
#[inline(always)]
pub unsafe fn identity_of_inode(inode: *const c_void) -> FileKey {
    // SAFETY: the caller's word.
    unsafe {
        let sb: *const c_void = probe(inode, offset!(inode_i_sb));
        FileKey {
            device: u64::from(probe::<u32>(sb, offset!(super_block_s_dev))),
            inode: probe(inode, offset!(inode_i_ino)),
        }
    }
}

/// Where its path starts.
#[inline(always)]
pub fn path_of(file: *const c_void) -> *const c_void {
    file.cast::<u8>().wrapping_add(offset!(file_f_path)).cast()
}
