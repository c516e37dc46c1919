//! Deny: may this request's lineage open this flow?

use super::{Part, Provider};
use crate::attach::Hook;

/// One hook of a cgroup, with both ways to what the caller carries.
macro_rules! at_cgroup {
    ($hook:expr, $program:literal, $by_memory:literal) => {
        Part {
            step: "deny",
            providers: &[
                Provider {
                    program: $program,
                    hook: $hook,
                    needs: "bpf_task_storage_get at cgroup hooks",
                },
                Provider {
                    program: $by_memory,
                    hook: $hook,
                    needs: "bpf_probe_read_kernel at cgroup hooks (Linux 5.8)",
                },
            ],
            without: None,
        }
    };
}

pub(super) const PARTS: [Part; 5] = [
    at_cgroup!(
        Hook::SocketAddress("connect4"),
        "connect4",
        "connect4_memory"
    ),
    at_cgroup!(
        Hook::SocketAddress("connect6"),
        "connect6",
        "connect6_memory"
    ),
    at_cgroup!(
        Hook::SocketAddress("sendmsg4"),
        "sendmsg4",
        "sendmsg4_memory"
    ),
    at_cgroup!(
        Hook::SocketAddress("sendmsg6"),
        "sendmsg6",
        "sendmsg6_memory"
    ),
    at_cgroup!(Hook::SocketCreation, "socket", "socket_memory"),
];
