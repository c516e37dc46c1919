//! Sources that are refused.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use clew_protocol::{IncidentId, Moment};
use dashmap::DashMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// One ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Whom: an address, or all of a prefix.
    pub source: IpNet,
    /// Since when.
    pub since: Moment,
    /// Until when.
    pub until: Moment,
    /// Why, when an incident is why.
    pub incident: Option<IncidentId>,
    /// What was refused before it reached the proxy.
    pub dropped: Option<Dropped>,
}

/// Packets that were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// When the first was.
    pub first: Moment,
    /// How many.
    pub packets: u64,
}

/// What refuses the banned before they reach the proxy. It is told of every ban while the table of bans is
/// locked, so that both always hold the same.
pub trait Barrier: Debug + Send + Sync {
    /// Refuses a source until then.
    fn put(&self, source: IpNet, until: Moment);
    /// Lets it in again.
    fn lift(&self, source: IpNet);
    /// What was dropped of a source that is refused.
    fn dropped(&self, source: IpNet) -> Option<Dropped>;
}

/// The bans in force, bounded.
#[derive(Debug)]
pub(crate) struct Bans {
    entries: DashMap<IpNet, Entry>,
    /// Entries, so that nobody looks anything up while there are none.
    count: AtomicUsize,
    /// Which prefix lengths there are, a bit for each: a word for IPv4, two for IPv6.
    lengths: [AtomicU64; WORDS],
    book: Mutex<Book>,
    barrier: OnceLock<Box<dyn Barrier>>,
    capacity: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    since: Moment,
    until: Moment,
    incident: Option<IncidentId>,
}

/// What only those look at who change the bans.
#[derive(Debug)]
struct Book {
    /// In the order in which they end.
    ends: BTreeSet<(Moment, IpNet)>,
    /// Bans of each prefix length.
    lengths: [usize; 64 * WORDS],
}

const WORDS: usize = 3;
/// Most bans that are forgotten at once.
const EXPIRED: usize = 256;

