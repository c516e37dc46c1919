//! Whose work a task does.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use clew_sensor_abi::RECENT;
use clew_sensor_abi::record::{STRENGTH_NONE, STRENGTH_PROCESS, TaskContext};

use crate::kernel::{Task, leader, probe_into};
use crate::maps::task_context;
use crate::storage;

/// The running task.
#[inline(always)]
pub fn current() -> Task {
    // SAFETY: no arguments; trusted by the verifier.
    unsafe { bpf_get_current_task_btf() }.cast()
}

/// How a program comes to what a task carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As the kernel means it.
    Helper,
    /// Where the kernel has no helper for this type of program: through the memory that the helper would
    /// look into.
    Memory,
}

/// Writes what `task` works for to `to`: its own context if it carries a request, else its
/// process's, weakly. False when it works for none.
///
/// # Safety
///
/// `task` is a task the verifier trusts.
#[inline(always)]
pub unsafe fn context_of(task: Task, to: &mut TaskContext) -> bool {
    // SAFETY: the caller's word.
    unsafe { context_by(Access::Helper, task, to) }
}

/// [`context_of`], by a way that is known when the program is compiled.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub unsafe fn context_by(access: Access, task: Task, to: &mut TaskContext) -> bool {
    // SAFETY: the caller's word; the leader is reached through it.
    unsafe {
        let own = carried(access, task);
        if !own.is_null() {
            read(access, own, to);
            if to.strength != STRENGTH_NONE && to.lineage != 0 {
                return true;
            }
        }
        let process = carried(access, leader(task));
        if process.is_null() {
            return to.strength != STRENGTH_NONE;
        }
        if to.strength == STRENGTH_NONE {
            read(access, process, to);
            if to.reads == 0 {
                return false;
            }
            to.strength = STRENGTH_PROCESS;
            let newest = to.reads.wrapping_sub(1) as usize % RECENT;
            read(
                access,
                &raw const (*process).recent[newest],
                &mut to.sequence,
            );
            return true;
        }
        // What the process read last is kept on the leader.
        read(access, &raw const (*process).recent, &mut to.recent);
        read(access, &raw const (*process).reads, &mut to.reads);
        read(access, &raw const (*process).overlaps, &mut to.overlaps);
        read(access, &raw const (*process).stranger, &mut to.stranger);
        true
    }
}

/// What `task` carries; null: nothing.
#[inline(always)]
unsafe fn carried(access: Access, task: Task) -> *const TaskContext {
    // SAFETY: the caller's word.
    unsafe {
        match access {
            Access::Helper => {
                task_context(task, false).map_or(core::ptr::null(), |it| &raw const *it)
            }
            Access::Memory => storage::of_task(task),
        }
    }
}

#[inline(always)]
unsafe fn read<T: Copy>(access: Access, from: *const T, to: &mut T) {
    // SAFETY: the caller's word.
    unsafe {
        match access {
            Access::Helper => *to = *from,
            Access::Memory => probe_into(from, to),
        }
    }
}

/// A context that carries nothing, to be filled by [`context_of`].
#[inline(always)]
pub fn nothing() -> TaskContext {
    // SAFETY: plain integers.
    unsafe { core::mem::zeroed() }
}
