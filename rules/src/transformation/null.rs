//! `removeNulls` and `replaceNulls`.

use memchr::memchr;

pub(super) fn remove(value: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = value;
    let mut changed = false;
    while let Some(at) = memchr(0, rest) {
        changed = true;
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    changed
}

/// Each NUL byte becomes a space.
pub(super) fn replace(value: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = memchr(0, value) else {
        return false;
    };
    out.extend_from_slice(value);
    for byte in &mut out[first..] {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    true
}
