//! Deny: may this request's lineage open this flow?

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use clew_sensor_abi::policy::{CONNECT_FIXED_BITS, SERVICE_ANY};
use clew_sensor_abi::record::{
    Connect, DECISION_ALLOWED, DECISION_DENIED, DECISION_OBSERVED, KIND_CONNECT, TaskContext,
};
use clew_sensor_abi::settings::{Counter, MODE_ENFORCE};

use crate::decide::effective_mode;
use crate::kernel::{Task, member};
use crate::maps::{CONNECT_ALLOW, ConnectData, EVENTS, SERVICES, count, offset, settings};
use crate::report::{Room, Urgency, has_room, header};
use crate::stops::note_stop;
use crate::task::{Access, context_by, current, nothing};

pub const PASS: i32 = 1;
pub const DENY: i32 = 0;
const TCP: u16 = 6;
const UDP: u16 = 17;
/// `SOCK_STREAM`.
const STREAM: u32 = 1;

/// `cgroup/connect4`.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    judge4(&ctx, Access::Helper)
}

/// `cgroup/connect6`; IPv4-mapped addresses come here.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    judge6(&ctx, Access::Helper)
}

/// `cgroup/sendmsg4`: a datagram from an unconnected socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    judge4(&ctx, Access::Helper)
}

/// `cgroup/sendmsg6`.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    judge6(&ctx, Access::Helper)
}

/// [`connect4`], by the other way.
#[cgroup_sock_addr(connect4)]
pub fn connect4_memory(ctx: SockAddrContext) -> i32 {
    judge4(&ctx, Access::Memory)
}

/// [`connect6`], by the other way.
#[cgroup_sock_addr(connect6)]
pub fn connect6_memory(ctx: SockAddrContext) -> i32 {
    judge6(&ctx, Access::Memory)
}

/// [`sendmsg4`], by the other way.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4_memory(ctx: SockAddrContext) -> i32 {
    judge4(&ctx, Access::Memory)
}

/// [`sendmsg6`], by the other way.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6_memory(ctx: SockAddrContext) -> i32 {
    judge6(&ctx, Access::Memory)
}

#[inline(always)]
fn judge4(ctx: &SockAddrContext, access: Access) -> i32 {
    // SAFETY: the program's own context.
    unsafe {
        let address = [0, 0, 0x0000_ffff_u32.to_be(), (*ctx.sock_addr).user_ip4];
        judge(&*ctx.sock_addr, address, access)
    }
}

#[inline(always)]
fn judge6(ctx: &SockAddrContext, access: Access) -> i32 {
    // SAFETY: the program's own context.
    unsafe { judge(&*ctx.sock_addr, address6(ctx.sock_addr), access) }
}

#[inline(always)]
unsafe fn address6(ctx: *const bpf_sock_addr) -> [u32; 4] {
    // SAFETY: four reads of the program's own context, a word each, as the verifier demands.
    unsafe {
        let words = (&raw const (*ctx).user_ip6).cast::<u32>();
        [
            core::ptr::read_volatile(words),
            core::ptr::read_volatile(words.add(1)),
            core::ptr::read_volatile(words.add(2)),
            core::ptr::read_volatile(words.add(3)),
        ]
    }
}

#[inline(always)]
fn judge(ctx: &bpf_sock_addr, address: [u32; 4], access: Access) -> i32 {
    let task = current();
    let mut context = nothing();
    // SAFETY: the running task.
    if !unsafe { context_by(access, task, &mut context) } {
        return PASS;
    }
    // SAFETY: volatile, for the verifier wants each field read at its own width.
    let port = unsafe { core::ptr::read_volatile(&raw const ctx.user_port) };
    let stream = unsafe { core::ptr::read_volatile(&raw const ctx.type_) } == STREAM;
    let flow = ConnectData {
        service: context.service,
        port: u16::from_be(port as u16),
        protocol: if stream { TCP } else { UDP },
        // SAFETY: same size, no padding.
        address: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(address) },
    };
    if denied(task, &context, flow) {
        DENY
    } else {
        PASS
    }
}

/// Judges and reports a flow of the running `task`.
#[inline(always)]
pub fn denied(task: Task, context: &TaskContext, flow: ConnectData) -> bool {
    let Some(settings) = settings() else {
        return false;
    };
    let mut has_room_left = has_room(Room::Harmless);
    let decision = if allowed(flow) {
        DECISION_ALLOWED
    } else if effective_mode(settings) == MODE_ENFORCE && has_profile(context.service) {
        count(Counter::Denied);
        has_room_left = has_room(Room::Refused);
        DECISION_DENIED
    } else {
        DECISION_OBSERVED
    };
    let is_reported = has_room_left && report(task, context, &flow, decision);
    if !is_reported {
        count(Counter::LostConnect);
    }
    let is_denied = decision == DECISION_DENIED;
    if is_denied {
        note_stop(is_reported);
    }
    is_denied
}

/// Whether there was room for it.
#[inline(always)]
fn report(task: Task, context: &TaskContext, flow: &ConnectData, decision: u8) -> bool {
    let denied = decision == DECISION_DENIED;
    let Some(mut entry) = EVENTS.reserve_untyped::<Connect>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: room for a whole record, every field of which is written; the running task.
    unsafe {
        (*record).header = header(KIND_CONNECT, member(task, offset!(task_pid)));
        (*record).context = *context;
        (*record).address = flow.address;
        (*record).port = flow.port;
        (*record).protocol = flow.protocol;
        (*record).pid = member(task, offset!(task_tgid));
        (*record).comm = bpf_get_current_comm().unwrap_or([0; 16]);
        (*record).decision = decision;
        (*record).pad = [0; 7];
    }
    entry.submit(if denied { Urgency::Now } else { Urgency::Later }.flags());
    true
}

/// Whether the list has the flow, for its service or any, on its port or any.
#[inline(always)]
fn allowed(flow: ConnectData) -> bool {
    let mut key = Key::new(CONNECT_FIXED_BITS + 128, flow);
    let mut found = CONNECT_ALLOW.get(&key).is_some();
    key.data.port = 0;
    found |= CONNECT_ALLOW.get(&key).is_some();
    key.data.service = SERVICE_ANY;
    found |= CONNECT_ALLOW.get(&key).is_some();
    key.data.port = flow.port;
    found | CONNECT_ALLOW.get(&key).is_some()
}

#[inline(always)]
fn has_profile(service: u32) -> bool {
    SERVICES
        .get(service)
        .is_some_and(|service| service.has_profile != 0)
}
