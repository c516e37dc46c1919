//! `hexDecode`, `hexEncode`, `sqlHexDecode`.

use super::scan::hex_byte;

/// Each two bytes become one, whether or not they are hexadecimal digits (as ModSecurity has it);
/// a single one at the end is dropped.
pub(super) fn decode(value: &[u8], out: &mut Vec<u8>) -> bool {
    let digit = |byte: u8| match byte {
        b'A'.. => (byte & 0xdf).wrapping_sub(b'A').wrapping_add(10),
        _ => byte.wrapping_sub(b'0'),
    };
    out.extend(
        value
            .chunks_exact(2)
            .map(|pair| digit(pair[0]).wrapping_shl(4).wrapping_add(digit(pair[1]))),
    );
    !value.is_empty()
}

pub(super) fn encode(value: &[u8], out: &mut Vec<u8>) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &byte in value {
        out.extend_from_slice(&[
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
    !value.is_empty()
}

/// Decodes `0x` and the pairs of digits that follow it, anywhere in the value.
pub(super) fn sql_decode(value: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = value;
    let mut changed = false;
    while let Some(at) = next_prefix(rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 2..];
        changed = true;
        while let Some(byte) = hex_byte(rest) {
            out.push(byte);
            rest = &rest[2..];
        }
    }
    if changed {
        out.extend_from_slice(rest);
    }
    changed
}

/// Where the next `0xHH` begins.
fn next_prefix(value: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr(b'0', &value[from..])?;
        if matches!(value.get(at + 1), Some(b'x' | b'X')) && hex_byte(&value[at + 2..]).is_some() {
            return Some(at);
        }
        from = at + 1;
    }
}
