//! Bind: who reads them?

use super::{Part, Provider};
use crate::attach::Hook;

pub(super) const PART: Part = Part {
    step: "bind",
    providers: &[Provider {
        program: "bind",
        hook: Hook::Tracepoint("tcp_rcv_space_adjust"),
        needs: "its tracepoint (Linux 4.15) and storage of sockets in tracing (5.11)",
    }],
    without: None,
};
