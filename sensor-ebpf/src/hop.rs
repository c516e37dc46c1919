//! Hop: a request goes on to another process of this host, through a unix socket.
//!
//! Web servers hand requests to application servers, as HTTP or as FastCGI, where the token's header has
//! become a parameter (RFC 3875, 4.1.18). The hook is where a read has returned: what was read lies in the
//! reader's memory. It has no way round and no gap, unlike the sender's side, where the reader may be
//! faster than the program.
//!
//! Only where a request can begin is a token looked for, and the first is the one that the proxy wrote:
//! what a client sends comes behind it. A request can begin on a connection that has none yet, or whose
//! last was answered: a body may look like anything.

use core::ffi::c_void;

use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use clew_sensor_abi::socket::{HOP_BEGUN, HOP_IDLE, HOP_PARAMETERS, HopContext};

use crate::bind::{Work, carry_on, enter, estrange, take_up};
use crate::kernel::{Task, member, probe};
use crate::maps::{
    HOP_SCRATCH, HOP_WINDOW, HopScratch, hop_context, offset, settings, task_context,
};
use crate::registers::buffer;
use crate::task::current;
use crate::token::{Counts, LINE_BYTES, Match, PARAMETER, compare, is_parameter, redeem};
use clew_sensor_abi::record::HOP_SOCKET;
use clew_sensor_abi::{TOKEN_DIGITS, TOKEN_LINE};

/// `AF_UNIX` and `SOCK_STREAM`.
const UNIX: u16 = 1;
const STREAM: u16 = 1;
const MSG_PEEK: i32 = 2;

/// Bytes looked at to tell what begins here.
const START: u32 = 32;
/// Bytes of a FastCGI record's head, and of the record that begins a request (FastCGI 1.0, 3.3 and 5.1).
const RECORD_HEAD: u32 = 8;
const BEGIN_RECORD: u32 = 16;
const VERSION: u8 = 1;
const BEGIN_REQUEST: u8 = 1;
const PARAMS: u8 = 4;

/// Most parameters, or stretches of a head, looked at.
const STEPS: u32 = 256;
/// Bytes of a head searched at once for the end of a line.
const STRETCH: u32 = 64;

/// A request does not come in at a unix socket.
const AGAIN: Counts = Counts {
    fresh: false,
    again: true,
};

const CONTINUE: c_long = 0;
const STOP: c_long = 1;

/// `tp_btf/sock_recv_length` (sk, ret, flags), since Linux 6.3: the current task has taken bytes from a
/// socket.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn hop(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's own socket.
    unsafe { has_read(ctx.arg(0), ctx.arg(1), ctx.arg(2)) }
}

/// `fexit/unix_stream_recvmsg` (sock, msg, size, flags, ret): the same, where there is no such tracepoint.
#[fexit(function = "unix_stream_recvmsg")]
pub fn hop_exit(ctx: FExitContext) -> i32 {
    // SAFETY: the function's own socket.
    unsafe {
        has_read(
            member(ctx.arg(0), offset!(socket_sk)),
            ctx.arg(4),
            ctx.arg(3),
        )
    }
}

/// # Safety
///
/// `sk` is a socket the verifier knows.
#[inline(always)]
unsafe fn has_read(sk: *mut c_void, length: i32, flags: i32) -> i32 {
    // SAFETY: the caller's word; the running task.
    unsafe {
        if length > 0 && flags & MSG_PEEK == 0 && is_unix_stream(sk) {
            inspect(sk, current(), length as u32);
        }
    }
    0
}

/// `tp_btf/sock_send_length` (sk, ret, flags), since Linux 6.3: the current task has written to a socket.
/// What it wrote to the one that it has a request from is the answer.
#[btf_tracepoint(function = "sock_send_length")]
pub fn answer(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the tracepoint's own socket.
    unsafe { has_written(ctx.arg(0), ctx.arg(1)) }
}

/// `fexit/unix_stream_sendmsg` (sock, msg, size, ret): the same, where there is no such tracepoint.
#[fexit(function = "unix_stream_sendmsg")]
pub fn answer_exit(ctx: FExitContext) -> i32 {
    // SAFETY: the function's own socket.
    unsafe { has_written(member(ctx.arg(0), offset!(socket_sk)), ctx.arg(3)) }
}

