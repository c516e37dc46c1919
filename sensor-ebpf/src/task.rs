//! Whose work a task does.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use clew_sensor_abi::RECENT;
use clew_sensor_abi::record::{STRENGTH_NONE, STRENGTH_PROCESS, TaskContext};

use crate::kernel::{Task, leader};
use crate::maps::task_context;

/// The running task.
#[inline(always)]
pub fn current() -> Task {
    // SAFETY: no arguments; trusted by the verifier.
    unsafe { bpf_get_current_task_btf() }.cast()
}

/// Writes what `task` works for to `to`: its own context if it carries a request, else its
/// process's, weakly. False when it works for none.
///
/// # Safety
///
/// `task` is a task the verifier trusts.
#[inline(always)]
pub unsafe fn context_of(task: Task, to: &mut TaskContext) -> bool {
    // SAFETY: the caller's word; the leader is reached through it.
    unsafe {
        if let Some(own) = task_context(task, false)
            && own.strength != STRENGTH_NONE
        {
            *to = *own;
            if own.lineage != 0 {
                return true;
            }
        }
        let Some(process) = task_context(leader(task), false) else {
            return to.strength != STRENGTH_NONE;
        };
        if to.strength == STRENGTH_NONE {
            if process.reads == 0 {
                return false;
            }
            *to = *process;
            to.strength = STRENGTH_PROCESS;
            to.sequence = process.recent[process.reads.wrapping_sub(1) as usize % RECENT];
            return true;
        }
        // What the process read last is kept on the leader.
        to.recent = process.recent;
        to.reads = process.reads;
        to.overlaps = process.overlaps;
        to.stranger = process.stranger;
        true
    }
}

/// A context that carries nothing, to be filled by [`context_of`].
#[inline(always)]
pub fn nothing() -> TaskContext {
    // SAFETY: plain integers.
    unsafe { core::mem::zeroed() }
}
