//! `md5`, `sha1` and `length`: values that stand for a whole value.

use std::io::Write;

use sha1::{Digest, Sha1};

/// The 16 bytes themselves; `t:hexEncode` makes text of them.
pub(super) fn md5(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&md5::Md5::digest(value));
    out != value
}

/// The 20 bytes themselves; `t:hexEncode` makes text of them.
pub(super) fn sha1(value: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(&Sha1::digest(value));
    out != value
}

/// The number of bytes, in decimal.
pub(super) fn length(value: &[u8], out: &mut Vec<u8>) -> bool {
    // Writing to a vector does not fail.
    let _ = write!(out, "{}", value.len());
    out != value
}
