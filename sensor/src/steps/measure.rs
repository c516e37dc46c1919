//! Programs that do nothing, on the hooks that every request passes.

use super::Provider;
use crate::attach::Hook;

/// The one at ingress.
pub(crate) const NULL: &str = "null";

pub(crate) const NULLS: [Provider; 2] = [
    Provider {
        program: NULL,
        hook: Hook::Ingress,
        needs: "nothing of its own",
    },
    Provider {
        program: "null_read",
        hook: Hook::Tracepoint("tcp_rcv_space_adjust"),
        needs: "nothing of its own",
    },
];
