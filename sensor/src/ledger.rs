//! Who has read what: the ledger the programs keep, and the requests whose reading is waited for.

use std::cmp::Ordering as CmpOrdering;
use std::collections::HashSet;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::MapData;
use clew_protocol::kernel::{Bound, FileKey, KernelEvent, ProcessKey};
use clew_protocol::request::InFlight;
use clew_protocol::{Moment, Sequence};
use clew_sensor_abi::ledger::{Accepted, ENTRIES, Reading as Written};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// How long a token may still arrive after the proxy is done with its request.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// How long a request that arrived may lie unread after the proxy is done with it: as long as
/// one can be blamed.
const UNREAD: Duration = Duration::from_secs(60);
/// Most requests waited for.
const CAPACITY: usize = 1 << 17;

/// An array map of the kernel's, as memory.
struct Table<T> {
    entries: NonNull<T>,
}

// SAFETY: kernel memory that any thread may read; it is unmapped when the owner goes.
unsafe impl<T> Send for Table<T> {}

/// The maps that make up the ledger.
struct Ledger {
    accepted: Table<Accepted>,
    readings: Table<Written>,
}

/// What an entry says of one request.
enum Reading {
    /// Its token has not arrived.
    NotArrived,
    /// Nobody has read it.
    Unread,
    /// A task has.
    Read { bound: Bound, interleaved: bool },
    /// A later request has taken the entry.
    Overwritten,
}

impl<T> Table<T> {
    const BYTES: usize = ENTRIES * size_of::<T>();

    fn map(map: &MapData) -> io::Result<Self> {
        // SAFETY: a new mapping of an array map with BPF_F_MMAPABLE, whose elements are `T`.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                Self::BYTES,
                ProtFlags::READ,
                MapFlags::SHARED,
                map.fd(),
                0,
            )?
        };
        let entries = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { entries })
    }

    fn entry(&self, sequence: u64) -> *mut T {
        // SAFETY: inside the mapping.
        unsafe { self.entries.add(sequence as usize % ENTRIES).as_ptr() }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; nothing borrows from it.
        let _ = unsafe { munmap(self.entries.as_ptr().cast(), Self::BYTES) };
    }
}

impl Ledger {
    /// Looks at the entries of `sequence`, which the kernel may be writing.
    fn read(&self, sequence: u64) -> Reading {
        // SAFETY: inside the mapping; what is half written does not have its own digest.
        let written = unsafe { self.readings.entry(sequence).read_volatile() };
        if written.sequence == sequence && written.check == written.digest() {
            return Reading::Read {
                bound: bound_of(&written),
                interleaved: written.flags.interleaved != 0,
            };
        }
        // SAFETY: inside the mapping; an aligned word.
        let newest = unsafe { AtomicU64::from_ptr(self.accepted.entry(sequence)) };
        match newest.load(Ordering::Acquire).cmp(&sequence) {
            CmpOrdering::Less => Reading::NotArrived,
            CmpOrdering::Equal => Reading::Unread,
            CmpOrdering::Greater => Reading::Overwritten,
        }
    }
}

fn bound_of(entry: &Written) -> Bound {
    Bound {
        at: Moment(entry.at),
        sequence: Sequence(entry.sequence),
        process: ProcessKey {
            tgid: entry.tgid,
            start: entry.start,
        },
        tid: entry.tid,
        executable: FileKey {
            device: crate::file::user_device(entry.executable.device),
            inode: entry.executable.inode,
        },
        same_read: entry.flags.same_read,
        previous_unanswered: entry.flags.previous_unanswered != 0,
    }
}

/// What is known of a request that is waited for.
#[derive(Debug, Default)]
struct Awaited {
    read: bool,
    interleaved: bool,
    ended: Option<Moment>,
}

impl Awaited {
    /// Takes what the ledger says; whether the request needs no more looks.
    fn learn(
        &mut self,
        sequence: u64,
        reading: Reading,
        now: Moment,
        lost: &mut u64,
        events: &mut Vec<KernelEvent>,
    ) -> bool {
        let ended = self.ended;
        let for_long = |span| ended.is_some_and(|at| now.since(at) >= span);
        match reading {
            Reading::Read { bound, interleaved } => {
                let at = bound.at;
                if !self.read {
                    self.read = true;
                    events.push(KernelEvent::Bound(bound));
                }
                if interleaved && !self.interleaved {
                    self.interleaved = true;
                    let sequence = Sequence(sequence);
                    events.push(KernelEvent::Interleaved { sequence, at });
                }
                self.ended.is_some()
            }
            Reading::NotArrived => for_long(ON_ITS_WAY),
            Reading::Unread => for_long(UNREAD),
            Reading::Overwritten => {
                self.overtaken(sequence, now, lost, events);
                true
            }
        }
    }
}

impl Awaited {
    /// As many newer requests have come as the ledger holds. Of one that was not read by then it
    /// cannot be known any more who reads it. Of one that was, and goes on (a WebSocket), it cannot
    /// be known whether its thread will answer it behind the back of another: its process is taken
    /// for one that does.
    fn overtaken(
        &mut self,
        sequence: u64,
        now: Moment,
        lost: &mut u64,
        events: &mut Vec<KernelEvent>,
    ) {
        if !self.read {
            *lost += 1;
        } else if self.ended.is_none() && !self.interleaved {
            let sequence = Sequence(sequence);
            events.push(KernelEvent::Interleaved { sequence, at: now });
        }
    }
}

