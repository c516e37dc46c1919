//! Bind: a task that has read a request's head works for that request.
//!
//! The hook is where TCP tunes its receive buffer to a reader, whichever way he reads: `recv` and its
//! kin, io_uring, `splice` and `sendfile`, `TCP_ZEROCOPY_RECEIVE` (`sock_recv_length` sees the first
//! two alone). Peeking does not come here.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use clew_sensor_abi::RECENT;
use clew_sensor_abi::ledger::{Flags, Reading};
use clew_sensor_abi::record::{HOP_SOCKET, STRENGTH_NONE, STRENGTH_READER, TaskContext};
use clew_sensor_abi::settings::Counter;

use crate::early;
use crate::kernel::{Task, executable, leader, member, probe, process_key};
use crate::maps::{count, new_hop_reading, offset, reading_at, socket_context, task_context};
use crate::report::{now, seconds};
use crate::task::current;
use clew_sensor_abi::socket::{Arrival, Arrived, QUEUE, Read, SocketContext};

/// `tp_btf/tcp_rcv_space_adjust` (sk): the current task has taken bytes from the socket.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn bind(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    // SAFETY: the tracepoint's own socket.
    let known = unsafe { socket_context(sk, false) };
    // SAFETY: as above.
    let adopt = || unsafe { early::any().then(|| early::adopt(sk)).flatten() };
    let Some(socket) = known.or_else(adopt) else {
        return 0;
    };
    if socket.arrived.tagged == 0 && socket.arrived.stranger == 0 {
        return 0;
    }
    // A stream parser (sockmap) takes bytes in softirq, where the current task is anybody.
    // SAFETY: a member of the tracepoint's own socket.
    if unsafe { member::<i32>(sk, offset!(sock_sk_lock_owned)) } == 0 {
        return 0;
    }
    if socket.arrived.tagged == 0 {
        // SAFETY: the running task.
        unsafe { estrange(current(), socket.arrived.is_entry != 0) };
        return 0;
    }
    // SAFETY: the tracepoint's own socket; the helper checks its type.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
    if tcp.is_null() {
        return 0;
    }
    // SAFETY: a tcp_sock the verifier knows.
    let (copied, written) = unsafe {
        (
            member(tcp.cast(), offset!(tcp_sock_copied_seq)),
            member(tcp.cast(), offset!(tcp_sock_write_seq)),
        )
    };
    let taken = take_read(socket, copied);
    let work = Work {
        sequence: socket.read.current,
        service: socket.arrived.service,
        written,
        socket: sk as u64,
    };
    let task = current();
    if taken.read == 0 {
        carry_on(task, &work);
    } else {
        // SAFETY: the running task.
        unsafe { start(task, socket, &work, taken) };
    }
    0
}

/// What a task has taken up; members as those of [`TaskContext`].
pub struct Work {
    pub sequence: u64,
    pub service: u32,
    pub written: u32,
    pub socket: u64,
}

/// Which arrivals one read has returned.
struct Taken {
    /// Number of the first.
    first: u32,
    /// How many.
    read: u32,
    /// Some had been overwritten.
    lost: bool,
}

/// Moves past every arrival that ends at or before `copied`.
#[inline(always)]
fn take_read(socket: &mut SocketContext, copied: u32) -> Taken {
    let (arrived, own) = (&socket.arrived, &mut socket.read);
    // SAFETY: a word of a map value, read once: another CPU may be writing it.
    let head = unsafe { (&raw const arrived.head).read_volatile() };
    let lost = head.wrapping_sub(own.tail) > QUEUE as u32;
    if lost {
        own.tail = head.wrapping_sub(QUEUE as u32);
        count(Counter::QueueFull);
    }
    let first = own.tail;
    let mut read = 0;
    while read < QUEUE as u32 {
        let nth = first.wrapping_add(read);
        if nth == head {
            break;
        }
        let Some((sequence, end_seq)) = arrival(arrived, nth) else {
            break;
        };
        if (copied.wrapping_sub(end_seq) as i32) < 0 {
            break;
        }
        own.current = sequence;
        read += 1;
    }
    own.tail = first.wrapping_add(read);
    let (read, lost) = forget(own, read, lost);
    Taken { first, read, lost }
}

