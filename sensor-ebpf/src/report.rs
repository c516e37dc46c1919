//! Records into the ring buffer.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_query};
use clew_sensor_abi::ABI_VERSION;
use clew_sensor_abi::record::Header;

use crate::maps::{EVENTS, RING_BYTES};

/// Whether the loader is woken at once.
pub enum Urgency {
    /// A verdict is waited for.
    Now,
    /// Found at the loader's next look.
    Later,
}

impl Urgency {
    pub const fn flags(self) -> u64 {
        match self {
            Urgency::Now => BPF_RB_FORCE_WAKEUP as u64,
            Urgency::Later => BPF_RB_NO_WAKEUP as u64,
        }
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The same, whole seconds: never 0 once anything runs.
#[inline(always)]
pub fn seconds() -> u32 {
    (now() / 1_000_000_000) as u32
}

#[inline(always)]
pub fn header(kind: u16, tid: u32) -> Header {
    Header {
        version: ABI_VERSION,
        kind,
        tid,
        at: now(),
    }
}

/// How much of the ring a record may find filled, in eighths.
///
/// A program start without a record cannot be told from another by its arguments, and is killed: there
/// must be room for one, however many flows are opened meanwhile.
#[derive(Clone, Copy)]
pub enum Room {
    /// What is not stopped.
    Harmless = 6,
    /// Flows that are refused.
    Refused = 7,
}

/// Whether such a record may be written.
#[inline(always)]
pub fn has_room(room: Room) -> bool {
    let map = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: a ring buffer map and a valid query.
    let filled = unsafe { bpf_ringbuf_query(map, u64::from(BPF_RB_AVAIL_DATA)) };
    filled <= RING_BYTES as u64 / 8 * room as u64
}
