//! Send: what a backend sends to another service is the work of the request that the sender carries.

use super::{Part, Provider};
use crate::attach::Hook;

pub(super) const PARTS: [Part; 2] = [
    Part {
        step: "send",
        providers: &[
            Provider {
                program: "send",
                hook: Hook::SocketOperations,
                needs: "bpf_task_storage_get at cgroup hooks",
            },
            Provider {
                program: "send_memory",
                hook: Hook::SocketOperations,
                needs: "bpf_probe_read_kernel at cgroup hooks (Linux 5.8)",
            },
        ],
        without: None,
    },
    Part {
        step: "send",
        providers: &[Provider {
            program: "adopt",
            hook: Hook::Sockets,
            needs: "sockets locked for iterators (Linux 6.12)",
        }],
        without: Some(
            "what is sent on connections that are older than the programs is not followed",
        ),
    },
];
