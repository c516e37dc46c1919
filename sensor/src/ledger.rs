//! Who has read what: the ledger the programs keep, and the requests whose reading is waited for.

use std::cmp::Ordering as CmpOrdering;
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::MapData;
use clew_protocol::kernel::{Bound, FileKey, Handed, KernelEvent, ProcessKey, Strength};
use clew_protocol::request::InFlight;
use clew_protocol::{Moment, Sequence};
use clew_sensor_abi::ledger::{Accepted, ENTRIES, Flags, Reading as Written};
use clew_sensor_abi::record::{STRENGTH_NONE, STRENGTH_READER, STRENGTH_THREAD};

use crate::hops::Log;
use crate::memory::Table;

/// How long a token may still arrive after the proxy is done with its request.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// How long a request that arrived may lie unread after the proxy is done with it: as long as
/// one can be blamed.
const UNREAD: Duration = Duration::from_secs(60);
/// Most requests waited for.
const CAPACITY: usize = 1 << 17;

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
    Read(Bound),
    /// A later request has taken the entry.
    Overwritten,
}

impl Ledger {
    /// Looks at the entries of `sequence`, which the kernel may be writing.
    fn read(&self, sequence: u64) -> Reading {
        // SAFETY: inside the mapping; what is half written does not have its own digest.
        let written = unsafe { self.readings.entry(sequence).read_volatile() };
        if written.sequence == sequence && written.check == written.digest() {
            return Reading::Read(bound_of(&written));
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

pub(crate) fn bound_of(entry: &Written) -> Bound {
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
        handed: handed_of(entry.flags),
    }
}

/// Who has sent what had no token.
fn handed_of(flags: Flags) -> Option<Handed> {
    let strength = match flags.handed {
        STRENGTH_NONE => return None,
        STRENGTH_READER => Strength::Reader,
        STRENGTH_THREAD => Strength::Thread,
        _ => Strength::Process,
    };
    Some(Handed {
        tgid: flags.from,
        strength,
    })
}

/// What is known of a request that is waited for.
#[derive(Debug, Default)]
struct Awaited {
    /// It has been told who read it; what is in flight stays listed, so that it is told once.
    read: bool,
    ended: Option<Moment>,
}

impl Awaited {
    /// Takes what the ledger says; whether the request needs no more looks.
    fn learn(
        &mut self,
        reading: Reading,
        now: Moment,
        lost: &mut u64,
        events: &mut Vec<KernelEvent>,
    ) -> bool {
        let ended = self.ended;
        let for_long = |span| ended.is_some_and(|at| now.since(at) >= span);
        match reading {
            Reading::Read(bound) => {
                self.read = true;
                events.push(KernelEvent::Bound(bound));
                ended.is_some()
            }
            Reading::NotArrived => for_long(ON_ITS_WAY),
            Reading::Unread => for_long(UNREAD),
            Reading::Overwritten => {
                // As many newer requests have come as the ledger holds.
                *lost += 1;
                true
            }
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
    hops: Log,
    /// Requests of which it cannot be known any more who read them.
    pub(crate) lost: u64,
}

/// How often requests that are over and were not read are looked at when nothing happens.
const SELDOM: Duration = Duration::from_millis(200);

impl Reads {
    /// `accepted` and `readings` are the maps of these names.
    pub(crate) fn new(accepted: &MapData, readings: &MapData, hops: Log) -> io::Result<Self> {
        let ledger = Ledger {
            accepted: Table::map(accepted, ENTRIES)?,
            readings: Table::map(readings, ENTRIES)?,
        };
        Ok(Self {
            ledger,
            open: Vec::new(),
            unread: Vec::new(),
            looked_at_unread: Moment(0),
            hops,
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
            if awaited.read {
                return awaited.ended.is_none();
            }
            if awaited.learn(ledger.read(*sequence), now, lost, events) {
                return false;
            }
            if !awaited.read && awaited.ended.is_some() {
                make_room(unread, lost);
                unread.push((*sequence, std::mem::take(awaited)));
                return false;
            }
            true
        });
        if thorough || now.since(self.looked_at_unread) >= SELDOM {
            self.looked_at_unread = now;
            self.unread.retain_mut(|(sequence, awaited)| {
                !awaited.learn(self.ledger.read(*sequence), now, &mut self.lost, events)
            });
        }
        self.lost += self.hops.look(now, events);
    }
}

/// Forgets the oldest half when there are too many.
fn make_room(requests: &mut Vec<(u64, Awaited)>, lost: &mut u64) {
    if requests.len() >= CAPACITY {
        requests.drain(..CAPACITY / 2);
        *lost += CAPACITY as u64 / 2;
    }
}
