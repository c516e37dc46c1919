//! Decide: may this request's lineage start this program?

use super::{Part, Provider};
use crate::attach::Hook;

pub(super) const PARTS: [Part; 1] = [Part {
    step: "decide",
    providers: &[Provider {
        program: "decide",
        hook: Hook::Tracepoint("sched_process_exec"),
        needs: "bpf_send_signal (Linux 5.3) and bpf_loop (5.17)",
    }],
    without: None,
}];
