//! Stops: how many there have been, in memory that the loader maps. Whoever passes on what a backend
//! answers can see at a glance that something was stopped which nobody has looked into yet.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_xadd};

use clew_sensor_abi::settings::{STOPS_ALL, STOPS_UNREPORTED};

use crate::maps::STOPS;

/// Counts a stop, after its record and before anybody can know of it: a refused caller returns, and a
/// killed program's parent is told, later than this.
#[inline(always)]
pub fn note_stop(is_reported: bool) {
    add_one(STOPS_ALL);
    if !is_reported {
        add_one(STOPS_UNREPORTED);
    }
}

#[inline(always)]
fn add_one(index: u32) {
    if let Some(sum) = STOPS.get_ptr_mut(index) {
        // SAFETY: an element of an array map; other CPUs add too.
        unsafe { atomic_xadd::<u64, u64, { SeqCst }>(sum, 1) };
    }
}
