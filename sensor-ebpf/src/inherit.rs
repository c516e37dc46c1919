//! Inherit: children carry what their parent worked for.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use clew_sensor_abi::record::{STRANGER_SECONDS, STRENGTH_PROCESS, STRENGTH_THREAD};
use clew_sensor_abi::settings::Counter;

use crate::kernel::{Task, member};
use crate::maps::{count, offset, task_context};
use crate::report::seconds;
use crate::task::{context_of, nothing};

/// `tp_btf/sched_process_fork` (parent, child): for processes, threads and vfork alike, before
/// the child runs.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn inherit(ctx: BtfTracePointContext) -> i32 {
    let parent: Task = ctx.arg(0);
    let child: Task = ctx.arg(1);
    // SAFETY: the tracepoint's own tasks.
    unsafe {
        let mut context = nothing();
        if !context_of(parent, &mut context) {
            return 0;
        }
        let is_thread: bool =
            member::<i32>(parent, offset!(task_tgid)) == member::<i32>(child, offset!(task_tgid));
        if is_thread && context.lineage == 0 {
            if context.strength == STRENGTH_PROCESS {
                // It will be judged by its process anyway.
                return 0;
            }
            context.strength = STRENGTH_THREAD;
        } else {
            context.lineage = 1;
            if seconds().wrapping_sub(context.stranger) > STRANGER_SECONDS {
                context.stranger = 0;
            }
        }
        match task_context(child, true) {
            Some(own) => *own = context,
            None => count(Counter::NoStorage),
        }
    }
    0
}
