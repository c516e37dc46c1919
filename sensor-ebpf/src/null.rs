//! Null: does nothing, so that the cost of running, of counting and of the hooks themselves can be
//! told from what the others do there. Attached by measurements only.

use aya_ebpf::macros::{btf_tracepoint, cgroup_skb};
use aya_ebpf::programs::{BtfTracePointContext, SkBuffContext};

/// `cgroup_skb/ingress`.
#[cgroup_skb]
pub fn null(_: SkBuffContext) -> i32 {
    1
}

/// `tp_btf/tcp_rcv_space_adjust`.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn null_read(_: BtfTracePointContext) -> i32 {
    0
}
