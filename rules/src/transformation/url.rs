//! `urlDecode`, `urlDecodeUni`, `urlEncode`.

use memchr::{memchr, memchr2};

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
    if memchr2(b'%', b'+', value).is_none() {
        return false;
    }
    let mut changed = false;
    let mut done = 0;
    while let Some(at) = next_escape(value, done) {
        changed |= spaced(&value[done..at], out);
        let (byte, length) = escape(&value[at..]).unwrap_or((b'%', 1));
        changed |= length > 1;
        out.push(byte);
        done = at + length;
    }
    changed | spaced(&value[done..], out)
}

/// Where the next `%` stands at or after `from`.
pub(crate) fn next_escape(value: &[u8], from: usize) -> Option<usize> {
    match value.get(from) {
        // Escapes often come in a row.
        Some(b'%') => Some(from),
        Some(_) => memchr(b'%', &value[from..]).map(|at| from + at),
        None => None,
    }
}

/// Appends `raw`, where each `+` becomes a space; whether there was one.
pub(crate) fn spaced(raw: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(raw);
    let mut changed = false;
    for byte in &mut out[start..] {
        let is_plus = *byte == b'+';
        *byte = if is_plus { b' ' } else { *byte };
        changed |= is_plus;
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
