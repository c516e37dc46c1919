//! Null: does nothing, so that the cost of running and of counting can be taken off the others'.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;

/// `cgroup_skb/ingress`; attached by measurements only.
#[cgroup_skb]
pub fn null(_: SkBuffContext) -> i32 {
    1
}
