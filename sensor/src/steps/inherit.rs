//! Inherit: children, and threads that become programs, carry what they come from.

use super::{Part, Provider, TRAMPOLINES};
use crate::attach::Hook;

pub(super) const PARTS: [Part; 2] = [
    Part {
        step: "inherit",
        providers: &[Provider {
            program: "inherit",
            hook: Hook::Tracepoint("sched_process_fork"),
            needs: "storage of tasks (Linux 5.11)",
        }],
        without: None,
    },
    Part {
        step: "inherit",
        providers: &[
            Provider {
                program: "prepare",
                hook: Hook::Tracepoint("sched_prepare_exec"),
                needs: "its tracepoint (Linux 6.10)",
            },
            Provider {
                program: "prepare_entry",
                hook: Hook::Entry("begin_new_exec"),
                needs: TRAMPOLINES,
            },
        ],
        without: Some("a thread that becomes a program without a fork is not judged"),
    },
];
