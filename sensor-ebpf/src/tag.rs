//! Tag: finds the token line in what arrives at a backend's socket.
//!
//! Every byte of a tagged connection is searched for a line feed and an `x`, eight at a time;
//! what follows decides. So heads may be split or pipelined in any way and bodies may hold
//! anything: only a token with a valid MAC, never seen before, counts.
//!
//! A connection that has never carried a token is searched only from a segment that starts like
//! a method (a capital letter) to the end of the line after it; or, where no service is entered, to the end of
//! the head: what a service does with a request may be to send it on, with header lines of its own before
//! the token's. Connections of that kind are never searched but there, and not before anything was sent back:
//! a body cannot pass for a head.
//!
//! A head without a token that a backend has sent ([`crate::send`]) is of the request that the sender carries.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes, bpf_tcp_sock};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use clew_sensor_abi::TOKEN_LINE;
use clew_sensor_abi::record::{STRENGTH_NONE, STRENGTH_PROCESS};
use clew_sensor_abi::settings::Counter;

use crate::early;
use crate::maps::{
    ANNOUNCED, PORTS, SCRATCH, Scratch, count, is_front, sender, settings, socket_context,
};
use crate::packet::{LISTEN, Segment, addresses, at_sender, is_for_listener};
use crate::token::{Counts, LINE_BYTES, Match, Redeemed, compare, redeem, redeem_announced};
use clew_sensor_abi::socket::{
    Arrival, Arrived, CARRY, Ends, LINE_FIRST, LINE_HEAD, LINE_LATER, LINE_NONE, PORT_OPAQUE,
    QUEUE, SEQUENCE, SIDE_CLIENT, SIDE_OPAQUE, SIDE_SERVER, SIDE_UNKNOWN, Sender, SocketContext,
    UNANNOUNCED,
};

/// Bytes searched per step.
const STEP: u32 = 128;
/// Bytes a step wants to see: a token line may start at the last one searched.
const SEEN: u32 = STEP + 56;
/// Bytes of a window in which a step may start.
const STARTS: u32 = 512;
/// Bytes loaded at once: as many as keep what a step sees inside.
const LOAD: u32 = STARTS + 56;
/// Most steps per segment: enough when every two bytes of half a megabyte, the most that "BIG TCP"
/// puts into one, look like the start of a token line.
const STEPS: u32 = 1 << 18;

/// What a response starts with (RFC 9112, 4), and no request: a method has no slash.
const RESPONSE: &[u8; 5] = b"HTTP/";

const PASS: i32 = 1;
const DROP: i32 = 0;

/// `cgroup_skb/ingress`.
#[cgroup_skb]
pub fn tag(ctx: SkBuffContext) -> i32 {
    match Segment::of(&ctx) {
        Some(segment) if segment.len > 0 => inspect(&ctx, segment),
        _ => PASS,
    }
}

#[inline(always)]
fn inspect(ctx: &SkBuffContext, segment: Segment) -> i32 {
    // SAFETY: the context's own socket.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: a socket; what is not a full one has no storage.
    let known = unsafe { arrived_of(sk, false) };
    let socket = match known {
        Some(socket) if socket.side == SIDE_OPAQUE => {
            announced(ctx, socket, segment);
            return PASS;
        }
        Some(socket) if is_followed(socket) => socket,
        known => match first_look(ctx, sk, segment, known) {
            First::Followed(socket) => socket,
            First::Verdict(verdict) => return verdict,
        },
    };
    let unseen = socket.next_seq.wrapping_sub(segment.seq);
    if unseen as i32 > 0 && unseen >= segment.len {
        return PASS;
    }
    if (unseen as i32) < 0 {
        count(Counter::OutOfOrder);
        return DROP;
    }
    search(ctx, socket, segment, unseen);
    if socket.hop != 0 {
        socket.sent = sent(sk);
    }
    PASS
}

/// What comes next is to be searched, whatever it looks like.
#[inline(always)]
fn is_followed(socket: &Arrived) -> bool {
    socket.in_line != LINE_NONE || (socket.tagged != 0 && socket.hop == 0)
}

