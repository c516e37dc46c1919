//! Persistent collections: `IP`, `GLOBAL`, `SESSION`, `USER`, `RESOURCE`.
//!
//! The engine knows them through [`Collections`], so that an outside store can hold them.
//! [`MemoryCollections`] keeps them in this process, bounded.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Which collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "named as in the reference manual")]
pub enum Collection {
    Ip,
    Global,
    Session,
    User,
    Resource,
}

impl Collection {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Ip,
        Self::Global,
        Self::Session,
        Self::User,
        Self::Resource,
    ];

    /// The collection that `initcol` and `setvar` name so.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "ip" => Some(Self::Ip),
            "global" => Some(Self::Global),
            "session" => Some(Self::Session),
            "user" => Some(Self::User),
            "resource" => Some(Self::Resource),
            _ => None,
        }
    }
}

/// A variable of a persistent collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name, in lower case.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Since the Unix epoch; after that it is gone.
    pub expires: Option<Duration>,
}

/// What a rule changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets the value; an expiry that was set stays.
    Set(&'a [u8]),
    /// Adds to the number, from 0.
    Add(i64),
    /// Takes the variable away.
    Unset,
    /// Lets it expire, at this time since the Unix epoch.
    Expire(Duration),
}

/// A record: all variables of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Its variables.
    pub variables: Vec<Stored>,
    /// When it was made, since the Unix epoch.
    pub created: Duration,
    /// When it was last changed, since the Unix epoch.
    pub updated: Duration,
    /// How often it was changed.
    pub updates: u64,
}

/// Where persistent collections live. Times are given, since the Unix epoch.
pub trait Collections: Send + Sync {
    /// The record of `key`, without what has expired. `None`: there is none.
    fn load(&self, collection: Collection, key: &[u8], now: Duration) -> Option<Record>;

    /// Changes one variable, at once. A record that is not changed for `timeout` is gone.
    fn change(&self, place: Place<'_>, change: Change<'_>, now: Duration, timeout: Duration);
}

/// One variable of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Which collection.
    pub collection: Collection,
    /// Which record.
    pub key: &'a [u8],
    /// Which variable, in lower case.
    pub name: &'a [u8],
}

/// Variables per record.
const VARIABLES: usize = 128;
/// Bytes of a key, a name, a value: what is longer is not stored.
const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 4096;
const SHARDS: usize = 16;

/// Collections in memory. Records are bounded in number; the one that was not changed for the
/// longest time goes first. So an attacker who makes records pushes out old ones: choose the
/// capacity with regard to memory (a record of CRS takes about 400 bytes) and the ban above it.
#[derive(Debug)]
pub struct MemoryCollections {
    shards: Vec<Mutex<Shard>>,
    capacity_per_shard: usize,
    hasher: RandomState,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    records: HashMap<Box<[u8]>, Kept>,
    /// Keys by when they were last changed.
    order: BTreeMap<u64, Box<[u8]>>,
    sequence: u64,
}

#[derive(Debug, Default)]
struct Kept {
    record: Record,
    gone: Duration,
    sequence: u64,
}

impl Default for MemoryCollections {
    /// 100,000 records: about 40 MB when all are in use.
    fn default() -> Self {
        Self::new(100_000)
    }
}

impl MemoryCollections {
    /// At most `capacity` records (rounded up to a multiple of 16).
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity_per_shard: capacity.div_ceil(SHARDS).max(1),
            hasher: RandomState::new(),
            evicted: AtomicU64::new(0),
        }
    }

    /// How many records were pushed out by newer ones.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|s| {
                s.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .records
                    .len()
            })
            .sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }
}

fn whole_key(collection: Collection, key: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(key.len() + 1);
    whole.push(collection as u8);
    whole.extend_from_slice(key);
    whole
}