/// # Safety
///
/// `sk` is a socket the verifier knows.
#[inline(always)]
unsafe fn has_written(sk: *mut c_void, length: i32) -> i32 {
    // SAFETY: the caller's word; the running task.
    unsafe {
        if length > 0
            && is_unix_stream(sk)
            && let Some(connection) = hop_context(sk, false)
        {
            connection.answered = 1;
            if let Some(own) = task_context(current(), false)
                && own.socket == name_of(sk)
            {
                own.socket = 0;
            }
        }
    }
    0
}

/// # Safety
///
/// `sk` is a socket the verifier knows.
#[inline(always)]
unsafe fn is_unix_stream(sk: *mut c_void) -> bool {
    // SAFETY: members of the socket.
    unsafe {
        member::<u16>(sk, offset!(sock_common_skc_family)) == UNIX
            && member::<u16>(sk, offset!(sock_sk_type)) == STREAM
    }
}

/// Whether the socket was accepted. Those have their listener's name; a client's has none, and what comes in
/// there is a response, whatever it looks like.
///
/// # Safety
///
/// `sk` is a unix socket.
#[inline(always)]
unsafe fn is_server(sk: *mut c_void) -> bool {
    // SAFETY: the caller's word.
    unsafe { probe::<u64>(sk, offset!(unix_sock_addr)) != 0 }
}

/// Where in what was read a request's token may be.
enum Begins {
    /// Nowhere: something goes on.
    Nothing,
    /// Parameters start here.
    Parameters(u32),
    /// A head.
    Head,
}

/// # Safety
///
/// `task` is the running task, and has read `length` bytes from `sk`.
#[inline(always)]
unsafe fn inspect(sk: *mut c_void, task: Task, length: u32) {
    // SAFETY: the caller's word.
    unsafe {
        let known = hop_context(sk, false);
        let is_open = known
            .as_ref()
            .is_none_or(|it| it.sequence == 0 || it.answered != 0);
        if !is_open {
            if let Some(connection) = known {
                carry_on(task, &work_of(sk, connection));
            }
            return;
        }
        let Some((at, room)) = buffer(task) else {
            return;
        };
        let have = if length < room { length } else { room };
        let before = known.as_ref().map_or(HOP_IDLE, |it| it.stage);
        let Some(scratch) = HOP_SCRATCH.get_ptr_mut(0) else {
            return;
        };
        let (begins, after) = look(scratch, at, have, before);
        if after != before
            && let Some(connection) = hop_context(sk, true)
        {
            connection.stage = after;
        }
        let (from, callback) = match begins {
            Begins::Nothing => return,
            Begins::Parameters(from) => (from, parameter as *mut c_void),
            Begins::Head => (0, line as *mut c_void),
        };
        if !is_server(sk) {
            return;
        }
        let end = load::<HOP_WINDOW>(scratch, at, have);
        core::ptr::write_volatile(&raw mut (*scratch).at, from);
        core::ptr::write_volatile(&raw mut (*scratch).end, end);
        core::ptr::write_volatile(&raw mut (*scratch).found, 0);
        let mut search = Search { scratch };
        bpf_loop(STEPS, callback, (&raw mut search).cast(), 0);
        let found = core::ptr::read_volatile(&raw const (*scratch).found);
        let token = match settings() {
            Some(settings) if found != 0 => redeem(window(scratch, found), settings, AGAIN),
            _ => None,
        };
        let Some(token) = token else {
            return estrange(task, true);
        };
        let Some(connection) = hop_context(sk, true) else {
            return;
        };
        connection.sequence = token.sequence;
        connection.service = token.service.into();
        connection.answered = 0;
        let work = work_of(sk, connection);
        if let Some((process, reader)) = take_up(task, &work, 0) {
            enter(token.sequence, process, &reader);
        }
    }
}

