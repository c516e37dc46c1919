//! What inputs did not hold, in a fixed number of bytes.
//!
//! A blocked Bloom filter (Putze, Sanders, Singler 2007) over some of the 8-byte windows of all
//! inputs. Which ones is up to the bytes themselves (winnowing: Schleimer, Wilkerson, Aiken 2003),
//! so a stretch of ten bytes or more has at least one, and it is the same one wherever the stretch
//! stands. A stretch whose windows are not all in the filter was in none of the inputs.

/// Bytes in a window.
const WINDOW: usize = 8;
/// Of so many windows in a row, the one with the smallest hash is kept.
const WINNOW: usize = 3;
/// Bits of a block: a cache line.
const BLOCK: u64 = 512;
/// Blocks, 16 MiB. Room for 30 million windows (some 60 MB of inputs that differ) at one wrong
/// "perhaps" in ten for a single window; evidence has five or more most of the time.
const BLOCKS: u64 = 1 << 18;
/// Most bytes taken in, about a second of work; after that the answer is always "perhaps".
const FULL_BYTES: usize = 256 << 20;

/// The filter.
#[derive(Debug)]
pub(crate) struct Sketch {
    bits: Vec<u64>,
    bytes: usize,
}

impl Sketch {
    pub(crate) fn new() -> Self {
        Self {
            bits: vec![0; (BLOCKS * BLOCK / 64) as usize],
            bytes: 0,
        }
    }

    /// Takes in the inputs of one request.
    pub(crate) fn add(&mut self, inputs: &[u8]) {
        self.bytes = self.bytes.saturating_add(inputs.len());
        if self.is_full() {
            return;
        }
        for hash in kept(inputs) {
            for (word, bit) in places(hash) {
                self.bits[word] |= bit;
            }
        }
    }

    /// Whether the inputs of one request may hold `stretch`; false is certain.
    pub(crate) fn may_hold(&self, stretch: &[u8]) -> bool {
        let has = |hash| places(hash).all(|(word, bit)| self.bits[word] & bit != 0);
        self.is_full() || kept(stretch).all(has)
    }

    fn is_full(&self) -> bool {
        self.bytes > FULL_BYTES
    }
}

/// Hashes of the windows that are kept.
fn kept(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let hashes = bytes.windows(WINDOW).map(hash);
    let mut last = [u64::MAX; WINNOW];
    let mut given = None;
    hashes.enumerate().filter_map(move |(at, hash)| {
        last[at % WINNOW] = hash;
        let least = last.iter().copied().min()?;
        let is_new = at + 1 >= WINNOW && given != Some(least);
        is_new.then(|| *given.insert(least))
    })
}

/// The bits that stand for a window, all in one block.
fn places(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let block = hash % BLOCKS;
    [hash >> 24, hash >> 40].into_iter().map(move |bits| {
        let bit = block * BLOCK + bits % BLOCK;
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

/// Mixes eight bytes: the finalizer of SplitMix64.
fn hash(window: &[u8]) -> u64 {
    let mut bytes = [0; WINDOW];
    bytes.copy_from_slice(window);
    let mut x = u64::from_le_bytes(bytes).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_taken_in_is_denied() {
        let mut sketch = Sketch::new();
        let inputs: Vec<u8> = (0..4000_u32)
            .flat_map(|it| (it * it + 7).to_string().into_bytes())
            .collect();
        sketch.add(&inputs);
        for length in [10, 12, 31, 200] {
            for stretch in inputs.windows(length) {
                assert!(sketch.may_hold(stretch));
            }
        }
    }

    #[test]
    fn what_was_not_is_denied_nearly_always() {
        let mut sketch = Sketch::new();
        for request in 0..50_000 {
            sketch.add(format!("/search?q={request}\nMozilla/5.0 (X11; Linux)\n").as_bytes());
        }
        let held = |it: &u32| sketch.may_hold(format!("touch /tmp/marker-{it}").as_bytes());
        assert_eq!((0..1000).filter(held).count(), 0);
        assert!(!sketch.may_hold(b"127.0.0.1:1389"));
    }

    #[test]
    fn too_short_to_tell_is_perhaps() {
        assert!(Sketch::new().may_hold(b"short"));
    }
}