impl Collections for MemoryCollections {
    fn load(&self, collection: Collection, key: &[u8], now: Duration) -> Option<Record> {
        let key = whole_key(collection, key);
        let shard = self
            .shard(&key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let kept = shard.records.get(&*key).filter(|kept| kept.gone > now)?;
        let mut record = kept.record.clone();
        record
            .variables
            .retain(|v| v.expires.is_none_or(|at| at > now));
        Some(record)
    }

    fn change(&self, place: Place<'_>, change: Change<'_>, now: Duration, timeout: Duration) {
        let key = whole_key(place.collection, place.key);
        let value_bytes = if let Change::Set(value) = change {
            value.len()
        } else {
            0
        };
        if key.len() > KEY_BYTES || place.name.len() > KEY_BYTES || value_bytes > VALUE_BYTES {
            return;
        }
        let mut shard = self
            .shard(&key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.touch(&key, now, timeout, self.capacity_per_shard) {
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(kept) = shard.records.get_mut(&*key) {
            apply(&mut kept.record, place.name, change, now);
        }
    }
}

impl Shard {
    /// Makes or renews a record; `true` when another had to go for it.
    fn touch(&mut self, key: &[u8], now: Duration, timeout: Duration, capacity: usize) -> bool {
        self.sequence += 1;
        let sequence = self.sequence;
        let kept = self.records.entry(key.into()).or_default();
        let old = std::mem::replace(&mut kept.sequence, sequence);
        if kept.gone <= now {
            kept.record = Record {
                created: now,
                ..Record::default()
            };
        }
        kept.gone = now.saturating_add(timeout);
        self.order.remove(&old);
        self.order.insert(sequence, key.into());
        self.records.len() > capacity && self.evict()
    }

    fn evict(&mut self) -> bool {
        let oldest = self.order.pop_first();
        oldest.is_some_and(|(_, key)| self.records.remove(&key).is_some())
    }
}

fn apply(record: &mut Record, name: &[u8], change: Change<'_>, now: Duration) {
    record.updated = now;
    record.updates += 1;
    record
        .variables
        .retain(|v| v.expires.is_none_or(|at| at > now));
    apply_change(&mut record.variables, name, change);
}

/// Carries out one change on the variables of a record.
pub(super) fn apply_change(variables: &mut Vec<Stored>, name: &[u8], change: Change<'_>) {
    let known = variables.iter().position(|v| v.name == name);
    match (known, change) {
        (Some(at), Change::Unset) => drop(variables.remove(at)),
        (Some(at), Change::Set(value)) => variables[at].value = value.to_vec(),
        (Some(at), Change::Add(by)) => {
            let sum = super::number::integer(&variables[at].value).saturating_add(by);
            variables[at].value = sum.to_string().into_bytes();
        }
        (Some(at), Change::Expire(when)) => variables[at].expires = Some(when),
        (None, Change::Set(value)) => push(variables, name, value.to_vec()),
        (None, Change::Add(by)) => push(variables, name, by.to_string().into_bytes()),
        (None, Change::Unset | Change::Expire(_)) => {}
    }
}

fn push(variables: &mut Vec<Stored>, name: &[u8], value: Vec<u8>) {
    if variables.len() < VARIABLES {
        variables.push(Stored {
            name: name.to_vec(),
            value,
            expires: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn place(key: &[u8]) -> Place<'_> {
        Place {
            collection: Collection::Ip,
            key,
            name: b"n",
        }
    }

    fn value(store: &MemoryCollections, key: &[u8], now: u64) -> Option<Vec<u8>> {
        let record = store.load(Collection::Ip, key, Duration::from_secs(now))?;
        record.variables.first().map(|v| v.value.clone())
    }

    #[test]
    fn counts_and_expires() {
        let store = MemoryCollections::new(100);
        let at = Duration::from_secs;
        store.change(place(b"a"), Change::Add(2), at(10), HOUR);
        store.change(place(b"a"), Change::Add(3), at(10), HOUR);
        store.change(place(b"a"), Change::Expire(at(20)), at(10), HOUR);
        assert_eq!(value(&store, b"a", 15), Some(b"5".to_vec()));
        assert_eq!(value(&store, b"a", 20), None);
    }

    #[test]
    fn records_time_out() {
        let store = MemoryCollections::new(100);
        store.change(
            place(b"a"),
            Change::Set(b"x"),
            Duration::from_secs(10),
            HOUR,
        );
        assert!(value(&store, b"a", 3609).is_some());
        assert!(value(&store, b"a", 3610).is_none());
    }

    #[test]
    fn the_oldest_goes_first_and_is_counted() {
        let store = MemoryCollections::new(SHARDS);
        for n in 0..1000_u32 {
            store.change(place(&n.to_be_bytes()), Change::Add(1), HOUR, HOUR);
        }
        assert_eq!(store.len(), SHARDS);
        assert_eq!(store.evicted(), 1000 - SHARDS as u64);
        assert!(
            store
                .load(Collection::Ip, &999_u32.to_be_bytes(), HOUR)
                .is_some()
        );
    }
}
