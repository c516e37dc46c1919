//! Raw: sockets whose flows pass none of the hooks that judge a connection, refused when they are made.
//!
//! Raw IP sockets, ping sockets, and protocols other than TCP and UDP go out without a `connect`
//! that `cgroup` programs would see. Packet sockets (`AF_PACKET`) pass no `cgroup` hook at all.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use clew_sensor_abi::policy::PROTOCOL_RAW;
use clew_sensor_abi::record::TaskContext;

use crate::deny::{DENY, PASS, denied};
use crate::maps::ConnectData;
use crate::task::{Access, context_by, current, nothing};

/// `SOCK_RAW`.
const RAW: u32 = 3;
const TCP: u32 = 6;
const UDP: u32 = 17;
/// `IPPROTO_MPTCP`; its connections are TCP to `connect4` and `connect6`.
const MPTCP: u32 = 262;

/// `cgroup/sock_create`: IPv4 and IPv6 sockets.
#[cgroup_sock(sock_create)]
pub fn socket(ctx: SockContext) -> i32 {
    judge(&ctx, Access::Helper)
}

/// [`socket`], by the other way.
#[cgroup_sock(sock_create)]
pub fn socket_memory(ctx: SockContext) -> i32 {
    judge(&ctx, Access::Memory)
}

#[inline(always)]
fn judge(ctx: &SockContext, access: Access) -> i32 {
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
    if unsafe { context_by(access, task, &mut context) } && denied(task, &context, raw(&context)) {
        return DENY;
    }
    PASS
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