/// The requests whose reading is waited for, and where it will be found.
pub(crate) struct Reads {
    ledger: Ledger,
    /// In flight, in ascending order of their sequences: they come nearly so.
    open: Vec<(u64, Awaited)>,
    /// Over, and not read.
    unread: Vec<(u64, Awaited)>,
    looked_at_unread: Moment,
    /// Requests of which it cannot be known any more who read them, or how they ended.
    pub(crate) lost: u64,
}

/// How often requests that are over and were not read are looked at when nothing happens.
const SELDOM: Duration = Duration::from_millis(200);

impl Reads {
    /// `accepted` and `readings` are the maps of these names.
    pub(crate) fn new(accepted: &MapData, readings: &MapData) -> io::Result<Self> {
        let ledger = Ledger {
            accepted: Table::map(accepted)?,
            readings: Table::map(readings)?,
        };
        Ok(Self {
            ledger,
            open: Vec::new(),
            unread: Vec::new(),
            looked_at_unread: Moment(0),
            lost: 0,
        })
    }

    pub(crate) fn expect(&mut self, sequence: Sequence) {
        make_room(&mut self.open, &mut self.lost);
        let behind = self.open.iter().rev();
        let later = behind.take_while(|(other, _)| *other > sequence.0).count();
        let at = self.open.len() - later;
        if at > 0 && self.open[at - 1].0 == sequence.0 {
            return;
        }
        self.open.insert(at, (sequence.0, Awaited::default()));
    }

    pub(crate) fn ended(&mut self, sequence: Sequence, at: Moment) {
        if let Ok(index) = self.open.binary_search_by_key(&sequence.0, |(it, _)| *it) {
            self.open[index].1.ended.get_or_insert(at);
        }
    }

    /// Makes up for what was not heard of: older ones that are not among these are over.
    pub(crate) fn in_flight(&mut self, list: &InFlight) {
        let open: HashSet<u64> = list.open.iter().map(|it| it.0).collect();
        for (sequence, awaited) in &mut self.open {
            if *sequence < list.below.0 && !open.contains(sequence) {
                awaited.ended.get_or_insert(list.at);
            }
        }
        for &sequence in &list.open {
            self.expect(sequence);
        }
    }

    /// Appends what has been read since the last look, in no order. With `thorough`, requests are
    /// looked at that are over and most likely will never be read, too.
    pub(crate) fn look(&mut self, now: Moment, thorough: bool, events: &mut Vec<KernelEvent>) {
        let Self {
            ledger,
            open,
            unread,
            lost,
            ..
        } = self;
        open.retain_mut(|(sequence, awaited)| {
            if awaited.learn(*sequence, ledger.read(*sequence), now, lost, events) {
                return false;
            }
            if awaited.ended.is_some() {
                make_room(unread, lost);
                unread.push((*sequence, std::mem::take(awaited)));
                return false;
            }
            true
        });
        if thorough || now.since(self.looked_at_unread) >= SELDOM {
            self.looked_at_unread = now;
            self.unread.retain_mut(|(sequence, awaited)| {
                !awaited.learn(
                    *sequence,
                    self.ledger.read(*sequence),
                    now,
                    &mut self.lost,
                    events,
                )
            });
        }
    }
}

/// Forgets the oldest half when there are too many.
fn make_room(requests: &mut Vec<(u64, Awaited)>, lost: &mut u64) {
    if requests.len() >= CAPACITY {
        requests.drain(..CAPACITY / 2);
        *lost += CAPACITY as u64 / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overtaken(awaited: &mut Awaited) -> (u64, Vec<KernelEvent>) {
        let (mut lost, mut events) = (0, Vec::new());
        let over = awaited.learn(7, Reading::Overwritten, Moment(9), &mut lost, &mut events);
        assert!(over, "it was looked at again");
        (lost, events)
    }

    #[test]
    fn a_request_overtaken_before_it_was_read_is_lost() {
        let (lost, events) = overtaken(&mut Awaited::default());
        assert_eq!((lost, events.len()), (1, 0));
    }

    #[test]
    fn one_that_goes_on_is_taken_for_interleaved_and_costs_nobody_else_his_proof() {
        let mut awaited = Awaited {
            read: true,
            ..Awaited::default()
        };
        let (lost, events) = overtaken(&mut awaited);
        assert_eq!(lost, 0);
        assert!(matches!(
            events[..],
            [KernelEvent::Interleaved {
                sequence: Sequence(7),
                ..
            }]
        ));
    }

    #[test]
    fn one_that_was_read_and_is_over_says_nothing_more() {
        let mut awaited = Awaited {
            read: true,
            ended: Some(Moment(5)),
            ..Awaited::default()
        };
        let (lost, events) = overtaken(&mut awaited);
        assert_eq!((lost, events.len()), (0, 0));
    }
}
