//! The log of further readings: requests that went on to another process, in the order of their being read.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::MapData;
use clew_protocol::Moment;
use clew_protocol::kernel::{Bound, KernelEvent};
use clew_sensor_abi::ledger::{HOPS, Reading};

use crate::ledger::bound_of;
use crate::memory::Table;

/// How long an entry may take to be written once it has a number; it takes less than a microsecond.
const WRITING: Duration = Duration::from_millis(100);

/// The log, read up to somewhere.
pub(crate) struct Log {
    entries: Table<Reading>,
    count: Table<u64>,
    /// The first entry that was not looked at.
    next: u64,
    /// Entries that were being written when they were looked at, and when that was.
    unfinished: Vec<(u64, Moment)>,
}

impl Log {
    /// `entries` and `count` are the maps `HOP_READINGS` and `HOP_COUNT`.
    pub(crate) fn map(entries: &MapData, count: &MapData) -> io::Result<Self> {
        Ok(Self {
            entries: Table::map(entries, HOPS)?,
            count: Table::map(count, 1)?,
            next: 0,
            unfinished: Vec::new(),
        })
    }

    /// Appends what is new; how many entries have got lost.
    pub(crate) fn look(&mut self, now: Moment, events: &mut Vec<KernelEvent>) -> u64 {
        // SAFETY: inside the mapping; an aligned word.
        let count = unsafe { AtomicU64::from_ptr(self.count.entry(0)) }.load(Ordering::Acquire);
        let oldest = count.saturating_sub(HOPS as u64);
        let mut lost = oldest.saturating_sub(self.next);
        let new = (self.next.max(oldest)..count).map(|nth| (nth, now));
        self.unfinished.extend(new);
        self.next = count;
        for (nth, since) in std::mem::take(&mut self.unfinished) {
            match self.entry(nth) {
                Some(bound) => events.push(KernelEvent::Bound(bound)),
                None if nth >= oldest && now.since(since) < WRITING => {
                    self.unfinished.push((nth, since));
                }
                None => lost += 1,
            }
        }
        lost
    }

    /// The `nth` entry, if it is there and whole.
    fn entry(&self, nth: u64) -> Option<Bound> {
        // SAFETY: inside the mapping; what is half written does not have its own digest.
        let written = unsafe { self.entries.entry(nth).read_volatile() };
        let is_whole = written.sequence != 0 && written.check == written.digest_in_log(nth);
        is_whole.then(|| bound_of(&written))
    }
}
