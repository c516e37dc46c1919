//! Hold: responses wait in the kernel until user space has found whose deed it was.

use aya_ebpf::bindings::BPF_NOEXIST;
use clew_sensor_abi::RECENT;
use clew_sensor_abi::policy::{MARK_HELD, Mark};
use clew_sensor_abi::record::{HELD, STRENGTH_READER, TaskContext};
use clew_sensor_abi::settings::{Counter, Settings};

use crate::maps::{MARKS, announce_mark, count};
use crate::report::now;

/// The mark was there before (include/uapi/asm-generic/errno-base.h). Whatever else went wrong, the
/// response is not held: a full table says E2BIG, a busy one EBUSY.
const EEXIST: i32 = 17;

/// Whether somebody will say what becomes of a response.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The event is reported.
    Comes,
    /// Its record is lost.
    Never,
}

/// Holds the responses of the requests an event could belong to, until a verdict.
///
/// A thread that read the request, in a process where no thread has ever had two open at once,
/// leaves one. Otherwise the newest `hold_limit` that the process has read are held too.
#[inline(always)]
pub fn hold(context: &TaskContext, settings: &Settings, verdict: Verdict, held: &mut [u64; HELD]) {
    let certain = context.strength == STRENGTH_READER;
    // Nobody tends a response whose request is certain: it waits for its verdict for ever.
    let until = if certain && verdict == Verdict::Comes {
        u64::MAX
    } else {
        now() + settings.hold_span
    };
    let limit = if certain && context.overlaps == 0 {
        1
    } else {
        settings.hold_limit as usize
    };
    put_on_hold(context.sequence, until);
    held[0] = context.sequence;
    let mut count = 1;
    let mut back = 1;
    while back <= RECENT {
        if count >= limit || count >= HELD {
            break;
        }
        let sequence = context.recent[context.reads.wrapping_sub(back as u32) as usize % RECENT];
        if sequence != 0 && sequence != context.sequence {
            put_on_hold(sequence, now() + settings.hold_span);
            held[count & (HELD - 1)] = sequence;
            count += 1;
        }
        back += 1;
    }
}

#[inline(always)]
fn put_on_hold(sequence: u64, until: u64) {
    let mark = Mark {
        until,
        state: MARK_HELD,
        pad: 0,
    };
    announce_mark(sequence);
    // What is condemned stays condemned; what is held keeps its time.
    let done = MARKS.insert(sequence, mark, u64::from(BPF_NOEXIST));
    if done.is_err_and(|error| error != -EEXIST) {
        count(Counter::MarksFull);
    }
}
