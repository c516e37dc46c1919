//! `jsDecode`, `cssDecode`, `escapeSeqDecode`: what a backslash means in three languages.

use memchr::memchr;

use super::scan::{hex_byte, hex_code, hex_digit, is_space, narrow};

/// One decoded escape: the byte it means, if any, and how long it is with its backslash.
type Escape = (Option<u8>, usize);

/// JavaScript: `\uHHHH` (low byte; full-width forms become ASCII), `\xHH`, octal, `\n` and the like.
/// Of anything else the backslash is taken off; one at the very end stays.
pub(super) fn js(value: &[u8], out: &mut Vec<u8>) -> bool {
    unescape(value, out, |rest| {
        let unicode = rest.strip_prefix(b"u").and_then(hex_code);
        let hex = rest.strip_prefix(b"x").and_then(hex_byte);
        match (unicode, hex, rest.first()) {
            (Some(code), ..) => (Some(narrow(code)), 6),
            (_, Some(byte), _) => (Some(byte), 4),
            (.., Some(b'0'..=b'7')) => octal(rest, true),
            (.., Some(&letter)) => (Some(control(letter).unwrap_or(letter)), 2),
            (.., None) => (Some(b'\\'), 1),
        }
    })
}

/// ANSI C: `\a` and the like, `\xHH`, up to three octal digits. Of anything else the backslash is
/// taken off; one at the very end stays.
pub(super) fn c(value: &[u8], out: &mut Vec<u8>) -> bool {
    unescape(value, out, |rest| match rest.first() {
        Some(b'x' | b'X') => match hex_byte(&rest[1..]) {
            Some(byte) => (Some(byte), 4),
            None => (Some(rest[0]), 2),
        },
        Some(b'0'..=b'7') => octal(rest, false),
        Some(&letter) => (Some(control(letter).unwrap_or(letter)), 2),
        None => (Some(b'\\'), 1),
    })
}

/// CSS 2: one to six hexadecimal digits and one white space after them; a backslash and line feed
/// vanish; of anything else the backslash is taken off, and one at the very end vanishes.
pub(super) fn css(value: &[u8], out: &mut Vec<u8>) -> bool {
    unescape(value, out, |rest| {
        let count = rest
            .iter()
            .take(6)
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        match (count, rest.first()) {
            (0, None) => (None, 1),
            (0, Some(b'\n')) => (None, 2),
            (0, Some(&byte)) => (Some(byte), 2),
            _ => {
                let space = rest.get(count).copied().is_some_and(is_space);
                (
                    Some(css_code(&rest[..count])),
                    1 + count + usize::from(space),
                )
            }
        }
    })
}

/// The low byte; full-width forms U+FF01 to U+FF5E, of which only zeros may stand in front, become ASCII.
fn css_code(digits: &[u8]) -> u8 {
    let code = digits.iter().fold(0, |code, &digit| {
        code << 4 | u32::from(hex_digit(digit).unwrap_or(0))
    });
    match u16::try_from(code) {
        Ok(code) => narrow(code),
        Err(_) => code.to_le_bytes()[0],
    }
}

/// `escape` reads what follows a backslash.
fn unescape(value: &[u8], out: &mut Vec<u8>, escape: impl Fn(&[u8]) -> Escape) -> bool {
    let mut rest = value;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, length) = escape(&rest[at + 1..]);
        out.extend(byte);
        rest = &rest[at + length..];
    }
    if out.len() + rest.len() == value.len() {
        return false;
    }
    out.extend_from_slice(rest);
    true
}

/// Up to three octal digits; in JavaScript up to two where three would not fit into a byte.
fn octal(rest: &[u8], one_byte: bool) -> Escape {
    let limit = if one_byte && rest[0] > b'3' { 2 } else { 3 };
    let digits = rest
        .iter()
        .take(limit)
        .take_while(|byte| matches!(byte, b'0'..=b'7'));
    let (code, count) = digits.fold((0_u16, 0), |(code, count), &digit| {
        (code << 3 | u16::from(digit - b'0'), count + 1)
    });
    (Some(code.to_le_bytes()[0]), 1 + count)
}

fn control(letter: u8) -> Option<u8> {
    Some(match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        _ => return None,
    })
}
