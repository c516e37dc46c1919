//! A table of names that have no case.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// Finds the number of a name by its hash. The names themselves are kept by who owns the table.
#[derive(Clone, Debug, Default)]
pub(super) struct NameTable {
    hashes: Vec<u64>,
    /// Numbers, plus one, by hash; a power of two of places. Empty while there are few names.
    table: Vec<u16>,
}

/// Up to so many names are compared one by one.
const FEW: usize = 16;

/// Another one for each process: names come from requests, and must not be made to collide.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0) | 1);

/// The hash of a name, without regard to case.
pub(super) fn hash(name: &[u8]) -> u64 {
    // A bit that differs between the cases of a letter is set in all bytes; the owner compares exactly.
    const FOLD: u64 = 0x2020_2020_2020_2020;
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, word: u64| {
        let product = u128::from(state ^ word) * u128::from(ODD);
        product as u64 ^ (product >> 64) as u64
    };
    let mut state = *SEED ^ name.len() as u64;
    let mut chunks = name.chunks_exact(8);
    for chunk in &mut chunks {
        state = mix(
            state,
            u64::from_le_bytes(chunk.try_into().unwrap_or_default()) | FOLD,
        )
        .wrapping_add(*SEED);
    }
    let mut rest = [0; 8];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(state, u64::from_le_bytes(rest) | FOLD)
}

impl NameTable {
    pub(super) fn clear(&mut self) {
        self.hashes.clear();
        self.table.clear();
    }

    /// The number of the name that has this hash and `is` the one.
    pub(super) fn find(&self, hash: u64, is: impl Fn(usize) -> bool) -> Option<usize> {
        let same = |number: usize| self.hashes[number] == hash && is(number);
        if self.table.is_empty() {
            return (0..self.hashes.len()).find(|number| same(*number));
        }
        let last = self.table.len() - 1;
        let mut place = hash as usize & last;
        loop {
            match usize::from(self.table[place]) {
                0 => return None,
                number if same(number - 1) => return Some(number - 1),
                _ => place = (place + 1) & last,
            }
        }
    }

    /// Adds a name that is not there; it gets the next number. At most 65,534 names.
    pub(super) fn add(&mut self, hash: u64) {
        self.hashes.push(hash);
        let count = self.hashes.len();
        if count <= FEW {
            return;
        }
        if self.table.len() < 2 * count {
            self.table.clear();
            self.table.resize((4 * count).next_power_of_two(), 0);
            (0..count).for_each(|number| self.enter(number));
        } else {
            self.enter(count - 1);
        }
    }

    fn enter(&mut self, number: usize) {
        let last = self.table.len() - 1;
        let mut place = self.hashes[number] as usize & last;
        while self.table[place] != 0 {
            place = (place + 1) & last;
        }
        self.table[place] = number as u16 + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_hash() {
        let names: Vec<String> = (0..500).map(|n| format!("name_{n}")).collect();
        let mut table = NameTable::default();
        names
            .iter()
            .for_each(|name| table.add(hash(name.as_bytes())));
        for (number, name) in names.iter().enumerate() {
            let upper = name.to_ascii_uppercase();
            assert_eq!(
                table.find(hash(upper.as_bytes()), |n| names[n]
                    .eq_ignore_ascii_case(&upper)),
                Some(number)
            );
        }
        assert_eq!(table.find(hash(b"other"), |n| names[n] == "other"), None);
    }
}
