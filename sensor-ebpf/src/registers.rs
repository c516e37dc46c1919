//! Where a system call has put what it read, from its arguments.
//!
//! The one place that knows of registers and of numbers of system calls; the loader looks up both for the
//! processor that it runs on.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_probe_read_user;
use aya_ebpf::helpers::generated::bpf_task_pt_regs;

use crate::kernel::{Task, member, probe};
use crate::maps::offset;

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Vector {
    base: u64,
    length: u64,
}

/// `msg_iov` of `struct user_msghdr`, behind a pointer and a length.
const MESSAGE_VECTORS: u64 = 16;

/// The first memory that the running `task`'s system call reads into, and its size in bytes. None where it
/// is no system call that reads from one descriptor (io_uring, recvmmsg).
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
pub unsafe fn buffer(task: Task) -> Option<(u64, u32)> {
    // SAFETY: the caller's word; the verifier knows the type of what is returned.
    unsafe {
        let registers: *const c_void = bpf_task_pt_regs(task.cast()) as *const c_void;
        let number = member::<u64>(registers, offset!(registers_number)) as u32;
        let second: u64 = member(registers, offset!(registers_second));
        if number == offset!(call_read) as u32 || number == offset!(call_recvfrom) as u32 {
            let third: u64 = member(registers, offset!(registers_third));
            return Some((second, size(third)));
        }
        let vectors = if number == offset!(call_readv) as u32 {
            second
        } else if number == offset!(call_recvmsg) as u32 {
            bpf_probe_read_user((second + MESSAGE_VECTORS) as *const u64).ok()?
        } else {
            return None;
        };
        let first = bpf_probe_read_user(vectors as *const Vector).ok()?;
        Some((first.base, size(first.length)))
    }
}

/// The vectors of arguments and of environment that the running `task` hands to a new program. None where it is no
/// system call that starts one, or one of another width: its numbers are others (arch/x86/entry/syscalls).
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
pub unsafe fn exec_strings(task: Task) -> Option<(u64, u64)> {
    // SAFETY: the caller's word; the verifier knows the type of what is returned.
    unsafe {
        let registers: *const c_void = bpf_task_pt_regs(task.cast()) as *const c_void;
        let number = member::<u64>(registers, offset!(registers_number)) as u32;
        let second = member(registers, offset!(registers_second));
        let third = member(registers, offset!(registers_third));
        if number == offset!(call_execve) as u32 {
            Some((second, third))
        } else if number == offset!(call_execveat) as u32 {
            Some((third, member(registers, offset!(registers_fourth))))
        } else {
            None
        }
    }
}

/// Whether the system call with these `registers` opens a file.
#[inline(always)]
pub fn opens(registers: *const c_void) -> bool {
    // SAFETY: probed. (A 32-bit call has another number, and is not seen.)
    let number = unsafe { probe::<u64>(registers, offset!(registers_number)) } as usize;
    number == offset!(call_openat)
        || number == offset!(call_open)
        || number == offset!(call_openat2)
}

#[inline(always)]
fn size(bytes: u64) -> u32 {
    if bytes > u64::from(u32::MAX) {
        u32::MAX
    } else {
        bytes as u32
    }
}
