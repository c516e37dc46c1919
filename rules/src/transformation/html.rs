//! `htmlEntityDecode`.

use memchr::memchr;

use super::scan::hex_digit;
use super::space::NO_BREAK_SPACE;

/// Decodes `&#DDD;`, `&#xHH;` (to the low byte), and `&quot;`, `&amp;`, `&lt;`, `&gt;`, `&nbsp;` in
/// any case; the semicolon may be missing. Other entities stay as they are.
pub(super) fn decode(value: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = value;
    let mut changed = false;
    while let Some(at) = memchr(b'&', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((byte, length)) = entity(rest) else {
            out.push(b'&');
            continue;
        };
        out.push(byte);
        changed = true;
        rest = &rest[length..];
        rest = rest.strip_prefix(b";").unwrap_or(rest);
    }
    if changed {
        out.extend_from_slice(rest);
    }
    changed
}

/// What follows `&`: the byte it means, and its length without the semicolon.
fn entity(rest: &[u8]) -> Option<(u8, usize)> {
    match rest {
        [b'#', b'x' | b'X', digits @ ..] => {
            number(digits, 16).map(|(byte, length)| (byte, length + 2))
        }
        [b'#', digits @ ..] => number(digits, 10).map(|(byte, length)| (byte, length + 1)),
        _ => name(rest),
    }
}

/// A number of any length; past what C's `long` holds it stays at its end, as `strtol` does.
fn number(digits: &[u8], radix: i64) -> Option<(u8, usize)> {
    let mut code = 0_i64;
    let mut length = 0;
    for digit in digits.iter().map_while(|&byte| hex_digit(byte)) {
        if i64::from(digit) >= radix {
            break;
        }
        code = code
            .checked_mul(radix)
            .and_then(|code| code.checked_add(i64::from(digit)))
            .unwrap_or(i64::MAX);
        length += 1;
    }
    (length > 0).then(|| (code.to_le_bytes()[0], length))
}

fn name(rest: &[u8]) -> Option<(u8, usize)> {
    const NAMES: [(&[u8], u8); 5] = [
        (b"quot", b'"'),
        (b"amp", b'&'),
        (b"lt", b'<'),
        (b"gt", b'>'),
        (b"nbsp", NO_BREAK_SPACE),
    ];
    // One byte more than the longest name tells whether the name ends there.
    let length = rest
        .iter()
        .take(5)
        .take_while(|byte| byte.is_ascii_alphanumeric())
        .count();
    let found = NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(&rest[..length]));
    found.map(|&(_, byte)| (byte, length))
}