/// What stands for a unix socket in a task's context. (The verifier knows no "or" of a pointer.)
#[inline(always)]
fn name_of(sk: *mut c_void) -> u64 {
    (sk as u64).wrapping_add(HOP_SOCKET)
}

#[inline(always)]
fn work_of(sk: *mut c_void, connection: &HopContext) -> Work {
    Work {
        sequence: connection.sequence,
        service: connection.service,
        written: 0,
        socket: name_of(sk),
    }
}

/// Tells what begins at `at`, where `have` bytes have been read, after what came `before` on the
/// connection; and what is expected next.
///
/// # Safety
///
/// `scratch` is this CPU's own.
#[inline(always)]
unsafe fn look(scratch: *mut HopScratch, at: u64, have: u32, before: u8) -> (Begins, u8) {
    if before == HOP_PARAMETERS {
        return (Begins::Parameters(0), HOP_IDLE);
    }
    // SAFETY: the caller's word.
    let size = unsafe { load::<START>(scratch, at, have) };
    let start = Start(scratch.cast(), size);
    let record = |at| (start.byte(at) == VERSION).then(|| start.byte(at + 1));
    match record(0) {
        Some(BEGIN_REQUEST) if have > BEGIN_RECORD + RECORD_HEAD => {
            if record(BEGIN_RECORD) == Some(PARAMS) {
                return (Begins::Parameters(BEGIN_RECORD + RECORD_HEAD), HOP_IDLE);
            }
            (Begins::Nothing, HOP_IDLE)
        }
        Some(BEGIN_REQUEST) if have == BEGIN_RECORD + RECORD_HEAD => {
            (Begins::Nothing, HOP_PARAMETERS)
        }
        Some(BEGIN_REQUEST) => (Begins::Nothing, HOP_BEGUN),
        Some(PARAMS) if before == HOP_BEGUN && have > RECORD_HEAD => {
            (Begins::Parameters(RECORD_HEAD), HOP_IDLE)
        }
        Some(PARAMS) if before == HOP_BEGUN => (Begins::Nothing, HOP_PARAMETERS),
        _ if is_request_line(&start) => (Begins::Head, HOP_IDLE),
        _ => (Begins::Nothing, before),
    }
}

/// A method (RFC 9110, 9.1; all that are in use are capitals), a space, and a target.
#[inline(always)]
fn is_request_line(start: &Start) -> bool {
    let mut at = 0;
    while at < START - 2 {
        let byte = start.byte(at);
        if !byte.is_ascii_uppercase() {
            return at > 0 && byte == b' ' && matches!(start.byte(at + 1), b'/' | b'*' | b'h');
        }
        at += 1;
    }
    false
}

/// The first [`START`] bytes of what was read, or as many as there are.
struct Start(*const u8, u32);

impl Start {
    /// The byte at `at`, below [`START`]; 0 where there is none.
    #[inline(always)]
    fn byte(&self, at: u32) -> u8 {
        if at >= self.1 {
            return 0;
        }
        // SAFETY: inside the window.
        unsafe { core::ptr::read_volatile(self.0.add(at as usize)) }
    }
}

/// Copies the start of what was read to this CPU's window, up to `MOST` bytes; how many.
///
/// # Safety
///
/// `scratch` is this CPU's own.
#[inline(always)]
unsafe fn load<const MOST: u32>(scratch: *mut HopScratch, at: u64, have: u32) -> u32 {
    const { assert!(MOST.is_power_of_two()) };
    let last = if have < MOST { have } else { MOST }.wrapping_sub(1);
    if last >= MOST {
        return 0;
    }
    // SAFETY: this CPU's own element; see `Scratch::last`. Masked, for Linux 6.1 forgets what was compared.
    let last = unsafe {
        core::ptr::write_volatile(&raw mut (*scratch).last, last);
        core::ptr::read_volatile(&raw const (*scratch).last) & (MOST - 1)
    };
    let size = last + 1;
    // SAFETY: no more than there is room for; the helper checks the address.
    let failed = unsafe { bpf_probe_read_user(scratch.cast(), size, at as *const c_void) };
    if failed == 0 { size } else { 0 }
}

