//! Send: what a backend asks of another service it asks for the request that the asking task carries.
//!
//! Where a header with the token goes along, that says so. Where none does, there is the connection: what a
//! backend opens is noted, and with each sending who sends, before a byte of it leaves. Who receives it finds
//! the note ([`crate::tag`]). A message is followed as a fork is.
//!
//! TCP asks for room for options of a program's own when it is about to be given what it is to send, and once more
//! before each segment; the program is called on the sockets that it has asked for it, and adds none. Those are
//! what a backend connects, and what was connected before the programs were there.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG,
};
use aya_ebpf::helpers::generated::{
    bpf_getsockopt, bpf_seq_write, bpf_setsockopt, bpf_skc_to_tcp_sock,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use clew_sensor_abi::record::STRENGTH_READER;
use clew_sensor_abi::settings::Counter;
use clew_sensor_abi::socket::Sender;

use crate::kernel::member;
use crate::maps::{count, offset, sender, socket_context};
use crate::task::{Access, context_by, current, nothing};

const DONE: u32 = 1;
/// What the kernel is told that asks for a number: as if there were no program.
const DEFAULT: u32 = u32::MAX;
/// What TCP says when it asks before it has a segment (`include/uapi/linux/bpf.h`).
const BPF_WRITE_HDR_TCP_CURRENT_MSS: u32 = 1;
/// `IPPROTO_TCP`, and its option for the flags.
const TCP: i32 = 6;
const TCP_BPF_SOCK_OPS_CB_FLAGS: i32 = 1008;
/// `TCP_ESTABLISHED` and `TCP_CLOSE_WAIT` of `include/net/tcp_states.h`.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

/// `cgroup/sock_ops`.
#[sock_ops]
pub fn send(ctx: SockOpsContext) -> u32 {
    follow(&ctx, Access::Helper)
}

/// [`send`], by the other way.
#[sock_ops]
pub fn send_memory(ctx: SockOpsContext) -> u32 {
    follow(&ctx, Access::Memory)
}

#[inline(always)]
fn follow(ctx: &SockOpsContext, access: Access) -> u32 {
    let op = ctx.op();
    // SAFETY: the program's own context.
    let sk: *mut c_void = unsafe { (*ctx.ops).__bindgen_anon_2.sk }.cast();
    if sk.is_null() {
        return DONE;
    }
    if op == BPF_SOCK_OPS_HDR_OPT_LEN_CB {
        let is_segment = ctx.arg(0) != BPF_WRITE_HDR_TCP_CURRENT_MSS;
        // SAFETY: the context's own socket.
        if !is_segment && !unsafe { note(sk, false, access) } {
            let flags = ctx.cb_flags() & !BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
            let _ = ctx.set_cb_flags(flags as i32);
        }
    } else if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        // SAFETY: as above.
        if unsafe { note(sk, true, access) } {
            let flags = ctx.cb_flags() | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
            let _ = ctx.set_cb_flags(flags as i32);
        }
    } else {
        ctx.set_reply(DEFAULT);
    }
    DONE
}

/// The head of what the kernel hands to programs that look at its TCP sockets (`net/ipv4/tcp_ipv4.c`).
#[repr(C)]
pub struct Visit {
    meta: *mut c_void,
    sk_common: *mut c_void,
}

/// `iter/tcp`: a socket that was there before the programs. Where the kernel refuses to choose it, something is
/// written.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub fn adopt(ctx: *mut Visit) -> i32 {
    // SAFETY: the program's own context; a socket the verifier knows, locked.
    unsafe {
        let sk = (&raw const (*ctx).sk_common).read_volatile();
        if sk.is_null() {
            return 0;
        }
        let state: u8 = member(sk, offset!(sock_common_skc_state));
        let tcp: *mut c_void = bpf_skc_to_tcp_sock(sk).cast();
        if tcp.is_null() || !matches!(state, ESTABLISHED | CLOSE_WAIT) {
            return 0;
        }
        let mut flags = 0u32;
        let at = (&raw mut flags).cast::<c_void>();
        bpf_getsockopt(tcp, TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, at, 4);
        *at.cast::<u32>() |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
        if bpf_setsockopt(tcp, TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, at, 4) != 0 {
            // The loader reads it.
            let meta = (&raw const (*ctx).meta).read_volatile();
            bpf_seq_write(
                member(meta, offset!(iter_meta_seq)),
                c"no".as_ptr().cast(),
                2,
            );
        }
    }
    0
}

/// Notes for whom is sent from now on; with `first` only if that is known. Whether it has to be told again.
///
/// Who holds the socket's lock is the running task: what comes in meanwhile waits for it.
///
/// # Safety
///
/// `sk` is a socket the verifier knows.
#[inline(always)]
unsafe fn note(sk: *mut c_void, first: bool, access: Access) -> bool {
    // SAFETY: the caller's word; the helper checks the socket's type.
    let (is_held, written) = unsafe {
        let tcp: *mut c_void = bpf_skc_to_tcp_sock(sk).cast();
        if tcp.is_null() {
            return false;
        }
        (
            member::<i32>(tcp, offset!(sock_sk_lock_owned)) != 0,
            member::<u32>(tcp, offset!(tcp_sock_write_seq)),
        )
    };
    if !is_held {
        return true;
    }
    let mut context = nothing();
    // SAFETY: the running task.
    let is_known = unsafe { context_by(access, current(), &mut context) };
    if first && !is_known {
        return false;
    }
    // SAFETY: the caller's word.
    let Some(noted) = (unsafe { noted_at(sk, is_known) }) else {
        return !is_known;
    };
    // What the thread has read itself, one after the other, no stranger had a part in.
    let is_certain = context.strength == STRENGTH_READER && context.overlaps == 0;
    let now = Sender {
        turn: noted.turn,
        since: noted.since,
        sequence: context.sequence,
        service: context.service,
        tgid: context.backend.tgid,
        stranger: if is_certain { 0 } else { context.stranger },
        strength: context.strength,
        pad: [0; 3],
    };
    if noted.sequence == now.sequence
        && noted.tgid == now.tgid
        && noted.strength == now.strength
        && noted.stranger == now.stranger
    {
        return true;
    }
    let to = &raw mut *noted;
    // SAFETY: words of a map value, in the order that its reader relies on.
    unsafe {
        (&raw mut (*to).turn).write_volatile(now.turn.wrapping_add(1));
        (&raw mut (*to).since).write_volatile(written);
        (&raw mut (*to).sequence).write_volatile(now.sequence);
        (&raw mut (*to).service).write_volatile(now.service);
        (&raw mut (*to).tgid).write_volatile(now.tgid);
        (&raw mut (*to).stranger).write_volatile(now.stranger);
        (&raw mut (*to).strength).write_volatile(now.strength);
        (&raw mut (*to).turn).write_volatile(now.turn.wrapping_add(2));
    }
    true
}

/// The note at `sk`; `create` makes one, but not where requests come in: what is sent there are responses.
///
/// # Safety
///
/// `sk` is a socket the verifier knows.
#[inline(always)]
unsafe fn noted_at(sk: *mut c_void, create: bool) -> Option<&'static mut Sender> {
    // SAFETY: the caller's word.
    unsafe {
        let known = sender(sk, false);
        if known.is_some() || !create || socket_context(sk, false).is_some() {
            return known;
        }
        let made = sender(sk, true);
        if made.is_none() {
            count(Counter::NoStorage);
        }
        made
    }
}
