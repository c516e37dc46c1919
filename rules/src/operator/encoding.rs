//! `@validateByteRange`, `@validateUrlEncoding`, `@validateUtf8Encoding`: each matches what is *not*
//! valid.

use memchr::{memchr, memchr2, memchr3};

use super::OperatorError;
use super::number::integer;

/// The bytes that `@validateByteRange` does not allow.
#[derive(Clone, Debug)]
pub struct ByteRange {
    allowed: Box<[bool; 256]>,
    /// Where only one to three bytes are forbidden, they are searched for, many times faster.
    few: Vec<u8>,
}

impl ByteRange {
    /// Reads bytes and ranges with commas between them: `9,10,13,32-126`. Text that is no number
    /// counts as 0, as in ModSecurity 2; no text at all allows no byte.
    ///
    /// # Errors
    ///
    /// A number past 255, a range that ends before it begins.
    pub fn parse(argument: &str) -> Result<Self, OperatorError> {
        let mut allowed = Box::new([false; 256]);
        for item in argument
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            match (
                u8::try_from(integer(first.as_bytes())),
                u8::try_from(integer(last.as_bytes())),
            ) {
                (Ok(first), Ok(last)) if first <= last => {
                    allowed[usize::from(first)..=usize::from(last)].fill(true);
                }
                _ => {
                    let reason = format!("'{item}' is no byte 0 to 255, and no range of bytes");
                    return Err(OperatorError::Argument {
                        name: "validateByteRange",
                        reason,
                    });
                }
            }
        }
        let forbidden = (0..=u8::MAX).filter(|&byte| !allowed[usize::from(byte)]);
        let mut few: Vec<u8> = forbidden.take(4).collect();
        if few.len() > 3 {
            few.clear();
        }
        Ok(Self { allowed, few })
    }

    /// Whether `byte` is allowed.
    pub fn allows(&self, byte: u8) -> bool {
        self.allowed[usize::from(byte)]
    }

    /// Whether a byte of `value` is not allowed.
    pub fn is_violated(&self, value: &[u8]) -> bool {
        match self.few[..] {
            [one] => memchr(one, value).is_some(),
            [one, two] => memchr2(one, two, value).is_some(),
            [one, two, three] => memchr3(one, two, three, value).is_some(),
            _ => value.iter().any(|&byte| !self.allows(byte)),
        }
    }
}

/// Whether a `%` in `value` is not followed by two hexadecimal digits.
pub(super) fn is_invalid_url(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some(at) = memchr(b'%', rest) {
        match rest[at + 1..] {
            [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest = &rest[at + 3..]
            }
            _ => return true,
        }
    }
    false
}

/// Whether `value` is not UTF-8 (RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF).
pub(super) fn is_invalid_utf8(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_bytes() {
        let range = ByteRange::parse("9, 32-126,128-255").expect("a range");
        assert!(!range.is_violated(b"a\t\xff"));
        assert!(range.is_violated(b"a\n"));
        let range = ByteRange::parse("1-255").expect("a range");
        assert!(range.is_violated(b"\0") && !range.is_violated(b"\x01"));
        assert!(ByteRange::parse("1-256").is_err());
        assert!(ByteRange::parse("9-1").is_err());
    }

    #[test]
    fn percent_signs() {
        assert!(!is_invalid_url(b"%41%zz".get(..3).expect("three bytes")));
        assert!(is_invalid_url(b"%41%zz"));
        assert!(is_invalid_url(b"%4"));
    }
}