/// The byte at `at` of the window, and at least 64 behind it.
#[inline(always)]
fn window(scratch: *mut HopScratch, at: u32) -> *mut u8 {
    // SAFETY: the window is longer than that by 64 bytes.
    unsafe { scratch.cast::<u8>().add((at & (HOP_WINDOW - 1)) as usize) }
}

/// State of one search. Its position is in the scratch, for the verifier's sake: see `Scratch`.
struct Search {
    scratch: *mut HopScratch,
}

impl Search {
    #[inline(always)]
    fn at_and_end(&self) -> (u32, u32) {
        // SAFETY: this CPU's own element.
        unsafe {
            (
                core::ptr::read_volatile(&raw const (*self.scratch).at),
                core::ptr::read_volatile(&raw const (*self.scratch).end),
            )
        }
    }

    #[inline(always)]
    fn move_to(&self, at: u32) {
        // SAFETY: this CPU's own element.
        unsafe { core::ptr::write_volatile(&raw mut (*self.scratch).at, at) }
    }

    #[inline(always)]
    fn find(&self, digits: u32) {
        // SAFETY: this CPU's own element.
        unsafe { core::ptr::write_volatile(&raw mut (*self.scratch).found, digits) }
    }
}

/// One parameter (FastCGI 1.0, 3.4).
#[inline(never)]
extern "C" fn parameter(_: u32, search: *mut Search) -> c_long {
    // SAFETY: bpf_loop passes what `inspect` gave it.
    let search = unsafe { &*search };
    let (at, end) = search.at_and_end();
    if at >= end {
        return STOP;
    }
    let (name, at) = length_at(search.scratch, at);
    let (value, at) = length_at(search.scratch, at);
    // One that does not fit the window hides all that comes behind it.
    if name > HOP_WINDOW || value > HOP_WINDOW {
        return STOP;
    }
    let is_ours = name == PARAMETER.len() as u32
        && value == TOKEN_DIGITS as u32
        && at + name + value <= end
        // SAFETY: the window is longer than that by 64 bytes.
        && unsafe { is_parameter(window(search.scratch, at)) };
    if is_ours {
        search.find(at + name);
        return STOP;
    }
    search.move_to(at + name + value);
    CONTINUE
}

/// The length that is written at `at`, and where what follows it starts.
#[inline(always)]
fn length_at(scratch: *mut HopScratch, at: u32) -> (u32, u32) {
    let bytes = window(scratch, at);
    // SAFETY: inside the window; volatile, one by one: the verifier takes them for what they are.
    unsafe {
        let byte = |nth: usize| u32::from(core::ptr::read_volatile(bytes.add(nth)));
        if byte(0) < 0x80 {
            return (byte(0), at + 1);
        }
        let long = (byte(0) & 0x7f) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
        (long, at + 4)
    }
}

/// One stretch of a head, up to the end of a line.
#[inline(never)]
extern "C" fn line(_: u32, search: *mut Search) -> c_long {
    // SAFETY: bpf_loop passes what `inspect` gave it.
    let search = unsafe { &*search };
    let (at, end) = search.at_and_end();
    if at >= end {
        return STOP;
    }
    let stretch = window(search.scratch, at);
    let mut nth = 0;
    // SAFETY: inside the window.
    while nth < STRETCH && unsafe { core::ptr::read_volatile(stretch.add(nth as usize)) } != b'\n' {
        nth += 1;
    }
    let feed = at + nth;
    if nth == STRETCH {
        search.move_to(feed);
        return CONTINUE;
    }
    let next = window(search.scratch, feed);
    // SAFETY: LINE_BYTES are fewer than 64.
    if let Match::Whole = unsafe { compare(next, end.saturating_sub(feed)) } {
        search.find(feed + TOKEN_LINE.len() as u32);
        return STOP;
    }
    // SAFETY: as above.
    let is_last = matches!(
        unsafe { core::ptr::read_volatile(next.add(1)) },
        b'\r' | b'\n'
    );
    search.move_to(feed + 1);
    if is_last { STOP } else { CONTINUE }
}

const _: () = assert!(LINE_BYTES < 64 && PARAMETER.len() + TOKEN_DIGITS < 64);