/// Has the verifier forget by which of its ways through the loop the program has come here.
#[inline(always)]
fn forget(own: &mut Read, read: u32, lost: bool) -> (u32, bool) {
    let at = &raw mut own.taken;
    // SAFETY: a word of a map value, which the socket's lock protects.
    let taken = unsafe {
        at.write_volatile(read << 1 | u32::from(lost));
        at.read_volatile()
    };
    (taken >> 1, taken & 1 != 0)
}

/// Sequence and TCP end of the `nth` request to arrive, if no later one has taken its place. It is
/// mostly the newest, which lies in the line that is at hand anyway.
#[inline(always)]
fn arrival(arrived: &Arrived, nth: u32) -> Option<(u64, u32)> {
    let look = |at: &Arrival| {
        let at = &raw const *at;
        // SAFETY: two words of a map value, read once each: another CPU may be writing them.
        let seen = unsafe {
            Arrival {
                request: (&raw const (*at).request).read_volatile(),
                end: (&raw const (*at).end).read_volatile(),
            }
        };
        seen.of(nth)
    };
    look(&arrived.newest).or_else(|| look(&arrived.queue[nth as usize % QUEUE]))
}

/// A task reads on in a request (its body): it works for it now, whoever read the head.
#[inline(always)]
pub fn carry_on(task: Task, work: &Work) {
    if work.sequence == 0 {
        return;
    }
    // SAFETY: the running task.
    unsafe {
        let own = task_context(task, false);
        if let Some(own) = &own
            && (own.sequence == work.sequence || own.lineage != 0)
        {
            return;
        }
        let Some(process) = task_context(leader(task), true) else {
            return;
        };
        let (backend, executable) = (process.backend, process.executable);
        if let Some(own) = task_context(task, true) {
            (own.backend, own.executable) = (backend, executable);
            adopt(own, work, member(task, offset!(task_pid)));
        }
    }
}

/// The thread works for another request.
#[inline(always)]
fn adopt(own: &mut TaskContext, work: &Work, tid: u32) {
    own.service = work.service;
    own.strength = STRENGTH_READER;
    own.tid = tid;
    own.sequence = work.sequence;
    own.written = work.written;
    own.socket = work.socket;
}

/// Whether the thread has written not one byte to the socket that its request came from. Of a unix socket
/// that is noted when it is written to.
///
/// What lies behind the address of a socket that is gone is another one's, or nothing: whatever is read
/// there is most unlikely to be the number it had, which says that the thread is done with it.
///
/// # Safety
///
/// `own` was written by [`adopt`].
#[inline(always)]
unsafe fn is_unanswered(own: &TaskContext) -> bool {
    if own.sequence == 0 || own.socket == 0 {
        return false;
    }
    // SAFETY: an address of the kernel's, once a socket's.
    own.socket & HOP_SOCKET != 0
        || unsafe { probe::<u32>(own.socket as *const c_void, offset!(tcp_sock_write_seq)) }
            == own.written
}

/// Who has read, and when.
pub struct Reader {
    at: u64,
    tid: u32,
    same_read: u8,
    previous_unanswered: bool,
    handed: u8,
    from: u32,
}

/// A task has read the heads of requests; the last of them is the socket's current one.
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
unsafe fn start(task: Task, socket: &SocketContext, work: &Work, taken: Taken) {
    let same_read = if taken.lost {
        255
    } else {
        (taken.read - 1) as u8
    };
    // SAFETY: as the caller says.
    let Some((process, mut reader)) = (unsafe { take_up(task, work, same_read) }) else {
        return;
    };
    if socket.arrived.handed != STRENGTH_NONE {
        (reader.handed, reader.from) = (socket.arrived.handed, socket.arrived.from);
        if socket.arrived.stranger_at != 0 {
            (process.stranger, process.overlaps) = (seconds(), 1);
        }
    }
    if taken.read > 1 {
        process.overlaps = 1;
    }
    let mut nth = 0;
    while nth < QUEUE as u32 {
        if nth == taken.read {
            break;
        }
        if let Some((sequence, _)) = arrival(&socket.arrived, taken.first.wrapping_add(nth)) {
            enter(sequence, process, &reader);
        }
        nth += 1;
    }
}