/// How far the socket has sent.
#[inline(always)]
fn sent(sk: *mut bpf_sock) -> u32 {
    // SAFETY: the context's own socket; the helper checks its type.
    unsafe {
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() { 0 } else { (*tcp).snd_nxt }
    }
}

/// A connection that requests go on through may be sent the next one: what comes is new, and the last was
/// answered.
#[inline(always)]
fn is_due(sk: *mut bpf_sock, socket: &Arrived, segment: Segment) -> bool {
    segment.seq.wrapping_sub(socket.next_seq) as i32 >= 0 && sent(sk) != socket.sent
}

/// # Safety
///
/// `sk` is a socket the verifier knows.
#[inline(always)]
unsafe fn arrived_of(sk: *mut bpf_sock, create: bool) -> Option<&'static mut Arrived> {
    // SAFETY: as the caller says.
    unsafe { socket_context(sk.cast(), create) }.map(arrived)
}

#[inline(always)]
fn arrived(socket: &'static mut SocketContext) -> &'static mut Arrived {
    &mut socket.arrived
}

/// What is done with a connection that has not carried a token.
enum First {
    Followed(&'static mut Arrived),
    Verdict(i32),
}

#[inline(always)]
fn first_look(
    ctx: &SkBuffContext,
    sk: *mut bpf_sock,
    segment: Segment,
    known: Option<&'static mut Arrived>,
) -> First {
    // SAFETY (here and below): a socket's state and port may be read.
    let listens = unsafe { (*sk).state } == LISTEN;
    // SAFETY: the context's own socket.
    if !listens
        && known.is_none()
        && early::any()
        && let Some(socket) = unsafe { early::adopt(sk.cast()) }
    {
        return First::Followed(arrived(socket));
    }
    let is_passed_over = match &known {
        // SAFETY: the context's own socket.
        None => unsafe { is_front(sk.cast()) },
        Some(socket) => socket.hop != 0 && !is_due(sk, socket, segment),
    };
    if is_passed_over {
        return First::Verdict(PASS);
    }
    let port = unsafe { (*sk).src_port };
    if known.is_none()
        && !listens
        && settings().is_some_and(|settings| settings.has_opaque != 0)
        // SAFETY: a word of the map's.
        && unsafe { PORTS.get(port) } == Some(&PORT_OPAQUE)
    {
        // SAFETY: the context's own socket.
        if let Some(socket) = unsafe { arrived_of(sk, true) } {
            socket.side = SIDE_OPAQUE;
            announced(ctx, socket, segment);
        }
        return First::Verdict(PASS);
    }
    if !starts_like_a_request(ctx, segment) {
        // SAFETY: the context's own socket; presence alone is read.
        if !listens
            && known.is_none()
            && unsafe { PORTS.get(port) }.is_some()
            && let Some(socket) = unsafe { arrived_of(sk, true) }
        {
            socket.stranger = 1;
        }
        return First::Verdict(PASS);
    }
    let begin = |socket: &mut Arrived| {
        socket.carried = 0;
        socket.next_seq = segment.seq;
        socket.sent_for = 0;
        // SAFETY: presence alone is read.
        let is_entry = unsafe { PORTS.get(port) }.is_some();
        if socket.side == SIDE_UNKNOWN && !is_entry {
            let is_server = listens || is_for_listener(ctx);
            socket.side = if is_server { SIDE_SERVER } else { SIDE_CLIENT };
        }
        socket.in_line = if socket.side == SIDE_SERVER {
            LINE_HEAD
        } else {
            LINE_FIRST
        };
        socket.is_entry = is_entry.into();
        if socket.side != SIDE_CLIENT {
            note_sender(ctx, socket, segment.seq);
        }
    };
    if listens {
        return match early::arriving(ctx, sk.cast(), segment.seq, begin) {
            Some(socket) => First::Followed(socket),
            None => First::Verdict(DROP),
        };
    }
    // SAFETY: the context's own socket.
    let Some(socket) = known.or_else(|| unsafe { arrived_of(sk, true) }) else {
        count(Counter::NoStorage);
        return First::Verdict(PASS);
    };
    begin(socket);
    First::Followed(socket)
}

/// Notes for which request a head is sent whose first byte is `seq`, where one of this host's backends has
/// sent it.
#[inline(always)]
fn note_sender(ctx: &SkBuffContext, socket: &mut Arrived, seq: u32) {
    // SAFETY: a socket that was looked up; the note may be written meanwhile, and says so.
    let noted = at_sender(ctx, |sk| unsafe {
        let from: *const Sender = sender(sk.cast(), false)?;
        let turn = (&raw const (*from).turn).read_volatile();
        let seen = Sender {
            turn,
            since: (&raw const (*from).since).read_volatile(),
            sequence: (&raw const (*from).sequence).read_volatile(),
            service: (&raw const (*from).service).read_volatile(),
            tgid: (&raw const (*from).tgid).read_volatile(),
            stranger: (&raw const (*from).stranger).read_volatile(),
            strength: (&raw const (*from).strength).read_volatile(),
            pad: [0; 3],
        };
        let is_whole = turn & 1 == 0 && turn == (&raw const (*from).turn).read_volatile();
        // What was sent before that may be for another; of the process's, one way or the other.
        let is_of_it = seq.wrapping_sub(seen.since) as i32 >= 0;
        let strength = if is_whole && is_of_it {
            seen.strength
        } else {
            STRENGTH_PROCESS
        };
        Some(Sender { strength, ..seen })
    });
    if let Some(Some(sender)) = noted
        && sender.sequence != 0
        && sender.strength != STRENGTH_NONE
    {
        socket.sent_for = sender.sequence;
        socket.service = sender.service;
        socket.from = sender.tgid;
        socket.stranger_at = sender.stranger;
        socket.sent_as = sender.strength;
    }
}

/// A segment whose bytes cannot be read: it is the next request's when one has been announced since the last.
#[inline(always)]
fn announced(ctx: &SkBuffContext, socket: &mut Arrived, segment: Segment) {
    let Some((peer, local, (peer_port, local_port))) = addresses(ctx) else {
        return;
    };
    let ends = Ends {
        peer,
        local,
        peer_port,
        local_port,
    };
    // SAFETY: read member by member; the proxy writes the next when this one has been answered.
    if let Some(announced) = unsafe { ANNOUNCED.get(ends) } {
        if socket.tagged != 0 && socket.newest.request & SEQUENCE == announced.sequence {
            return;
        }
        if let Some(redeemed) = redeem_announced(announced) {
            return arrive(socket, &redeemed, segment.seq.wrapping_add(1));
        }
    }
    // A client who did not come through the proxy goes on without, or has the ends of a connection that is
    // gone.
    socket.carried = socket.carried.wrapping_add(1);
    if socket.tagged == 0 && socket.carried > UNANNOUNCED {
        socket.stranger = 1;
    }
}

/// Queues a request that a token names, whose last byte looked at ends before `end_seq`.
#[inline(always)]
fn arrive(socket: &mut Arrived, redeemed: &Redeemed, end_seq: u32) {
    socket.hop = redeemed.again.into();
    socket.handed = STRENGTH_NONE;
    socket.service = redeemed.service.into();
    queue(socket, redeemed.sequence, end_seq);
}

/// A head without a token has ended before `end_seq`: it is of the request that it was sent for, or nobody's.
#[inline(always)]
fn end_head(socket: &mut Arrived, end_seq: u32) {
    socket.in_line = LINE_NONE;
    if socket.sent_for != 0 {
        socket.hop = 1;
        socket.handed = socket.sent_as;
        queue(socket, socket.sent_for, end_seq);
        socket.sent_for = 0;
    } else if socket.side == SIDE_SERVER {
        // Requests that came before on the connection have been answered.
        socket.tagged = 0;
        socket.hop = 0;
        socket.stranger = 1;
    }
}

#[inline(always)]
fn queue(socket: &mut Arrived, sequence: u64, end_seq: u32) {
    socket.tagged = 1;
    let arrival = Arrival::new(socket.head, sequence, end_seq);
    let place = &raw mut socket.queue[socket.head as usize % QUEUE];
    // SAFETY: words of a map value, written once each: their reader may be on another CPU.
    unsafe {
        for to in [place, &raw mut socket.newest] {
            (&raw mut (*to).request).write_volatile(arrival.request);
            (&raw mut (*to).end).write_volatile(arrival.end);
        }
        (&raw mut socket.head).write_volatile(socket.head.wrapping_add(1));
    }
}

#[inline(always)]
fn starts_like_a_request(ctx: &SkBuffContext, segment: Segment) -> bool {
    let offset = segment.offset as usize;
    if segment.len < RESPONSE.len() as u32 {
        return ctx
            .load::<u8>(offset)
            .is_ok_and(|byte| byte.is_ascii_uppercase());
    }
    ctx.load::<[u8; RESPONSE.len()]>(offset)
        .is_ok_and(|start| start[0].is_ascii_uppercase() && start != *RESPONSE)
}

/// State of one search; handed to [`step`] by `bpf_loop`.
struct Search {
    skb: *mut c_void,
    socket: *mut Arrived,
    scratch: *mut Scratch,
    segment: Segment,
}

#[inline(always)]
fn search(ctx: &SkBuffContext, socket: &mut Arrived, segment: Segment, skip: u32) {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    let mut search = Search {
        skb: ctx.skb.skb.cast(),
        socket,
        scratch,
        segment,
    };
    search.move_to(skip);
    search.hold_window(0, 0);
    if search.socket().carried > 0 {
        search.finish_carried();
    }
    // SAFETY: `step` has the signature bpf_loop wants, and `search` outlives the call.
    unsafe {
        bpf_loop(STEPS, step as *mut c_void, (&raw mut search).cast(), 0);
    }
    search.socket().next_seq = segment.seq.wrapping_add(segment.len);
}

impl Search {
    #[inline(always)]
    fn socket(&mut self) -> &mut Arrived {
        // SAFETY: storage found by `inspect`, alive for the program's run.
        unsafe { &mut *self.socket }
    }

    #[inline(always)]
    fn window(&self) -> *mut u8 {
        self.scratch.cast()
    }

    #[inline(always)]
    fn at(&self) -> u32 {
        // SAFETY: this CPU's own element.
        unsafe { core::ptr::read_volatile(&raw const (*self.scratch).at) }
    }

    #[inline(always)]
    fn move_to(&mut self, at: u32) {
        // SAFETY: this CPU's own element.
        unsafe { core::ptr::write_volatile(&raw mut (*self.scratch).at, at) };
    }

    /// `last`, as if it came from nowhere; see [`Scratch::last`].
    #[inline(always)]
    fn forget(&self, last: u32) -> u32 {
        // SAFETY: this CPU's own element.
        unsafe {
            core::ptr::write_volatile(&raw mut (*self.scratch).last, last);
            core::ptr::read_volatile(&raw const (*self.scratch).last)
        }
    }

    /// Loads up to `most` payload bytes from `at` to `to`; how many.
    #[inline(always)]
    fn load(&self, at: u32, to: *mut u8, most: u32) -> u32 {
        let rest = self.segment.len.wrapping_sub(at);
        let last = if rest < most { rest } else { most }.wrapping_sub(1);
        // The last byte's index, not the length: Linux 6.1 learns nothing from `len != 0`.
        let last = self.forget(last);
        if last >= most {
            return 0;
        }
        let len = last + 1;
        // SAFETY: callers pass room for `most` bytes.
        let failed =
            unsafe { bpf_skb_load_bytes(self.skb, self.segment.offset + at, to.cast(), len) };
        if failed == 0 { len } else { 0 }
    }

    /// Has the window hold what a step at payload offset `at` wants to see; where in the window
    /// that is, and how many bytes are there.
    #[inline(always)]
    fn look_at(&mut self, at: u32) -> (u32, u32) {
        // SAFETY: this CPU's own element, members through the map as `at` is.
        let (base, loaded) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*self.scratch).base),
                core::ptr::read_volatile(&raw const (*self.scratch).loaded),
            )
        };
        let start = at.wrapping_sub(base);
        let reaches_end = base.wrapping_add(loaded) >= self.segment.len;
        if start < STARTS && start < loaded && (start + SEEN <= loaded || reaches_end) {
            return (start, loaded - start);
        }
        let loaded = self.load(at, self.window(), LOAD);
        self.hold_window(at, loaded);
        (0, loaded)
    }

    /// Notes what the window holds.
    #[inline(always)]
    fn hold_window(&mut self, base: u32, loaded: u32) {
        // SAFETY: this CPU's own element.
        unsafe {
            core::ptr::write_volatile(&raw mut (*self.scratch).base, base);
            core::ptr::write_volatile(&raw mut (*self.scratch).loaded, loaded);
        }
    }

    /// Completes a token line that an earlier segment began.
    #[inline(always)]
    fn finish_carried(&mut self) {
        let window = self.window();
        let carried = self.socket().carried;
        if carried == 0 || carried >= CARRY as u32 {
            return;
        }
        let mut index = 0;
        while index < CARRY {
            // SAFETY: CARRY bytes fit both.
            unsafe { *window.add(index) = self.socket().carry[index] };
            index += 1;
        }
        let at = self.at();
        // SAFETY: carried < CARRY, and the window has room for CARRY + LINE_BYTES bytes.
        let got = self.load(
            at,
            unsafe { window.add(carried as usize) },
            LINE_BYTES as u32,
        );
        self.socket().carried = 0;
        let have = carried + got;
        // SAFETY: the window is longer than a token line.
        match unsafe { compare(window, have) } {
            Match::Whole => self.accept(window, at + (LINE_BYTES as u32 - carried)),
            Match::Partial => self.carry(window, have),
            // A line feed alone: what comes now starts the next line.
            Match::No if carried == 1 && got > 0 => {
                // SAFETY: a byte was loaded there.
                let next = unsafe { core::ptr::read_volatile(window.add(1)) };
                self.pass_line(next, at);
            }
            Match::No => {}
        }
    }

    /// Keeps the `len` bytes at `from` for the next segment.
    #[inline(always)]
    fn carry(&mut self, from: *const u8, len: u32) {
        if len >= CARRY as u32 {
            return;
        }
        let socket = self.socket();
        let mut index = 0;
        while index < CARRY {
            // SAFETY: every caller's `from` has CARRY readable bytes behind it.
            socket.carry[index] = unsafe { *from.add(index) };
            index += 1;
        }
        socket.carried = len;
    }

    /// Redeems the token line at `line`, which ends at payload offset `end`.
    #[inline(always)]
    fn accept(&mut self, line: *const u8, end: u32) {
        let Some(settings) = settings() else { return };
        let end_seq = self.segment.seq.wrapping_add(end);
        let socket = self.socket();
        let counts = Counts {
            fresh: socket.in_line != LINE_LATER,
            again: socket.in_line >= LINE_HEAD,
        };
        // SAFETY: a whole token line lies at `line`.
        let redeemed = unsafe { redeem(line.add(TOKEN_LINE.len()), settings, counts) };
        let Some(redeemed) = redeemed else {
            if socket.in_line != LINE_NONE {
                self.pass_line(0, end);
            }
            return;
        };
        socket.in_line = LINE_NONE;
        arrive(socket, &redeemed, end_seq);
    }

    /// A line of a head that is none of ours lies before payload offset `behind`, where `next` is.
    #[inline(always)]
    fn pass_line(&mut self, next: u8, behind: u32) {
        let ends = match next {
            b'\r' => 2,
            b'\n' => 1,
            _ => 0,
        };
        let end_seq = self.segment.seq.wrapping_add(behind + ends);
        let socket = self.socket();
        if socket.in_line == LINE_NONE {
            return;
        }
        if socket.in_line == LINE_FIRST && socket.sent_for == 0 {
            // The first header line is not ours, so neither is the connection.
            socket.in_line = LINE_NONE;
            socket.estrange();
        } else if ends != 0 {
            end_head(socket, end_seq);
        } else {
            socket.in_line = LINE_LATER;
        }
    }
}

