//! Sets of bytes: what one item of a pattern may match.

use std::ops::RangeInclusive;

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir};

/// A set of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    pub(super) const EMPTY: Self = Self([0; 4]);
    pub(super) const ALL: Self = Self([u64::MAX; 4]);

    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut set = Self::EMPTY;
        for &byte in bytes {
            set.add(byte);
        }
        set
    }

    pub(super) fn range(range: RangeInclusive<u8>) -> Self {
        let mut set = Self::EMPTY;
        for byte in range {
            set.add(byte);
        }
        set
    }

    pub(super) fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }

    pub(super) fn intersection(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }

    /// Whether a byte of `value` is in the set.
    pub(super) fn occurs_in(&self, value: &[u8]) -> bool {
        value.iter().any(|&byte| self.contains(byte))
    }

    pub(super) fn negated(self) -> Self {
        Self(self.0.map(|word| !word))
    }

    pub(super) fn is_disjoint(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, two)| one & two == 0)
    }

    /// With the other case of each ASCII letter in it (PCRE in the "C" locale folds no others).
    pub(super) fn folded(self) -> Self {
        let mut folded = self;
        for byte in (b'a'..=b'z')
            .chain(b'A'..=b'Z')
            .filter(|&byte| self.contains(byte))
        {
            folded.add(byte ^ 0x20);
        }
        folded
    }

    /// The longest runs, in order.
    pub(super) fn runs(&self) -> Vec<(u8, u8)> {
        let mut runs: Vec<(u8, u8)> = Vec::new();
        for byte in (0..=u8::MAX).filter(|&byte| self.contains(byte)) {
            match runs.last_mut() {
                Some((_, last)) if byte > 0 && *last == byte - 1 => *last = byte,
                _ => runs.push((byte, byte)),
            }
        }
        runs
    }

    pub(super) fn hir(&self) -> Hir {
        let ranges = self
            .runs()
            .into_iter()
            .map(|(first, last)| ClassBytesRange::new(first, last));
        Hir::class(Class::Bytes(ClassBytes::new(ranges)))
    }
}

impl std::fmt::Debug for ByteSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = f.debug_list();
        for (first, last) in self.runs() {
            list.entry(&format_args!("{first:#04x}-{last:#04x}"));
        }
        list.finish()
    }
}

/// The class of `\d`, `\w`, `\s`, `\h`, `\v`, `\N` and their capital opposites (pcre2pattern(3), in
/// 8-bit mode without UTF).
pub(super) fn escape_class(letter: u8) -> Option<ByteSet> {
    let set = match letter.to_ascii_lowercase() {
        b'd' => ByteSet::range(b'0'..=b'9'),
        b'w' => word(),
        b's' => ByteSet::of(b" \t\n\x0b\x0c\r"),
        b'h' => ByteSet::of(b"\t \xa0"),
        b'v' => ByteSet::of(b"\n\x0b\x0c\r\x85"),
        b'n' if letter == b'N' => return Some(ByteSet::of(b"\n").negated()),
        _ => return None,
    };
    Some(if letter.is_ascii_uppercase() {
        set.negated()
    } else {
        set
    })
}

/// The class of `[:name:]`.
pub(super) fn posix_class(name: &[u8]) -> Option<ByteSet> {
    let (name, negated) = match name.strip_prefix(b"^") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let lower = ByteSet::range(b'a'..=b'z');
    let upper = ByteSet::range(b'A'..=b'Z');
    let digit = ByteSet::range(b'0'..=b'9');
    let graph = ByteSet::range(b'!'..=b'~');
    let alnum = lower.union(upper).union(digit);
    let set = match name {
        b"alpha" => lower.union(upper),
        b"lower" => lower,
        b"upper" => upper,
        b"alnum" => alnum,
        b"ascii" => ByteSet::range(0..=0x7f),
        b"blank" => ByteSet::of(b" \t"),
        b"cntrl" => ByteSet::range(0..=0x1f).union(ByteSet::of(b"\x7f")),
        b"digit" => digit,
        b"graph" => graph,
        b"print" => ByteSet::range(b' '..=b'~'),
        b"punct" => alnum.union(graph.negated()).negated(),
        b"space" => ByteSet::of(b" \t\n\x0b\x0c\r"),
        b"word" => word(),
        b"xdigit" => digit
            .union(ByteSet::range(b'a'..=b'f'))
            .union(ByteSet::range(b'A'..=b'F')),
        _ => return None,
    };
    Some(if negated { set.negated() } else { set })
}

fn word() -> ByteSet {
    ByteSet::of(b"_")
        .union(ByteSet::range(b'0'..=b'9'))
        .union(ByteSet::range(b'a'..=b'z'))
        .union(ByteSet::range(b'A'..=b'Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_the_longest() {
        assert_eq!(ByteSet::of(b"abd").runs(), [(b'a', b'b'), (b'd', b'd')]);
        assert_eq!(ByteSet::ALL.runs(), [(0, 255)]);
        assert_eq!(ByteSet::EMPTY.runs(), []);
        assert_eq!(ByteSet::of(b"k\xe9").folded(), ByteSet::of(b"kK\xe9"));
    }

    #[test]
    fn capitals_are_opposites() {
        for letter in *b"dwshv" {
            let one = escape_class(letter).expect("a class");
            let other = escape_class(letter.to_ascii_uppercase()).expect("a class");
            assert_eq!(one.negated(), other);
        }
        assert_eq!(escape_class(b'n'), None);
    }
}
