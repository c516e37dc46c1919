//! `lowercase` and `uppercase`: ASCII only, whatever the locale.

use super::scan;

pub(super) fn lower(value: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = scan::position(value, |byte| byte.is_ascii_uppercase()) else {
        return false;
    };
    out.extend_from_slice(value);
    out[first..].make_ascii_lowercase();
    true
}

pub(super) fn upper(value: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(first) = scan::position(value, |byte| byte.is_ascii_lowercase()) else {
        return false;
    };
    out.extend_from_slice(value);
    out[first..].make_ascii_uppercase();
    true
}
