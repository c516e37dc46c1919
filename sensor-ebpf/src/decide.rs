//! Decide: may this request's lineage start this program?

use core::ffi::c_void;

use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user, bpf_send_signal};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use clew_sensor_abi::FileKey;
use clew_sensor_abi::policy::{ARGUMENTS_ANY, ExecKey, SERVICE_ANY};
use clew_sensor_abi::record::{
    BLOCK_BYTES, DECISION_ALLOWED, DECISION_KILLED, DECISION_OBSERVED, Exec, TaskContext,
};
use clew_sensor_abi::settings::{Counter, MODE_ENFORCE, Settings};
use clew_sensor_abi::siphash::SipHash24;

use crate::kernel::{Task, blur, executable};
use crate::maps::{EVENTS, EXEC_ALLOW, TRAMPOLINES, count, settings};
use crate::report::{Room, Urgency, has_room, now};
use crate::snapshot::{argument_block, fill, read_arguments, read_environment};
use crate::stops::note_stop;
use crate::task::{context_of, nothing};

const SIGKILL: u32 = 9;

/// `tp_btf/sched_process_exec` (task, old pid, bprm): the new program is in place and nobody
/// else can write its memory; not one of its instructions has run.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn decide(ctx: BtfTracePointContext) -> i32 {
    let task: Task = ctx.arg(0);
    let bprm: *const c_void = ctx.arg(2);
    let mut context = nothing();
    // SAFETY: the tracepoint's own task, which is the running one.
    if !unsafe { context_of(task, &mut context) } {
        return 0;
    }
    blur(&mut context);
    let Some(settings) = settings() else { return 0 };
    let mode = effective_mode(settings);
    // SAFETY: as above.
    let (file, program) = unsafe { executable(task) };

    // What is allowed is not reported then, and costs the ring nothing: a record that is discarded
    // takes its place in it all the same.
    if !has_room(Room::Harmless)
        && (mode != MODE_ENFORCE || allowed(&context, file, hash_in_place(settings, task)))
    {
        count(Counter::LostExec);
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve_untyped::<Exec>(0) else {
        count(Counter::LostExec);
        if !allowed(&context, file, 0) && mode == MODE_ENFORCE {
            kill();
            note_stop(false);
        }
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: room for a whole record; `read_arguments` and `fill` write every part that the
    // lengths they store declare.
    unsafe {
        let length = read_arguments(task, record);
        let arguments = hash_arguments(settings, &raw const (*record).arguments, length);
        let decision = if allowed(&context, file, arguments) {
            DECISION_ALLOWED
        } else if mode == MODE_ENFORCE {
            kill();
            DECISION_KILLED
        } else {
            DECISION_OBSERVED
        };
        let decided = &raw mut (*record).decision;
        decided.write_volatile(decision);
        let decision = decided.read_volatile();
        (*record).file = file;
        (*record).context = context;
        let urgency = if decision == DECISION_ALLOWED {
            Urgency::Later
        } else {
            Urgency::Now
        };
        read_environment(task, record);
        fill(task, bprm, program, record);
        entry.submit(urgency.flags());
        if decision == DECISION_KILLED {
            note_stop(true);
        }
    }
    0
}

/// The mode that holds: the fallback when nobody has tended the programs for too long.
#[inline(always)]
pub fn effective_mode(settings: &Settings) -> u32 {
    if now().saturating_sub(settings.heartbeat) > settings.heartbeat_limit {
        settings.fallback_mode
    } else {
        settings.mode
    }
}

/// Whether the file is a launcher, or on the list with these arguments (a hash; 0: unknown) or
/// with any.
#[inline(always)]
fn allowed(context: &TaskContext, file: FileKey, arguments: u64) -> bool {
    // SAFETY: presence alone is read.
    unsafe {
        if TRAMPOLINES.get(file).is_some() {
            return true;
        }
        let any = ExecKey {
            file,
            arguments: ARGUMENTS_ANY,
            service: SERVICE_ANY,
            pad: 0,
        };
        if EXEC_ALLOW.get(any).is_some()
            || EXEC_ALLOW
                .get(ExecKey {
                    service: context.service,
                    ..any
                })
                .is_some()
        {
            return true;
        }
        arguments != 0
            && (EXEC_ALLOW.get(ExecKey { arguments, ..any }).is_some()
                || EXEC_ALLOW
                    .get(ExecKey {
                        arguments,
                        service: context.service,
                        ..any
                    })
                    .is_some())
    }
}

/// Ends the program before its first instruction.
#[inline(always)]
fn kill() {
    // SAFETY: signals the running task's process, at its return to user mode.
    unsafe { bpf_send_signal(SIGKILL) };
    count(Counter::Killed);
}

struct Streaming {
    hash: SipHash24,
    start: u64,
    length: u32,
    failed: u32,
}

/// The same hash as [`hash_arguments`], word by word from the new program's memory: for want of a
/// record to copy the arguments to. Slower by far.
#[inline(always)]
fn hash_in_place(settings: &Settings, task: Task) -> u64 {
    // SAFETY: the running task.
    let (start, end) = unsafe { argument_block(task) };
    let length = end.saturating_sub(start);
    if length == 0 || length > BLOCK_BYTES as u64 {
        return 0;
    }
    let mut streaming = Streaming {
        hash: SipHash24::new(settings.key0, settings.key1),
        start,
        length: length as u32,
        failed: 0,
    };
    // SAFETY: `next_word` has the signature bpf_loop wants.
    unsafe {
        bpf_loop(
            (BLOCK_BYTES / 8) as u32,
            next_word as *mut c_void,
            (&raw mut streaming).cast(),
            0,
        );
    }
    if streaming.failed != 0 {
        return 0;
    }
    streaming.hash.finish(length.div_ceil(8) * 8) | 1
}

#[inline(never)]
extern "C" fn next_word(index: u32, streaming: *mut Streaming) -> c_long {
    // SAFETY: bpf_loop passes what `hash_in_place` gave it.
    let streaming = unsafe { &mut *streaming };
    let from = index * 8;
    if from >= streaming.length {
        return 1;
    }
    let left = streaming.length - from;
    let mut word = 0_u64;
    let size = if left < 8 { left & 7 } else { 8 };
    let at = streaming.start.wrapping_add(u64::from(from));
    // SAFETY: at most a word, checked by the helper.
    let failed = unsafe { bpf_probe_read_user((&raw mut word).cast(), size, at as *const c_void) };
    if failed != 0 {
        streaming.failed = 1;
        return 1;
    }
    streaming.hash.word(word);
    0
}

struct Hashing {
    hash: SipHash24,
    words: *const u64,
    count: u32,
}

/// `clew_sensor_abi::policy::arguments_hash` of the first `length` bytes; 0 when cut.
#[inline(always)]
fn hash_arguments(settings: &Settings, block: *const [u8; BLOCK_BYTES], length: u32) -> u64 {
    if length == 0 || length > BLOCK_BYTES as u32 {
        return 0;
    }
    let mut hashing = Hashing {
        hash: SipHash24::new(settings.key0, settings.key1),
        words: block.cast(),
        count: length.div_ceil(8),
    };
    // SAFETY: `hash_word` has the signature bpf_loop wants.
    unsafe {
        bpf_loop(
            (BLOCK_BYTES / 8) as u32,
            hash_word as *mut c_void,
            (&raw mut hashing).cast(),
            0,
        );
    }
    hashing.hash.finish(u64::from(hashing.count) * 8) | 1
}

#[inline(never)]
extern "C" fn hash_word(index: u32, hashing: *mut Hashing) -> c_long {
    // SAFETY: bpf_loop passes what `hash_arguments` gave it.
    let hashing = unsafe { &mut *hashing };
    if index >= hashing.count || index >= (BLOCK_BYTES / 8) as u32 {
        return 1;
    }
    // SAFETY: index is below the block's number of words.
    hashing
        .hash
        .word(unsafe { *hashing.words.add(index as usize) });
    0
}
