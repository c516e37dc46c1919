//! How often the programs have stopped something, and how much of that has been handed out.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::MapData;
use clew_protocol::kernel::KernelEvent;
use clew_sensor_abi::settings::{STOPS_ALL, STOPS_UNREPORTED};

use crate::memory::Table;

/// What the programs have stopped so far. Reading it costs a load: it is the kernel's own memory.
#[derive(Debug, Clone)]
pub struct Stops(Arc<Table<u64>>);

impl Stops {
    pub(crate) fn map(map: &MapData) -> io::Result<Self> {
        Ok(Self(Arc::new(Table::map(map, 2)?)))
    }

    /// All, since the programs were loaded. One that a process can know of (its call was refused, its
    /// child was killed) is counted before it does.
    pub fn total(&self) -> u64 {
        self.read(STOPS_ALL)
    }

    fn read(&self, index: u32) -> u64 {
        // SAFETY: inside the mapping; an aligned word.
        let sum = unsafe { AtomicU64::from_ptr(self.0.entry(index.into())) };
        sum.load(Ordering::Acquire)
    }
}

/// How much of it has been handed out.
pub(crate) struct Account {
    pub(crate) stops: Stops,
    handed_out: u64,
    settled: u64,
    /// Total and settled at the last look of [`Account::catch_up`].
    before: (u64, u64),
}

impl Account {
    pub(crate) fn new(stops: Stops) -> Self {
        Self {
            stops,
            handed_out: 0,
            settled: 0,
            before: (0, 0),
        }
    }

    pub(crate) fn hand_out(&mut self, event: &KernelEvent) {
        let is_stop = match event {
            KernelEvent::Exec(exec) => exec.decision.is_stop(),
            KernelEvent::Connect(connect) => connect.decision.is_stop(),
            KernelEvent::File(file) => file.decision.is_stop(),
            _ => false,
        };
        self.handed_out += u64::from(is_stop);
    }

    /// There was nothing left in the ring a moment ago: whatever was counted before a record that has
    /// been handed out has been so too, or has none.
    pub(crate) fn settle(&mut self) {
        self.settled = self.handed_out + self.stops.read(STOPS_UNREPORTED);
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Called now and then: what is missing since the last time will not come (its record could not be
    /// decoded), and must not be waited for. How many those are.
    pub(crate) fn catch_up(&mut self) -> u64 {
        let now = (self.stops.total(), self.settled);
        let missing = now.0.saturating_sub(now.1);
        if now != std::mem::replace(&mut self.before, now) {
            return 0;
        }
        self.handed_out += missing;
        self.settled += missing;
        missing
    }
}
