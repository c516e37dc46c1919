//! Values that were there before.
//!
//! Names and headers come again with each request: who asks, what is accepted, from where. Which filtered
//! rules look at such a value and may match it depends on its bytes and on nothing else, so it is
//! found once and remembered, and so is which of them were asked about it and did not match.
//!
//! Invariant: what is remembered is compared byte by byte; requests can only make each other forget.

use super::super::names::hash;
use super::plan::Channel;

/// Values that are remembered, a power of two. With bytes and candidates that is at most 80 KiB.
const SLOTS: usize = 256;
/// Longer values hardly come again, shorter ones are scanned as fast.
const BYTES: std::ops::RangeInclusive<usize> = 2..=192;
/// Candidates of a value that is remembered.
const CANDIDATES: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memo(Vec<Slot>);

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
    /// Where the value is, if it is remembered.
    pub(super) fn slot(self) -> usize {
        self.hash as usize & (SLOTS - 1)
    }
}

impl Memo {
    /// For other rules.
    pub(super) fn forget(&mut self) {
        self.0.clear();
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
    pub(super) fn get(&self, key: Key, bytes: &[u8]) -> Option<&[u32]> {
        let slot = self.0.get(key.slot())?;
        let same = slot.hash == key.hash && slot.channel == key.channel && slot.bytes == bytes;
        same.then_some(&*slot.candidates)
    }

    /// Remembers the places of the rules that may match; `false`: they are too many.
    pub(super) fn put(&mut self, key: Key, bytes: &[u8], candidates: &[u32]) -> bool {
        if candidates.len() > CANDIDATES {
            return false;
        }
        if self.0.is_empty() {
            self.0.resize(SLOTS, Slot::default());
        }
        let slot = &mut self.0[key.slot()];
        (slot.hash, slot.channel) = (key.hash, key.channel);
        slot.bytes.clear();
        slot.bytes.extend_from_slice(bytes);
        slot.candidates.clear();
        slot.candidates.extend_from_slice(candidates);
        true
    }

    /// The rule was asked about a value that is, or was, remembered there, and did not match.
    pub(super) fn rule_out(&mut self, place: u32, slot: usize, bytes: &[u8]) {
        // Another value may have taken its place since, or the phase goes on in another thread.
        if let Some(slot) = self.0.get_mut(slot).filter(|slot| slot.bytes == bytes) {
            slot.candidates.retain(|candidate| *candidate != place);
        }
    }
}
