//! Strings that rules require, and where a value has them.
//!
//! An Aho-Corasick automaton over them takes 9 MiB, and each step waits for the load before it: 4 ns a
//! byte out of the second-level cache. Here each string has an *anchor*, the rarest three bytes in it,
//! and a value is passed over with one look a byte into a bit map of all anchors (32 KiB, no look waits for
//! another): 0.8 ns a byte. Only where an anchor stands are its strings compared.

use std::collections::HashMap;
use std::ops::Range;

use super::super::classes::{self, Classes};
use super::bytes::frequency;
use super::sample::share_of_triple;

/// Kinds of bytes: letters (either case), digits, the most common other bytes of strings, one kind for the
/// rest of them, and 0 for bytes in no string.
const KINDS: usize = 64;
/// Kinds of letters and digits.
const WORDS: usize = 36;
const ANCHORS: usize = KINDS * KINDS * KINDS;
/// Bytes that are looked at before what was found is compared.
const BLOCK: usize = 64;

/// The strings, and which clause of which rule each belongs to.
#[derive(Clone, Debug)]
pub(super) struct Atoms {
    /// For each string: a spec, and the bit of its clause.
    owners: Vec<Box<[(u16, u8)]>>,
    kinds: Box<[u8; 256]>,
    /// Anchors, as bits.
    map: Box<[u64]>,
    /// For each anchor the index into `buckets`.
    bucket: Box<[u16]>,
    buckets: Box<[Bucket]>,
    anchored: Box<[Anchored]>,
    /// Strings of one byte: for each class, the string.
    single: Box<[u16]>,
    singles: Classes,
}

/// The strings of an anchor, as a part of `Atoms::anchored`.
type Bucket = Range<u32>;

/// A string, of at most eight bytes.
#[derive(Clone, Copy, Debug)]
struct Anchored {
    /// In lower case, the first byte lowest.
    string: u64,
    /// The bit that differs between the cases of its letters.
    case: u64,
    /// Its bytes.
    mask: u64,
    atom: u16,
    /// Bytes from its first to the anchor's last.
    before: u8,
}

impl Anchored {
    fn new(string: &[u8], atom: u16, before: usize) -> Self {
        let mut bytes = [0; 8];
        bytes[..string.len()].copy_from_slice(string);
        let case = bytes.map(|byte| if byte.is_ascii_lowercase() { 0x20 } else { 0 });
        let mask = if string.len() == 8 {
            u64::MAX
        } else {
            (1 << (8 * string.len())) - 1
        };
        Self {
            string: u64::from_le_bytes(bytes),
            case: u64::from_le_bytes(case),
            mask,
            atom,
            before: before as u8,
        }
    }

    fn is(&self, eight: u64) -> bool {
        (eight | self.case) & self.mask == self.string
    }
}

impl Default for Atoms {
    fn default() -> Self {
        Self {
            owners: Vec::new(),
            kinds: Box::new([0; 256]),
            map: Box::default(),
            bucket: Box::default(),
            buckets: Box::default(),
            anchored: Box::default(),
            single: Box::default(),
            singles: 0,
        }
    }
}

/// Collects strings.
#[derive(Debug, Default)]
pub(super) struct AtomsBuilder {
    known: HashMap<Vec<u8>, usize>,
    strings: Vec<Vec<u8>>,
    owners: Vec<Vec<(u16, u8)>>,
}

impl AtomsBuilder {
    /// Adds a string in lower case.
    pub(super) fn add(&mut self, string: &[u8], spec: u16, bit: u8) {
        let index = *self.known.entry(string.to_vec()).or_insert_with(|| {
            self.strings.push(string.to_vec());
            self.owners.push(Vec::new());
            self.strings.len() - 1
        });
        self.owners[index].push((spec, bit));
    }

