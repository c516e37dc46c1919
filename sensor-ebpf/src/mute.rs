//! Mute: what a condemned request answers does not leave; what a held one answers waits.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use clew_sensor_abi::policy::MARK_CONDEMNED;
use clew_sensor_abi::settings::Counter;

use crate::maps::{count, mark_of, reading_of, socket_context};
use crate::packet::Segment;
use crate::report::now;
use clew_sensor_abi::socket::{Read, SocketContext};

const PASS: i32 = 1;
const DROP: i32 = 0;

/// `cgroup_skb/egress`: drops payload and FIN of a muted response. RST and bare ACK pass, so
/// the proxy can close and neither end hangs.
#[cgroup_skb]
pub fn mute(ctx: SkBuffContext) -> i32 {
    match Segment::of(&ctx) {
        Some(segment) if segment.len > 0 || segment.fin => judge(&ctx, segment),
        _ => PASS,
    }
}

#[inline(always)]
fn judge(ctx: &SkBuffContext, segment: Segment) -> i32 {
    // SAFETY: the context's own socket, checked for null.
    let socket = unsafe {
        let sk = (*ctx.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return PASS;
        }
        socket_context(sk.cast(), false)
    };
    let Some(SocketContext { read: socket, .. }) = socket else {
        return PASS;
    };
    let sequence = socket.current;
    if sequence == 0 {
        return PASS;
    }
    if is_new(socket, segment) {
        note_answer(sequence);
    }
    if is_muted(sequence) {
        count(Counter::Muted);
        return DROP;
    }
    PASS
}

/// Whether the segment has payload that was not handed down before. What TCP sends again, after a
/// loss or a hold, says nothing about when the backend answered.
#[inline(always)]
fn is_new(socket: &mut Read, segment: Segment) -> bool {
    let end = segment.seq.wrapping_add(segment.len);
    let seen = socket.sent_any != 0 && end.wrapping_sub(socket.sent) as i32 <= 0;
    if segment.len == 0 || seen {
        return false;
    }
    socket.sent = end;
    socket.sent_any = 1;
    true
}

#[inline(always)]
fn is_muted(sequence: u64) -> bool {
    match mark_of(sequence) {
        Some(mark) => mark.state == MARK_CONDEMNED || now() < mark.until,
        None => false,
    }
}

/// Notes in the ledger that an answer leaves, and whether it is late: its thread has read another
/// request since.
#[inline(always)]
fn note_answer(sequence: u64) {
    let Some(reading) = reading_of(sequence) else {
        return;
    };
    let flags = &mut reading.flags;
    // What is set stays: a response of many segments writes once.
    if flags.answered == 0 {
        flags.answered = 1;
    }
    if flags.superseded != 0 && flags.interleaved == 0 {
        flags.interleaved = 1;
    }
}
