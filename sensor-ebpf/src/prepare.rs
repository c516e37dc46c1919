//! Prepare: a thread that is about to become a program by itself.
//!
//! `execve` in a thread ends all others, its process's leader among them, before the new program can
//! be judged (`de_thread`, fs/exec.c); with the leader goes what the process has read.

use aya_ebpf::macros::{btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};
use clew_sensor_abi::settings::Counter;

use crate::kernel::{Task, leader};
use crate::maps::{count, task_context};
use crate::task::{context_of, current, nothing};

/// `tp_btf/sched_prepare_exec` (task, bprm): before the point of no return; the thread takes along
/// what its process would be judged by.
#[btf_tracepoint(function = "sched_prepare_exec")]
pub fn prepare(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's own task, which is the running one.
    unsafe { take_along(ctx.arg(0)) }
}

/// `fentry/begin_new_exec` (bprm): the same, where there is no such tracepoint.
#[fentry(function = "begin_new_exec")]
pub fn prepare_entry(_: FEntryContext) -> i32 {
    // SAFETY: the running task.
    unsafe { take_along(current()) }
}

/// # Safety
///
/// `task` is the running task.
#[inline(always)]
unsafe fn take_along(task: Task) -> i32 {
    // SAFETY: the caller's word.
    unsafe {
        let mut context = nothing();
        if leader(task) == task || !context_of(task, &mut context) {
            return 0;
        }
        match task_context(task, true) {
            Some(own) => *own = context,
            None => count(Counter::NoStorage),
        }
    }
    0
}
