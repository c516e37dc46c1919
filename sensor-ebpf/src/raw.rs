//! Raw: sockets whose flows pass none of the hooks that judge a connection, refused when they are made.
//!
//! Raw IP sockets, ping sockets, and protocols other than TCP and UDP go out without a `connect`
//! that `cgroup` programs would see; packet sockets (`AF_PACKET`) pass no `cgroup` hook at all.

use aya_ebpf::helpers::generated::bpf_send_signal;
use aya_ebpf::macros::{btf_tracepoint, cgroup_sock};
use aya_ebpf::programs::{BtfTracePointContext, SockContext};
use clew_sensor_abi::policy::PROTOCOL_RAW;
use clew_sensor_abi::record::TaskContext;

use crate::deny::{DENY, PASS, denied};
use crate::kernel::Task;
use crate::maps::ConnectData;
use crate::task::{context_of, current, nothing};

/// `SOCK_RAW`.
const RAW: u32 = 3;
const TCP: u32 = 6;
const UDP: u32 = 17;
/// `IPPROTO_MPTCP`; its connections are TCP to `connect4` and `connect6`.
const MPTCP: u32 = 262;
/// `CAP_NET_RAW`.
const NET_RAW: u32 = 13;
const SIGKILL: u32 = 9;

/// `cgroup/sock_create`: IPv4 and IPv6 sockets.
#[cgroup_sock(sock_create)]
pub fn socket(ctx: SockContext) -> i32 {
    // SAFETY: the program's own context; volatile, for the verifier wants whole words.
    let (kind, protocol) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.sock).type_),
            core::ptr::read_volatile(&raw const (*ctx.sock).protocol),
        )
    };
    if kind != RAW && (protocol == TCP || protocol == UDP || protocol == MPTCP) {
        return PASS;
    }
    let task = current();
    let mut context = nothing();
    // SAFETY: the running task.
    if unsafe { context_of(task, &mut context) } && denied(task, &context, raw(&context)) {
        return DENY;
    }
    PASS
}

/// `tp_btf/cap_capable` (cred, target namespace, namespace, capability, result), since Linux 6.14: a
/// packet socket is about to be made. Nothing can refuse it here, so its process ends before it has one.
#[btf_tracepoint(function = "cap_capable")]
pub fn capable(ctx: BtfTracePointContext) -> i32 {
    let (capability, result): (u32, i32) = (ctx.arg(3), ctx.arg(4));
    if capability != NET_RAW || result != 0 {
        return 0;
    }
    let task: Task = current();
    let mut context = nothing();
    // SAFETY: the running task.
    if unsafe { context_of(task, &mut context) } && denied(task, &context, raw(&context)) {
        // SAFETY: signals the running task's process, at its return to user mode.
        unsafe { bpf_send_signal(SIGKILL) };
    }
    0
}

#[inline(always)]
fn raw(context: &TaskContext) -> ConnectData {
    ConnectData {
        service: context.service,
        port: 0,
        protocol: PROTOCOL_RAW,
        address: [0; 16],
    }
}