impl Bans {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: DashMap::new(),
            count: AtomicUsize::new(0),
            lengths: Default::default(),
            book: Mutex::new(Book {
                ends: BTreeSet::new(),
                lengths: [0; 64 * WORDS],
            }),
            barrier: OnceLock::new(),
            capacity,
        }
    }

    /// Has the banned refused there too; those that are banned already as well. Only the first barrier counts.
    pub(crate) fn stand_behind(&self, barrier: Box<dyn Barrier>) {
        let book = self.book();
        let barrier = self.barrier.get_or_init(|| barrier);
        for &(until, source) in &book.ends {
            barrier.put(source, until);
        }
    }

    /// Bans `source`, for `span` at least where it is for an incident, and for just that by hand. When the
    /// table is full, the ban that ends first goes. Nothing shorter than a bit is banned: that would be everybody.
    pub(crate) fn add(&self, source: IpNet, span: Duration, incident: Option<IncidentId>) {
        let now = Moment::now();
        let source = canonical(source);
        let Some(index) = index_of(source) else {
            return;
        };
        let mut book = self.book();
        self.expire(&mut book, now);
        let mut entry = Entry {
            since: now,
            until: now.after(span),
            incident,
        };
        let before = self.entries.get(&source).map(|entry| *entry);
        if let Some(before) = before {
            entry.since = before.since;
            if incident.is_some() {
                entry.until = entry.until.max(before.until);
            }
            book.ends.remove(&(before.until, source));
        } else {
            if book.ends.len() >= self.capacity
                && let Some(&(_, first)) = book.ends.first()
            {
                self.forget(&mut book, first);
            }
            book.lengths[index] += 1;
        }
        book.ends.insert((entry.until, source));
        self.entries.insert(source, entry);
        self.publish(&book);
        if let Some(barrier) = self.barrier.get() {
            barrier.put(source, entry.until);
        }
    }

    pub(crate) fn remove(&self, source: IpNet) -> bool {
        let source = canonical(source);
        let mut book = self.book();
        let removed = self.forget(&mut book, source);
        self.publish(&book);
        removed.is_some_and(|entry| entry.until > Moment::now())
    }

    /// Forgets what has ended.
    pub(crate) fn sweep(&self) {
        let now = Moment::now();
        loop {
            let mut book = self.book();
            let is_done = self.expire(&mut book, now);
            self.publish(&book);
            if is_done {
                return;
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// One look for each prefix length that there is: mostly one in all.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        if self.is_empty() {
            return false;
        }
        let address = address.to_canonical();
        let words = match address {
            IpAddr::V4(_) => &self.lengths[..1],
            IpAddr::V6(_) => &self.lengths[1..],
        };
        let sources = lengths(words).filter_map(|length| IpNet::new(address, length).ok());
        let mut entries = sources.filter_map(|source| self.entries.get(&source.trunc()));
        entries.any(|entry| entry.until > Moment::now())
    }

    pub(crate) fn list(&self) -> Vec<Ban> {
        let now = Moment::now();
        let entries = self.entries.iter().filter(|entry| entry.until > now);
        entries
            .map(|entry| self.described(*entry.key(), *entry))
            .collect()
    }

    /// The ban of just this source, which is canonical.
    pub(crate) fn find(&self, source: IpNet) -> Option<Ban> {
        let entry = *self.entries.get(&source)?;
        Some(self.described(source, entry))
    }

    fn described(&self, source: IpNet, entry: Entry) -> Ban {
        Ban {
            source,
            since: entry.since,
            until: entry.until,
            incident: entry.incident,
            dropped: self.barrier.get().and_then(|it| it.dropped(source)),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some of it at a time: whoever bans does not wait for all of them. Whether that was all.
    fn expire(&self, book: &mut Book, now: Moment) -> bool {
        for _ in 0..EXPIRED {
            match book.ends.first() {
                Some(&(until, source)) if until <= now => self.forget(book, source),
                _ => return true,
            };
        }
        false
    }

    /// Its ban, if it had one.
    fn forget(&self, book: &mut Book, source: IpNet) -> Option<Entry> {
        let (_, entry) = self.entries.remove(&source)?;
        book.ends.remove(&(entry.until, source));
        if let Some(index) = index_of(source) {
            book.lengths[index] -= 1;
        }
        if let Some(barrier) = self.barrier.get() {
            barrier.lift(source);
        }
        Some(entry)
    }

    fn publish(&self, book: &Book) {
        for (nth, word) in self.lengths.iter().enumerate() {
            let lengths = book.lengths.iter().skip(nth * 64).take(64).enumerate();
            let bits = lengths.filter(|(_, count)| **count > 0);
            word.store(
                bits.fold(0, |word, (bit, _)| word | 1 << bit),
                Ordering::Release,
            );
        }
        self.count.store(book.ends.len(), Ordering::Release);
    }
}

/// The prefix lengths that `words` have a bit for.
fn lengths(words: &[AtomicU64]) -> impl Iterator<Item = u8> {
    let mut first = 1;
    words.iter().flat_map(move |word| {
        let mut word = word.load(Ordering::Acquire);
        let base = first;
        first += 64;
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros() as u8)?;
            word &= word - 1;
            Some(base + bit)
        })
    })
}

/// An IPv4 address by whichever family, without what lies behind the prefix.
pub(crate) fn canonical(source: IpNet) -> IpNet {
    let bits = source.prefix_len();
    let mapped = match source.addr() {
        IpAddr::V6(address) if bits >= 96 => address.to_ipv4_mapped(),
        _ => None,
    };
    match (mapped, source) {
        (Some(address), _) => Ipv4Net::new_assert(address, bits - 96).trunc().into(),
        (None, IpNet::V4(source)) => source.trunc().into(),
        (None, IpNet::V6(source)) => Ipv6Net::trunc(&source).into(),
    }
}

