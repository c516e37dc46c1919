//! `urlDecode`, `urlDecodeUni`, `urlEncode`.

use memchr::memchr2;

use super::UnicodeMap;
use super::scan::{self, hex_byte, hex_code, narrow};

/// `%HH` and `+`. What is no valid escape stays as it is.
pub(super) fn decode(value: &[u8], out: &mut Vec<u8>) -> bool {
    unescape(value, out, |rest| Some((hex_byte(&rest[1..])?, 3)))
}

/// As [`decode`], and `%uHHHH`: by the map where there is one that knows the code point, otherwise
/// its low byte (full-width forms become ASCII).
pub(super) fn decode_uni(value: &[u8], unicode: Option<&UnicodeMap>, out: &mut Vec<u8>) -> bool {
    unescape(value, out, |rest| {
        if !matches!(rest.get(1), Some(b'u' | b'U')) {
            return Some((hex_byte(&rest[1..])?, 3));
        }
        let code = hex_code(&rest[2..])?;
        let mapped = unicode.and_then(|map| map.byte(code));
        Some((mapped.unwrap_or_else(|| narrow(code)), 6))
    })
}

/// `escape` reads what begins with `%`: the byte it means, and its length.
fn unescape(
    value: &[u8],
    out: &mut Vec<u8>,
    escape: impl Fn(&[u8]) -> Option<(u8, usize)>,
) -> bool {
    let mut rest = value;
    let mut changed = false;
    while let Some(at) = memchr2(b'%', b'+', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (byte, length) = match rest[0] {
            b'+' => (b' ', 1),
            _ => escape(rest).unwrap_or((b'%', 1)),
        };
        changed |= byte != b'%' || length > 1;
        out.push(byte);
        rest = &rest[length..];
    }
    if changed {
        out.extend_from_slice(rest);
    }
    changed
}

/// All but ASCII letters, digits and `*` becomes `%hh`; a space becomes `+`.
pub(super) fn encode(value: &[u8], out: &mut Vec<u8>) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'*';
    let Some(first) = scan::position(value, |byte| !plain(byte)) else {
        return false;
    };
    out.extend_from_slice(&value[..first]);
    for &byte in &value[first..] {
        if plain(byte) {
            out.push(byte);
        } else if byte == b' ' {
            out.push(b'+');
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        }
    }
    true
}
