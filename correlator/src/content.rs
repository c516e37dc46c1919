//! Content proof: bytes of a request's inputs that appear in a kernel event.

use memchr::memmem;

/// Shortest stretch that counts. Twelve bytes of a command line that are also in a request, and
/// in no other, are no accident; eight often are ("upload.p", "/usr/bin").
pub(crate) const LEAST_BYTES: usize = 12;

/// Bytes compared at a time.
const WINDOW: usize = 8;

/// Text of an event, ready to be looked for in many inputs.
///
/// A bit table over all 8-byte windows of the text answers "not in it" for nearly every window
/// of an input; what is left is compared. Time is linear in text and input.
pub(crate) struct Needle<'a> {
    text: &'a [u8],
    bits: Box<[u64; BITS / 64]>,
}

const BITS: usize = 1 << 16;

impl<'a> Needle<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut bits = Box::new([0; BITS / 64]);
        for window in text.windows(WINDOW) {
            let bit = hash(window);
            bits[bit / 64] |= 1 << (bit % 64);
        }
        Self { text, bits }
    }

    /// The longest stretch of the text, at least [`LEAST_BYTES`], that lies within one input
    /// (inputs end with a newline).
    pub(crate) fn longest_in<'b>(&self, inputs: &'b [u8]) -> Option<&'b [u8]> {
        let mut best: &[u8] = &[];
        let mut at = 0;
        // Bounds the work on text made of one repeated letter: each extension is paid for by
        // what it covers, and there are only so many starts.
        let mut budget = inputs.len() * 4 + 4096;
        while at + WINDOW <= inputs.len() && budget > 0 {
            let window = &inputs[at..at + WINDOW];
            let bit = hash(window);
            if self.bits[bit / 64] & (1 << (bit % 64)) == 0 {
                at += 1;
                continue;
            }
            let found = self.extend(&inputs[at..], &mut budget);
            if found > best.len() {
                best = &inputs[at..at + found];
            }
            at += (found / 2).max(1);
        }
        (best.len() >= LEAST_BYTES).then_some(best)
    }

    /// How many bytes at the start of `input` are also in the text, one after the other.
    fn extend(&self, input: &[u8], budget: &mut usize) -> usize {
        let mut best = 0;
        for start in memmem::find_iter(self.text, &input[..WINDOW]) {
            let pairs = self.text[start..].iter().zip(input);
            let same = pairs
                .take_while(|(a, b)| a == b && **a != b'\n' && **a != 0)
                .count();
            best = best.max(same);
            *budget = budget.saturating_sub(same + 1);
            if *budget == 0 {
                break;
            }
        }
        best
    }
}

/// FNV-like fold of 8 bytes to 16 bits.
fn hash(window: &[u8]) -> usize {
    let mut bytes = [0; WINDOW];
    bytes.copy_from_slice(window);
    (u64::from_le_bytes(bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}

/// Whether `stretch` is in `inputs`.
pub(crate) fn contains(inputs: &[u8], stretch: &[u8]) -> bool {
    memmem::find(inputs, stretch).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_longest_stretch() {
        let needle = Needle::new(b"/bin/sh\0-c\0ping -c1 127.0.0.1; touch /tmp/marker-17\0");
        let inputs = b"/ping?host=127.0.0.1; touch /tmp/marker-17\ncurl/8.0\n";
        assert_eq!(
            needle.longest_in(inputs),
            Some(&b"127.0.0.1; touch /tmp/marker-17"[..])
        );
        assert_eq!(needle.longest_in(b"/ping?host=127.0.0.1\n"), None);
        assert_eq!(needle.longest_in(b""), None);
    }

    #[test]
    fn hostile_repetition_costs_linear_time() {
        let text = vec![b'a'; 8192];
        let input = vec![b'a'; 16 * 1024];
        let needle = Needle::new(&text);
        let start = std::time::Instant::now();
        for _ in 0..10 {
            assert!(needle.longest_in(&input).is_some());
        }
        assert!(
            start.elapsed() < std::time::Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
}
