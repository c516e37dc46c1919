//! `base64Decode`, `base64DecodeExt`, `base64Encode` (RFC 4648, section 4).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Not a digit.
const NONE: u8 = 64;

const DIGITS: [u8; 256] = {
    let mut digits = [NONE; 256];
    let mut digit = 0;
    while digit < 64 {
        digits[ALPHABET[digit as usize] as usize] = digit;
        digit += 1;
    }
    digits
};

/// Decodes up to the first byte that is no digit.
pub(super) fn decode(value: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = value
        .iter()
        .map(|&byte| DIGITS[usize::from(byte)])
        .take_while(|&digit| digit != NONE);
    join(digits, out);
    !value.is_empty()
}

/// Decodes all digits and passes over everything else, as PHP does.
pub(super) fn decode_ext(value: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = value
        .iter()
        .map(|&byte| DIGITS[usize::from(byte)])
        .filter(|&digit| digit != NONE);
    join(digits, out);
    !value.is_empty()
}

/// Puts digits of six bits together; what does not fill a byte is dropped.
fn join(digits: impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let mut bits = 0_u32;
    let mut count = 0;
    for digit in digits {
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count).to_le_bytes()[0]);
        }
    }
}

pub(super) fn encode(value: &[u8], out: &mut Vec<u8>) -> bool {
    for chunk in value.chunks(3) {
        let bytes = [
            chunk[0],
            chunk.get(1).copied().unwrap_or(0),
            chunk.get(2).copied().unwrap_or(0),
        ];
        let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() {
                ALPHABET[digit as usize]
            } else {
                b'='
            });
        }
    }
    !value.is_empty()
}
