//! Sets of bytes, and how common bytes are in values that do no harm.

use regex_syntax::hir::Class;

/// A set of bytes. Of letters always both cases are in it, so that it holds for a value in lower
/// case, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    /// The bytes of a class of a pattern. `None`: some of its characters have several bytes.
    pub(super) fn of(class: &Class) -> Option<Self> {
        let ranges = match class {
            Class::Bytes(bytes) => bytes.clone(),
            Class::Unicode(characters) => characters.to_byte_class()?,
        };
        let bytes = ranges.ranges().iter();
        Some(
            bytes
                .flat_map(|range| range.start()..=range.end())
                .collect(),
        )
    }

    pub(super) fn insert(&mut self, byte: u8) {
        self.add(byte.to_ascii_lowercase());
        self.add(byte.to_ascii_uppercase());
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    pub(super) fn union(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(mine, theirs)| *mine |= theirs);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=255).filter(|byte| self.contains(*byte))
    }

    /// How many, letters of both cases counted once.
    pub(super) fn len(&self) -> usize {
        self.iter()
            .filter(|byte| !byte.is_ascii_uppercase())
            .count()
    }

    /// How probable one of them is at some place of a value.
    pub(super) fn frequency(&self) -> f32 {
        self.iter()
            .filter(|byte| !byte.is_ascii_uppercase())
            .map(frequency)
            .sum::<f32>()
            .min(1.0)
    }
}

impl FromIterator<u8> for ByteSet {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        let mut set = Self::default();
        bytes.into_iter().for_each(|byte| set.insert(byte));
        set
    }
}

/// How common a byte is, in either case, in header values, names, numbers and prose. Rough: it only
/// decides which of several sound filters is taken.
pub(super) fn frequency(byte: u8) -> f32 {
    match byte.to_ascii_lowercase() {
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' => 0.07,
        b's' | b'r' | b'h' | b'l' | b'd' => 0.045,
        b'c' | b'u' | b'm' | b'p' => 0.028,
        b'f' | b'g' | b'w' | b'y' | b'b' => 0.018,
        b'v' | b'k' => 0.009,
        b'j' | b'q' | b'x' | b'z' => 0.003,
        b' ' => 0.09,
        b'0'..=b'9' => 0.02,
        b'/' | b'.' | b'-' => 0.015,
        b'=' | b'_' | b',' | b':' | b';' | b'&' | b'%' => 0.006,
        b'(' | b')' | b'+' | b'?' => 0.004,
        b'"' | b'\'' | b'*' | b'!' | b'@' | b'#' => 0.0015,
        0x80.. => 0.0004,
        0..=0x1f | 0x7f => 0.0003,
        _ => 0.0005,
    }
}
