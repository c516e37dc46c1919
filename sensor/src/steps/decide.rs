//! Decide: may this request's lineage start this program?

use super::{Part, Provider};
use crate::attach::Hook;

pub(super) const PARTS: [Part; 2] = [
    Part {
        step: "decide",
        providers: &[Provider {
            program: "decide",
            hook: Hook::Tracepoint("sched_process_exec"),
            needs: "bpf_send_signal (Linux 5.3) and bpf_loop (5.17)",
        }],
        without: None,
    },
    Part {
        step: "decide",
        providers: &[Provider {
            program: "check",
            hook: Hook::Lsm("bprm_check_security"),
            needs: "BPF LSM (CONFIG_BPF_LSM, and bpf in lsm= of the command line)",
        }],
        without: Some("a program that may not run is killed at its start, not refused before"),
    },
];