/// The bit of its prefix length; none where that is 0.
fn index_of(source: IpNet) -> Option<usize> {
    let first = match source {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 64,
    };
    let length = usize::from(source.prefix_len());
    length.checked_sub(1).map(|bit| first + bit)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn source(text: &str) -> IpNet {
        text.parse().expect("a source")
    }

    fn host(n: u8) -> IpNet {
        IpAddr::from([127, 0, 0, n]).into()
    }

    fn incident() -> Option<IncidentId> {
        Some(IncidentId(uuid::Uuid::nil()))
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn bans_hold_and_end() {
        let bans = Bans::new(10);
        bans.add(host(1), MINUTE, None);
        bans.add(host(2), Duration::ZERO, None);
        assert!(bans.contains(host(1).addr()));
        assert!(!bans.contains(host(2).addr()));
        assert!(bans.remove(host(1)));
        assert!(!bans.contains(host(1).addr()));
        bans.sweep();
        assert!(bans.is_empty());
    }

    #[test]
    fn mapped_addresses_are_the_same_source() {
        let bans = Bans::new(10);
        for it in ["192.0.2.1/32", "::ffff:198.51.100.0/120"] {
            bans.add(source(it), MINUTE, None);
        }
        for it in ["::ffff:192.0.2.1", "192.0.2.1", "198.51.100.200"] {
            assert!(bans.contains(it.parse().expect("a source")), "{it}");
        }
        assert!(!bans.contains("198.51.101.200".parse().expect("a source")));
    }

    #[test]
    fn prefixes_hold_for_all_in_them_and_for_nobody_else() {
        let bans = Bans::new(10);
        for it in ["203.0.113.77/24", "2001:db8:1:2::9/64"] {
            bans.add(source(it), MINUTE, None);
        }
        for (address, is_banned) in [
            ("203.0.113.0", true),
            ("203.0.113.255", true),
            ("203.0.114.0", false),
            ("2001:db8:1:2:ffff::", true),
            ("2001:db8:1:3::", false),
        ] {
            assert_eq!(
                bans.contains(address.parse().expect("a source")),
                is_banned,
                "{address}"
            );
        }
        assert!(bans.remove(source("203.0.113.0/24")));
        assert!(!bans.contains("203.0.113.5".parse().expect("a source")));
    }

    #[test]
    fn nobody_bans_everybody() {
        let bans = Bans::new(10);
        for it in ["0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96"] {
            bans.add(source(it), MINUTE, None);
        }
        assert!(bans.is_empty());
    }

    #[test]
    fn every_length_counts() {
        for (address, bits) in [("203.0.113.77", 32), ("2001:db8::77", 128)] {
            for length in 1..=bits {
                let bans = Bans::new(1);
                bans.add(source(&format!("{address}/{length}")), MINUTE, None);
                assert!(
                    bans.contains(address.parse().expect("a source")),
                    "{address}/{length}"
                );
                assert!(
                    !bans.contains("9.9.9.9".parse().expect("a source")),
                    "{address}/{length}"
                );
            }
        }
    }

    #[test]
    fn a_full_table_loses_the_ban_that_ends_first() {
        let bans = Bans::new(3);
        for n in 1..=4 {
            bans.add(host(n), Duration::from_secs(u64::from(n)), None);
        }
        assert_eq!(bans.list().len(), 3);
        assert!(!bans.contains(host(1).addr()));
    }

    /// An attack does not shorten what was decided by hand; a hand may.
    #[test]
    fn an_incident_never_shortens_a_ban() {
        let bans = Bans::new(3);
        bans.add(host(1), 10 * MINUTE, None);
        let until = |bans: &Bans| bans.list()[0].until;
        let first = until(&bans);
        bans.add(host(1), MINUTE, incident());
        assert_eq!(until(&bans), first);
        bans.add(host(1), MINUTE, None);
        assert!(until(&bans) < first);
        assert_eq!(bans.list().len(), 1);
    }

    /// A table that remembers what it was told.
    #[derive(Debug, Clone, Default)]
    struct Wall(Arc<Mutex<BTreeSet<IpNet>>>);

    impl Barrier for Wall {
        fn put(&self, source: IpNet, _: Moment) {
            self.0.lock().expect("no panic").insert(source);
        }

        fn lift(&self, source: IpNet) {
            self.0.lock().expect("no panic").remove(&source);
        }

        fn dropped(&self, _: IpNet) -> Option<Dropped> {
            None
        }
    }

    #[test]
    fn the_barrier_holds_what_the_table_holds() {
        let bans = Bans::new(3);
        let wall = Wall::default();
        bans.add(host(1), MINUTE, None);
        bans.stand_behind(Box::new(wall.clone()));
        let holds = |bans: &Bans| {
            let all: BTreeSet<IpNet> = bans.list().iter().map(|it| it.source).collect();
            assert_eq!(*wall.0.lock().expect("no panic"), all);
            all.len()
        };
        assert_eq!(holds(&bans), 1);
        for n in 2..=5 {
            bans.add(host(n), 2 * MINUTE, None);
        }
        assert_eq!(holds(&bans), 3);
        assert!(bans.remove(host(5)));
        bans.add(host(4), Duration::ZERO, None);
        bans.sweep();
        assert_eq!(holds(&bans), 1);
    }
}
