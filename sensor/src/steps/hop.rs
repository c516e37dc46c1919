//! Hop: a request goes on to another process through a unix socket, and is answered there.

use super::{Part, Provider, TRAMPOLINES};
use crate::attach::Hook;

pub(super) const PARTS: [Part; 2] = [
    Part {
        step: "hop",
        providers: &[
            Provider {
                program: "answer",
                hook: Hook::Tracepoint("sock_send_length"),
                needs: "its tracepoint (Linux 6.3)",
            },
            Provider {
                program: "answer_exit",
                hook: Hook::Exit("unix_stream_sendmsg"),
                needs: TRAMPOLINES,
            },
        ],
        without: None,
    },
    Part {
        step: "hop",
        providers: &[
            Provider {
                program: "hop",
                hook: Hook::Tracepoint("sock_recv_length"),
                needs: "its tracepoint (Linux 6.3)",
            },
            Provider {
                program: "hop_exit",
                hook: Hook::Exit("unix_stream_recvmsg"),
                needs: TRAMPOLINES,
            },
        ],
        without: None,
    },
];
