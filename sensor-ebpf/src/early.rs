//! Early: a request that arrives before its connection has a socket.
//!
//! With `TCP_DEFER_ACCEPT` (Apache's default), or when the client's ACK got lost, it is the first data
//! that completes the handshake: `cgroup_skb` sees it with the listener's socket, and the connection's
//! own is made afterwards. What was found is kept by the connection's addresses until then.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::programs::SkBuffContext;
use clew_sensor_abi::settings::Counter;
use clew_sensor_abi::socket::{Arrived, Flow, SocketContext};

use crate::kernel::member;
use crate::maps::{EARLY, EARLY_SEEN, SPARE, count, offset, socket_context};
use crate::packet::addresses;
use crate::report::now;

/// `AF_INET6`.
const INET6: u16 = 10;
/// First word but one of an IPv4 address mapped into IPv6.
const MAPPED: u32 = 0xffff_u32.to_be();
/// A segment further off than this is of another connection with the same addresses.
const WINDOW_BYTES: u32 = 1 << 20;

/// Whether anything ever was early; nearly no host has such listeners.
#[inline(always)]
pub fn any() -> bool {
    // SAFETY: an element of an array map, read once.
    EARLY_SEEN
        .get_ptr(0)
        .is_some_and(|seen| unsafe { seen.read_volatile() } != 0)
}

/// What is kept of the connection whose first data the packet brings to the listener `sk`; `fresh`
/// writes it when there is nothing yet. `None`: there is no room, and the packet must come again.
#[inline(always)]
pub fn arriving(
    ctx: &SkBuffContext,
    sk: *mut c_void,
    seq: u32,
    fresh: impl FnOnce(&mut Arrived),
) -> Option<&'static mut Arrived> {
    // SAFETY: the context's own socket; the helper checks its type.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
    if tcp.is_null() {
        return None;
    }
    let (peer, local, ports) = addresses(ctx)?;
    let flow = Flow {
        // SAFETY: a tcp_sock the verifier knows.
        net: unsafe { member(tcp.cast(), offset!(sock_common_skc_net)) },
        peer,
        local,
        peer_port: ports.0,
        local_port: u16::from_be(ports.1),
        pad: 0,
    };
    if let Some(early) = EARLY.get_ptr_mut(flow) {
        // SAFETY: a map value; nobody else has this connection's packets at the same time.
        let socket = unsafe { &mut (*early).socket.arrived };
        if socket.next_seq.wrapping_sub(seq).wrapping_add(WINDOW_BYTES) <= 2 * WINDOW_BYTES {
            return Some(socket);
        }
        let _ = EARLY.remove(flow);
    }
    let spare = SPARE.get_ptr_mut(0)?;
    // SAFETY: this CPU's own element; integers only.
    unsafe {
        core::ptr::write_bytes(spare, 0, 1);
        (*spare).at = now();
        fresh(&mut (*spare).socket.arrived);
        if EARLY.insert(flow, &*spare, 0).is_err() {
            count(Counter::NoStorage);
            return None;
        }
    }
    let _ = EARLY_SEEN.set(0, 1, 0);
    // SAFETY: as above.
    EARLY
        .get_ptr_mut(flow)
        .map(|early| unsafe { &mut (*early).socket.arrived })
}

/// Gives the connected socket `sk` what arrived before it was there.
///
/// # Safety
///
/// `sk` is a socket pointer the verifier knows.
#[inline(always)]
pub unsafe fn adopt(sk: *mut c_void) -> Option<&'static mut SocketContext> {
    // SAFETY: the caller's word; a tcp_sock the verifier knows afterwards.
    unsafe {
        let tcp: *const c_void = bpf_skc_to_tcp_sock(sk).cast();
        if tcp.is_null() {
            return None;
        }
        let flow = flow_of(tcp);
        let early = EARLY.get_ptr(flow)?;
        let Some(socket) = socket_context(sk, true) else {
            count(Counter::NoStorage);
            return None;
        };
        *socket = (*early).socket;
        let _ = EARLY.remove(flow);
        Some(socket)
    }
}

/// # Safety
///
/// `tcp` is a `tcp_sock` the verifier knows.
#[inline(always)]
unsafe fn flow_of(tcp: *const c_void) -> Flow {
    // SAFETY: members of the right type; `struct sock` starts with `struct sock_common`.
    unsafe {
        let word = |offset: usize| member::<u32>(tcp, offset);
        let words = |offset: usize| {
            [
                word(offset),
                word(offset + 4),
                word(offset + 8),
                word(offset + 12),
            ]
        };
        let family: u16 = member(tcp, offset!(sock_common_skc_family));
        let (peer, local) = if family == INET6 {
            (
                words(offset!(sock_common_skc_v6_daddr)),
                words(offset!(sock_common_skc_v6_rcv_saddr)),
            )
        } else {
            (
                [0, 0, MAPPED, word(offset!(sock_common_skc_daddr))],
                [0, 0, MAPPED, word(offset!(sock_common_skc_rcv_saddr))],
            )
        };
        Flow {
            net: member(tcp, offset!(sock_common_skc_net)),
            peer,
            local,
            peer_port: member(tcp, offset!(sock_common_skc_dport)),
            local_port: member(tcp, offset!(sock_common_skc_num)),
            pad: 0,
        }
    }
}