/// A task has read the head of a request, or of more of them: it works for the last. Its process's memory,
/// and what is to be entered of the reading.
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
pub unsafe fn take_up(
    task: Task,
    work: &Work,
    same_read: u8,
) -> Option<(&'static mut TaskContext, Reader)> {
    // SAFETY: as the caller says; the leader is reached through it.
    unsafe {
        let leader = leader(task);
        let Some(process) = task_context(leader, true) else {
            count(Counter::NoStorage);
            return None;
        };
        if process.lineage != 0 {
            return None;
        }
        if process.reads == 0 {
            process.backend = process_key(leader);
            process.executable = executable(task).0;
        }
        process.service = work.service;
        let tid = member(task, offset!(task_pid));
        // Most processes that answer have one thread, which is its own leader.
        let previous_unanswered = if leader == task {
            let unanswered = is_unanswered(process);
            adopt(process, work, tid);
            unanswered
        } else {
            let Some(own) = task_context(task, true) else {
                count(Counter::NoStorage);
                return None;
            };
            (own.backend, own.executable) = (process.backend, process.executable);
            let unanswered = is_unanswered(own);
            adopt(own, work, tid);
            unanswered
        };
        let reader = Reader {
            at: now(),
            tid,
            same_read,
            previous_unanswered,
            handed: STRENGTH_NONE,
            from: 0,
        };
        if previous_unanswered {
            process.overlaps = 1;
        }
        Some((process, reader))
    }
}

/// A task has read what did not come through Clew: it works for nobody that is known, and for a while
/// nobody can say of its process whose work it does. One that has not read what did is noted with `first` only.
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
pub unsafe fn estrange(task: Task, first: bool) {
    // SAFETY: as the caller says; the leader is reached through it.
    unsafe {
        let Some(process) = task_context(leader(task), first) else {
            if first {
                count(Counter::NoStorage);
            }
            return;
        };
        if process.lineage != 0 {
            return;
        }
        process.stranger = seconds();
        let Some(own) = task_context(task, false) else {
            return;
        };
        if is_unanswered(own) {
            process.overlaps = 1;
        }
        own.sequence = 0;
        own.strength = STRENGTH_NONE;
    }
}

/// Enters the reading of `sequence` into its process's memory and into the ledger: in the place that is its
/// own, or, when it was read before, by whoever it comes from, into the log.
#[inline(always)]
pub fn enter(sequence: u64, process: &mut TaskContext, reader: &Reader) {
    let mut reading = remember(sequence, process, reader);
    let Some(entry) = reading_at(sequence) else {
        return;
    };
    if entry.sequence != sequence && reader.handed == STRENGTH_NONE {
        reading.check = reading.digest();
        *entry = reading;
    } else if let Some((nth, entry)) = new_hop_reading() {
        reading.check = reading.digest_in_log(nth);
        *entry = reading;
    }
}

/// Enters the reading of `sequence` into its process's memory; what the ledger wants to know of it.
#[inline(always)]
fn remember(sequence: u64, process: &mut TaskContext, read: &Reader) -> Reading {
    process.recent[process.reads as usize % RECENT] = sequence;
    process.reads = process.reads.wrapping_add(1);
    Reading {
        sequence,
        at: read.at,
        start: process.backend.start,
        tgid: process.backend.tgid,
        tid: read.tid,
        executable: process.executable,
        flags: Flags {
            same_read: read.same_read,
            previous_unanswered: read.previous_unanswered.into(),
            handed: read.handed,
            pad: 0,
            from: read.from,
        },
        check: 0,
    }
}
