//! `parityEven7bit`, `parityOdd7bit`, `parityZero7bit`: what becomes of the eighth bit.

use super::scan;

pub(super) fn even(value: &[u8], out: &mut Vec<u8>) -> bool {
    set(value, out, |byte| {
        byte & 0x7f | (byte.count_ones() as u8 & 1) << 7
    })
}

pub(super) fn odd(value: &[u8], out: &mut Vec<u8>) -> bool {
    set(value, out, |byte| {
        byte & 0x7f | (!byte.count_ones() as u8 & 1) << 7
    })
}

pub(super) fn zero(value: &[u8], out: &mut Vec<u8>) -> bool {
    set(value, out, |byte| byte & 0x7f)
}

fn set(value: &[u8], out: &mut Vec<u8>, with: impl Fn(u8) -> u8 + Copy) -> bool {
    if scan::position(value, |byte| with(byte) != byte).is_none() {
        return false;
    }
    out.extend(value.iter().map(|&byte| with(byte)));
    true
}
