//! Values that were there before.
//!
//! Names and headers come again with each request: who asks, what is accepted, from where. Which filtered
//! rules look at such a value and may match it depends on its bytes and on nothing else, so it is
//! found once and remembered, and so is which of them were asked about it and did not match.
//!
//! Invariant: what is remembered is compared byte by byte; requests can only make each other forget.

use super::super::names::hash;
use super::super::values::{ValueId, Values};
use super::plan::Channel;

/// Values that are remembered, a power of two. With bytes and candidates that is at most 80 KiB.
const SLOTS: usize = 256;
/// Longer values hardly come again, shorter ones are scanned as fast.
const BYTES: std::ops::RangeInclusive<usize> = 2..=192;
/// Candidates of a value that is remembered.
const CANDIDATES: usize = 16;
/// Values of one transaction of which it is noted which rules do not match: each such rule goes through all of them.
const NOTED: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memo {
    slots: Vec<Slot>,
    /// Values of this transaction that are remembered and have candidates, and where: the first of them.
    here: Vec<(ValueId, usize)>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    hash: u64,
    /// Address of the channel that the value was scanned for.
    channel: usize,
    bytes: Vec<u8>,
    /// Places of rules that may match.
    candidates: Vec<u32>,
}

/// Where a value is or could be remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    hash: u64,
    channel: usize,
}

impl Key {
    fn slot(self) -> usize {
        self.hash as usize & (SLOTS - 1)
    }
}

impl Memo {
    /// For other rules.
    pub(super) fn forget(&mut self) {
        self.slots.clear();
        self.here.clear();
    }

    /// For another transaction.
    pub(super) fn reset(&mut self) {
        self.here.clear();
    }

    /// `None`: values like this are not remembered.
    pub(super) fn key(channel: &Channel, bytes: &[u8]) -> Option<Key> {
        let channel = std::ptr::from_ref(channel) as usize;
        BYTES.contains(&bytes.len()).then(|| Key {
            hash: hash(bytes) ^ (channel as u64 >> 4),
            channel,
        })
    }

    /// The places of the rules that may match, if that is known.
    pub(super) fn get(&mut self, key: Key, id: ValueId, bytes: &[u8]) -> Option<&[u32]> {
        let slot = self.slots.get(key.slot())?;
        let same = slot.hash == key.hash && slot.channel == key.channel && slot.bytes == bytes;
        if !same {
            return None;
        }
        if !slot.candidates.is_empty() && self.here.len() < NOTED {
            self.here.push((id, key.slot()));
        }
        Some(&slot.candidates)
    }

    /// Remembers the places of the rules that may match.
    pub(super) fn put(&mut self, key: Key, id: ValueId, bytes: &[u8], candidates: &[u32]) {
        if candidates.len() > CANDIDATES {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, Slot::default());
        }
        let slot = &mut self.slots[key.slot()];
        (slot.hash, slot.channel) = (key.hash, key.channel);
        slot.bytes.clear();
        slot.bytes.extend_from_slice(bytes);
        slot.candidates.clear();
        slot.candidates.extend_from_slice(candidates);
        if !candidates.is_empty() && self.here.len() < NOTED {
            self.here.push((id, key.slot()));
        }
    }

    /// The rule was asked about the value, as the value is, and did not match.
    pub(super) fn rule_out(&mut self, place: u32, id: ValueId, values: &Values) {
        for (_, index) in self.here.iter().filter(|(known, _)| *known == id) {
            let slot = &mut self.slots[*index];
            // Another value may have taken its place since.
            if slot.bytes == values.get(id) {
                slot.candidates.retain(|candidate| *candidate != place);
            }
        }
    }
}