const CONTINUE: c_long = 0;
const STOP: c_long = 1;

/// One step: searches [`STEP`] bytes, up to the first candidate.
#[inline(never)]
extern "C" fn step(_: u32, search: *mut Search) -> c_long {
    // SAFETY: bpf_loop passes what `search` gave it.
    let result = look(unsafe { &mut *search });
    // Linux 6.1 wants to see that it is one of the two.
    core::hint::black_box(result) & STOP
}

#[inline(always)]
fn look(search: &mut Search) -> c_long {
    let at = search.at();
    let in_line = search.socket().in_line;
    if at >= search.segment.len || !is_followed(search.socket()) {
        return STOP;
    }
    let (start, seen) = search.look_at(at);
    if seen == 0 {
        return STOP;
    }
    // SAFETY: start < STARTS, so what a step reads from there lies inside the window.
    let window = unsafe { search.window().add((start & (STARTS - 1)) as usize) };
    let Some(found) = line_feed(window, seen, in_line != LINE_NONE) else {
        search.move_to(at + STEP);
        return CONTINUE;
    };
    // SAFETY: found < STEP, so a token line from there lies inside the window.
    let line = unsafe { window.add(found as usize & (STEP as usize - 1)) };
    let have = seen.wrapping_sub(found);
    // SAFETY: as above.
    match unsafe { compare(line, have) } {
        Match::Whole => {
            let end = at + found + LINE_BYTES as u32;
            search.move_to(end);
            search.accept(line, end);
        }
        // Only at the segment's end can bytes be missing: a step sees a whole line ahead.
        Match::Partial => {
            search.carry(line, have);
            return STOP;
        }
        Match::No => {
            let behind = at + found + 1;
            search.move_to(behind);
            // SAFETY: a token line is longer.
            let next = unsafe { core::ptr::read_volatile(line.add(1)) };
            search.pass_line(next, behind);
        }
    }
    CONTINUE
}