    /// `None` when there are too many.
    pub(super) fn build(self) -> Option<Atoms> {
        if self.strings.is_empty() {
            return Some(Atoms::default());
        }
        u16::try_from(self.strings.len()).ok()?;
        let kinds = kinds(&self.strings);
        let owners = self.owners.into_iter().map(Into::into).collect();
        let mut atoms = Atoms {
            owners,
            kinds,
            single: vec![u16::MAX; 128].into(),
            ..Atoms::default()
        };
        let mut buckets: HashMap<usize, Vec<Anchored>> = HashMap::new();
        for (index, string) in self.strings.iter().enumerate() {
            match string.as_slice() {
                [] => return None,
                [byte] => atoms.add_single(*byte, index as u16),
                _ => atoms.add_anchors(string, index as u16, &mut buckets),
            }
        }
        atoms.enter(buckets);
        Some(atoms)
    }
}

/// Gives kinds to the bytes in strings.
fn kinds(strings: &[Vec<u8>]) -> Box<[u8; 256]> {
    let mut counts = [0_u32; 256];
    let other = |byte: &&u8| !byte.is_ascii_alphanumeric();
    strings
        .iter()
        .flatten()
        .filter(other)
        .for_each(|byte| counts[usize::from(*byte)] += 1);
    let mut others: Vec<u8> = (0..=255)
        .filter(|byte| counts[usize::from(*byte)] > 0)
        .collect();
    others.sort_by_key(|byte| std::cmp::Reverse(counts[usize::from(*byte)]));
    let mut kinds = Box::new([0; 256]);
    for (index, byte) in others.iter().enumerate() {
        kinds[usize::from(*byte)] = (WORDS + 1 + index).min(KINDS - 1) as u8;
    }
    (b'a'..=b'z').for_each(|letter| kinds[usize::from(letter)] = letter - b'a' + 1);
    (b'A'..=b'Z').for_each(|letter| kinds[usize::from(letter)] = letter - b'A' + 1);
    (b'0'..=b'9').for_each(|digit| kinds[usize::from(digit)] = digit - b'0' + 27);
    kinds
}

impl Atoms {
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn owners(&self, atom: usize) -> &[(u16, u8)] {
        &self.owners[atom]
    }

    fn add_single(&mut self, byte: u8, atom: u16) {
        let class = classes::bit(byte);
        self.singles |= class;
        // Bytes that share a class share an atom: all owners of one are those of the other.
        let known = std::mem::replace(&mut self.single[class.trailing_zeros() as usize], atom);
        if known != u16::MAX {
            let both: Vec<_> = self.owners[usize::from(known)]
                .iter()
                .chain(&self.owners[usize::from(atom)])
                .copied()
                .collect();
            self.owners[usize::from(atom)] = both.into();
        }
    }

    fn kind(&self, byte: u8) -> usize {
        usize::from(self.kinds[usize::from(byte)])
    }

    fn add_anchors(&self, string: &[u8], atom: u16, buckets: &mut HashMap<usize, Vec<Anchored>>) {
        let anchored = |before: usize| Anchored::new(string, atom, before);
        if let [first, second] = string {
            // Whatever stands before.
            for kind in 0..KINDS {
                let anchor = (kind * KINDS + self.kind(*first)) * KINDS + self.kind(*second);
                buckets.entry(anchor).or_default().push(anchored(1));
            }
            return;
        }
        let windows = string.windows(3).enumerate().map(|(start, window)| {
            let anchor = window
                .iter()
                .fold(0, |anchor, byte| anchor * KINDS + self.kind(*byte));
            let crowd = buckets.get(&anchor).map_or(0, Vec::len);
            let product: f32 = window.iter().map(|byte| frequency(*byte)).product();
            let rarity = product + share_of_triple([window[0], window[1], window[2]]);
            (rarity * (1.0 + crowd as f32 / 4.0), anchor, start + 2)
        });
        if let Some((_, anchor, before)) = windows.min_by(|a, b| a.0.total_cmp(&b.0)) {
            buckets.entry(anchor).or_default().push(anchored(before));
        }
    }

    fn enter(&mut self, buckets: HashMap<usize, Vec<Anchored>>) {
        let mut map = vec![0_u64; ANCHORS / 64];
        let mut bucket = vec![0_u16; ANCHORS];
        let mut all = Vec::with_capacity(buckets.len());
        let mut anchored = Vec::new();
        for (anchor, strings) in buckets {
            map[anchor / 64] |= 1 << (anchor % 64);
            bucket[anchor] = all.len() as u16;
            let start = anchored.len() as u32;
            anchored.extend(strings);
            all.push(start..anchored.len() as u32);
        }
        (self.map, self.bucket, self.buckets, self.anchored) =
            (map.into(), bucket.into(), all.into(), anchored.into());
    }

