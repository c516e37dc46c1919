//! SipHash-2-4 (Aumasson and Bernstein, 2012) of whole words: a token's MAC, and the name of an
//! argument vector on an allow list.
//!
//! A library's hasher keeps a tail of odd bytes; the kernel side wants neither its branches nor
//! its size.

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// SipHash-2-4 over whole 8-byte words.
#[derive(Clone, Copy)]
pub struct SipHash24([u64; 4]);

impl SipHash24 {
    /// Starts under key (`k0`, `k1`).
    #[inline(always)]
    pub fn new(k0: u64, k1: u64) -> Self {
        Self([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    /// Takes the next 8 bytes of the message, as a little-endian word.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        round(&mut self.0);
        round(&mut self.0);
        self.0[0] ^= word;
    }

    /// Ends a message of `length` bytes, a multiple of 8: the last block holds nothing but the
    /// length's low byte, at its top.
    #[inline(always)]
    pub fn finish(mut self, length: u64) -> u64 {
        self.word(length << 56);
        self.0[2] ^= 0xff;
        round(&mut self.0);
        round(&mut self.0);
        round(&mut self.0);
        round(&mut self.0);
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }
}

/// SipHash-2-4 under key (`k0`, `k1`) of the 8 bytes that `message` holds in little-endian order.
#[inline(always)]
pub fn siphash24(k0: u64, k1: u64, message: u64) -> u64 {
    let mut hash = SipHash24::new(k0, k1);
    hash.word(message);
    hash.finish(8)
}

#[cfg(test)]
mod tests {
    use super::siphash24;

    /// Vector 8 of the reference implementation: key 00..0f, message 00..07.
    #[test]
    fn matches_the_reference_vector() {
        let k0 = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7]);
        let k1 = u64::from_le_bytes([8, 9, 10, 11, 12, 13, 14, 15]);
        let expected = u64::from_le_bytes([0x62, 0x24, 0x93, 0x9a, 0x79, 0xf5, 0xf5, 0x93]);
        assert_eq!(siphash24(k0, k1, k0), expected);
    }
}