/// Index, below [`STEP`], of the first line feed that is the last byte seen, or that an `x` or
/// `X` follows; with `any`, of the first line feed.
///
/// Eight bytes at a time and without a branch per byte, which is also what lets the verifier
/// follow: with eight branches a word it gives up. Now and then it finds a byte that only looks
/// like it, above a real one in the same word; the caller compares.
#[inline(always)]
fn line_feed(window: *mut u8, seen: u32, any: bool) -> Option<u32> {
    let nothing = if any { 0 } else { u64::MAX };
    let words: *const u64 = window.cast();
    // SAFETY: STEP / 8 + 1 words lie inside the window, wherever a step starts (the target loads
    // unaligned words as well as others). What lies behind `seen` is left from earlier and is
    // cut off below.
    let mut word = unsafe { core::ptr::read_volatile(words) };
    let mut index = 0;
    while index < STEP / 8 {
        // SAFETY: as above.
        let next = unsafe { core::ptr::read_volatile(words.add(index as usize + 1)) };
        let following = (word >> 8 | next << 56) | (ONES * 0x20);
        let feed = word ^ (ONES * b'\n' as u64);
        let x = (following ^ (ONES * b'x' as u64)) & nothing;
        // Hacker's Delight, 6-1: a zero byte borrows from its own top bit.
        let hits = feed.wrapping_sub(ONES) & x.wrapping_sub(ONES) & !(feed | x) & TOPS;
        if hits != 0 {
            let at = index * 8 + lowest(hits);
            if at < seen {
                return Some(at);
            }
            break;
        }
        word = next;
        index += 1;
    }
    let last = seen.wrapping_sub(1);
    // SAFETY: below STEP, inside the window. Read before it is looked at what `last` is, for Linux 6.1 forgets
    // the bounds of half a word that has been on the stack.
    let byte = unsafe { core::ptr::read_volatile(window.add((last & (STEP - 1)) as usize)) };
    (last < STEP && byte == b'\n').then_some(last)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = ONES << 7;

/// Index of the lowest byte marked in `hits`, which is not zero.
#[inline(always)]
fn lowest(hits: u64) -> u32 {
    let below = (hits & hits.wrapping_neg()).wrapping_sub(1);
    ((below & ONES).wrapping_mul(ONES) >> 56) as u32 - 1
}