    /// Tells of each string that occurs, perhaps more than once. `here`: the classes of `bytes`.
    pub(super) fn find(&self, bytes: &[u8], here: Classes, mut found: impl FnMut(usize)) {
        let mut singles = here & self.singles;
        while singles != 0 {
            found(usize::from(self.single[singles.trailing_zeros() as usize]));
            singles &= singles - 1;
        }
        let Ok(map) = <&[u64; ANCHORS / 64]>::try_from(&*self.map) else {
            return;
        };
        // The kinds of the two bytes before.
        let (mut first, mut second) = (0, 0);
        for (number, block) in bytes.chunks(BLOCK).enumerate() {
            // Where anchors end, the first byte of a block highest: no branch to be guessed.
            let mut hits = 0_u64;
            for byte in block {
                let third = self.kind(*byte);
                let word = map[(first << 6 | second) % (ANCHORS / 64)];
                hits = hits << 1 | word >> (third % 64) & 1;
                (first, second) = (second, third);
            }
            hits <<= BLOCK - block.len();
            while hits != 0 {
                let index = hits.leading_zeros();
                hits ^= 1 << 63 >> index;
                self.compare(bytes, number * BLOCK + index as usize, &mut found);
            }
        }
    }

    /// Compares the strings of the anchor that ends at `end`.
    fn compare(&self, bytes: &[u8], end: usize, found: &mut impl FnMut(usize)) {
        let window = bytes[end.saturating_sub(2)..=end].iter();
        let anchor = window.fold(0, |anchor, byte| anchor * KINDS + self.kind(*byte));
        let Range { start, end: last } = self.buckets[usize::from(self.bucket[anchor])].clone();
        for anchored in &self.anchored[start as usize..last as usize] {
            let Some(start) = end.checked_sub(anchored.before.into()) else {
                continue;
            };
            if anchored.is(eight(bytes, start)) {
                found(anchored.atom.into());
            }
        }
    }
}

/// Eight bytes from `start` on; those beyond the end are 0xff. A string that ends with that byte may be
/// found where it is not, which does no harm.
fn eight(bytes: &[u8], start: usize) -> u64 {
    match bytes.get(start..start + 8) {
        Some(whole) => u64::from_le_bytes(whole.try_into().unwrap_or_default()),
        None => {
            let mut padded = [0xff; 8];
            let rest = &bytes[start.min(bytes.len())..];
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(padded)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(strings: &[&[u8]], value: &[u8]) -> Vec<usize> {
        let mut builder = AtomsBuilder::default();
        strings
            .iter()
            .enumerate()
            .for_each(|(index, string)| builder.add(string, index as u16, 1));
        let atoms = builder.build().expect("few");
        let mut found = Vec::new();
        atoms.find(value, classes::classes(value), |atom| found.push(atom));
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn all_strings_are_found_in_any_case() {
        let strings: [&[u8]; 6] = [b"select", b"elect", b"lec", b"xs", b"(", b"nothing"];
        assert_eq!(found(&strings, b"xSeLeCt("), [0, 1, 2, 3, 4]);
        assert_eq!(found(&strings, b"xs"), [3]);
        assert_eq!(found(&strings, b"lec"), [2]);
        assert!(found(&strings, b"").is_empty());
    }

    /// The same as a search for each string.
    #[test]
    fn nothing_is_missed() {
        let mut seed = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below) as u8
        };
        for _ in 0..200 {
            let strings: Vec<Vec<u8>> = (0..40)
                .map(|_| (0..=random(6)).map(|_| b'a' + random(4)).collect())
                .collect();
            let value: Vec<u8> = (0..random(60)).map(|_| b'a' + random(4)).collect();
            let mut distinct: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
            distinct.sort_unstable();
            distinct.dedup();
            let want = (0..distinct.len())
                .filter(|i| memchr::memmem::find(&value, distinct[*i]).is_some());
            assert_eq!(found(&distinct, &value), want.collect::<Vec<_>>());
        }
    }
}
