//! Bind: a task that has read a request's head works for that request.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use clew_sensor_abi::RECENT;
use clew_sensor_abi::record::{Bound, KIND_BOUND, STRENGTH_READER, TaskContext};
use clew_sensor_abi::settings::Counter;

use crate::kernel::{Task, executable, leader, member, process_key};
use crate::maps::{
    MARKS, SLOT_ANSWERED, SLOT_SUPERSEDED, count, offset, slot_of, socket_context, task_context,
};
use crate::report::{header, report_frequent};
use crate::socket::{QUEUE, SocketContext};
use crate::task::current;

const MSG_PEEK: i32 = 2;

/// `tp_btf/sock_recv_length` (sk, ret, flags): `ret` bytes were handed to the current task.
#[btf_tracepoint(function = "sock_recv_length")]
pub fn bind(ctx: BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    let ret: i32 = ctx.arg(1);
    let flags: i32 = ctx.arg(2);
    if ret <= 0 || flags & MSG_PEEK != 0 {
        return 0;
    }
    // SAFETY: the tracepoint's own socket.
    let Some(socket) = (unsafe { socket_context(sk, false) }) else {
        return 0;
    };
    if socket.tagged == 0 {
        return 0;
    }
    // SAFETY: only TCP sockets have been tagged, so `sk` is the start of a tcp_sock.
    let copied: u32 = unsafe { crate::kernel::probe(sk, offset!(tcp_sock_copied_seq)) };
    let read = take_read(socket, copied);
    let task = current();
    if read == 0 {
        carry_on(task, socket);
    } else {
        // SAFETY: the running task.
        unsafe { start(task, socket, read) };
    }
    0
}

/// Moves past every arrival that ends at or before `copied`; how many there were.
#[inline(always)]
fn take_read(socket: &mut SocketContext, copied: u32) -> u32 {
    let mut read = 0;
    let mut step = 0;
    while step < QUEUE {
        if socket.tail == socket.head {
            break;
        }
        let arrival = socket.queue[socket.tail as usize % QUEUE];
        if (copied.wrapping_sub(arrival.end_seq) as i32) < 0 {
            break;
        }
        socket.current = arrival.sequence;
        socket.tail = socket.tail.wrapping_add(1);
        read += 1;
        step += 1;
    }
    read
}

/// A task reads on in a request (its body): it works for it now, whoever read the head.
#[inline(always)]
fn carry_on(task: Task, socket: &SocketContext) {
    if socket.current == 0 {
        return;
    }
    // SAFETY: the running task.
    unsafe {
        let own = task_context(task, false);
        if let Some(own) = &own
            && (own.sequence == socket.current || own.lineage != 0)
        {
            return;
        }
        let Some(process) = task_context(leader(task), true) else {
            return;
        };
        let copy = *process;
        if let Some(own) = task_context(task, true) {
            adopt(own, &copy, socket);
            own.tid = member(task, offset!(task_pid));
        }
    }
}

#[inline(always)]
fn adopt(own: &mut TaskContext, process: &TaskContext, socket: &SocketContext) {
    own.sequence = socket.current;
    own.backend = process.backend;
    own.executable = process.executable;
    own.service = socket.service;
    own.strength = STRENGTH_READER;
}

/// A task has read the heads of `read` requests, the last of which is the socket's current.
///
/// # Safety
///
/// `task` is the running task.
#[inline(always)]
unsafe fn start(task: Task, socket: &mut SocketContext, read: u32) {
    // SAFETY: as the caller says; the leader is reached through it.
    unsafe {
        let leader = leader(task);
        let Some(process) = task_context(leader, true) else {
            count(Counter::NoStorage);
            return;
        };
        if process.lineage != 0 {
            return;
        }
        if process.reads == 0 {
            process.backend = process_key(leader);
            process.executable = executable(task).0;
            process.service = socket.service;
        }
        process.recent[process.reads as usize % RECENT] = socket.current;
        process.reads = process.reads.wrapping_add(1);
        let copy = *process;
        let Some(own) = task_context(task, true) else {
            count(Counter::NoStorage);
            return;
        };
        let unanswered = supersede(own.sequence);
        let tid = member(task, offset!(task_pid));
        adopt(own, &copy, socket);
        own.tid = tid;
        if unanswered || read > 1 {
            // The leader may be the task itself; look it up again rather than alias it.
            if let Some(process) = task_context(leader, false) {
                process.overlaps = process.overlaps.wrapping_add(1);
            }
        }
        let overflowed = core::mem::take(&mut socket.overflowed) != 0;
        report_frequent(
            Bound {
                header: header(KIND_BOUND, tid),
                sequence: socket.current,
                process: copy.backend,
                executable: copy.executable,
                same_read: if overflowed { 255 } else { (read - 1) as u8 },
                previous_unanswered: unanswered.into(),
                pad: [0; 6],
            },
            Counter::LostBound,
        );
    }
}

#[inline(always)]
fn is_marked(sequence: u64) -> bool {
    // SAFETY: presence alone is read.
    unsafe { MARKS.get(sequence) }.is_some()
}

/// Notes that the thread of `sequence` has gone on to another request; whether not one byte of
/// the answer had left by then.
#[inline(always)]
fn supersede(sequence: u64) -> bool {
    if sequence == 0 {
        return false;
    }
    match slot_of(sequence) {
        Some(slot) => {
            slot.flags |= SLOT_SUPERSEDED;
            // What is held or condemned cannot have been answered.
            slot.flags & SLOT_ANSWERED == 0 && !is_marked(sequence)
        }
        None => false,
    }
}
