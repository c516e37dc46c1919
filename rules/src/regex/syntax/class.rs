//! What stands in `[...]`.

use super::super::class::{ByteSet, escape_class, posix_class};
use super::{Parsed, Parser};

/// One end of a range, or a class that cannot be one.
pub(super) enum Atom {
    Byte(u8),
    Set(ByteSet),
}

impl<'p> Parser<'p> {
    pub(super) fn class(&mut self) -> Parsed<ByteSet> {
        let start = self.at - 1;
        let negated = self.take(b"^");
        let mut set = ByteSet::EMPTY;
        let mut first = true;
        loop {
            let Some(byte) = self.peek() else {
                self.at = start;
                return self.refuse("this class is not closed; ']' is missing");
            };
            if byte == b']' && !first {
                self.at += 1;
                break;
            }
            first = false;
            set = set.union(self.class_item()?);
        }
        let set = if self.flags.caseless {
            set.folded()
        } else {
            set
        };
        Ok(if negated { set.negated() } else { set })
    }

    fn class_item(&mut self) -> Parsed<ByteSet> {
        let low = match self.class_atom()? {
            Atom::Set(set) => return Ok(set),
            Atom::Byte(byte) => byte,
        };
        let starts_range =
            self.rest().starts_with(b"-") && !matches!(self.rest().get(1), None | Some(b']'));
        if !starts_range {
            return Ok(ByteSet::of(&[low]));
        }
        let hyphen = self.at;
        self.at += 1;
        match self.class_atom()? {
            Atom::Byte(high) if high >= low => Ok(ByteSet::range(low..=high)),
            Atom::Byte(_) => {
                self.at = hyphen;
                self.refuse("this range ends before it begins; write '\\-' for a hyphen")
            }
            Atom::Set(set) => Ok(set.union(ByteSet::of(&[low, b'-']))),
        }
    }

    fn class_atom(&mut self) -> Parsed<Atom> {
        if let Some(name) = self.posix_name() {
            return match posix_class(name) {
                Some(set) => Ok(Atom::Set(set)),
                None => self.refuse("there is no class of this name"),
            };
        }
        match self.next() {
            Some(b'\\') => self.class_escape(),
            Some(byte) => Ok(Atom::Byte(byte)),
            None => self.refuse("this class is not closed; ']' is missing"),
        }
    }

    /// `[:name:]`, passed over; any other `[` in a class is a byte like others.
    fn posix_name(&mut self) -> Option<&'p [u8]> {
        let pattern = self.pattern;
        let inside = pattern[self.at..].strip_prefix(b"[:")?;
        let length = inside
            .iter()
            .take_while(|byte| byte.is_ascii_lowercase() || **byte == b'^')
            .count();
        if !inside[length..].starts_with(b":]") {
            return None;
        }
        self.at += length + 4;
        Some(&inside[..length])
    }

    fn class_escape(&mut self) -> Parsed<Atom> {
        let Some(letter) = self.peek() else {
            return self.refuse("a backslash ends the pattern; write '\\\\' for one");
        };
        if let Some(set) = escape_class(letter).filter(|_| letter != b'N') {
            self.at += 1;
            return Ok(Atom::Set(set));
        }
        match letter {
            b'b' => {
                self.at += 1;
                Ok(Atom::Byte(0x08))
            }
            b'E' => {
                self.at += 1;
                Ok(Atom::Set(ByteSet::EMPTY))
            }
            _ => self.escaped_byte().map(Atom::Byte),
        }
    }
}
