//! `compressWhitespace`, `removeWhitespace`, `trim`, `trimLeft`, `trimRight`.

use super::scan::{self, is_space};

/// A non-breaking space in Latin-1.
pub(super) const NO_BREAK_SPACE: u8 = 0xa0;

/// Each run of white space becomes one space.
pub(super) fn compress(value: &[u8], out: &mut Vec<u8>) -> bool {
    // White space that is not a single space.
    let uneven = |byte, next| is_space(byte) && (byte != b' ' || is_space(next));
    let Some(first) = scan::position_of_pair(value, uneven) else {
        return false;
    };
    out.extend_from_slice(&value[..first]);
    let mut inside = first > 0 && is_space(value[first - 1]);
    for &byte in &value[first..] {
        let space = is_space(byte);
        if !space {
            out.push(byte);
        } else if !inside {
            out.push(b' ');
        }
        inside = space;
    }
    true
}

pub(super) fn remove(value: &[u8], out: &mut Vec<u8>) -> bool {
    let gone = |byte| is_space(byte) || byte == NO_BREAK_SPACE;
    let Some(first) = scan::position(value, gone) else {
        return false;
    };
    out.extend_from_slice(&value[..first]);
    out.extend(value[first..].iter().copied().filter(|&byte| !gone(byte)));
    true
}

pub(super) fn trim(value: &[u8], out: &mut Vec<u8>) -> bool {
    keep(value, left(right(value)), out)
}

pub(super) fn trim_left(value: &[u8], out: &mut Vec<u8>) -> bool {
    keep(value, left(value), out)
}

pub(super) fn trim_right(value: &[u8], out: &mut Vec<u8>) -> bool {
    keep(value, right(value), out)
}

fn left(value: &[u8]) -> &[u8] {
    let start = value.iter().position(|&byte| !is_space(byte));
    &value[start.unwrap_or(value.len())..]
}

fn right(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|&byte| !is_space(byte));
    &value[..end.map_or(0, |last| last + 1)]
}

fn keep(value: &[u8], kept: &[u8], out: &mut Vec<u8>) -> bool {
    if kept.len() == value.len() {
        return false;
    }
    out.extend_from_slice(kept);
    true
}
