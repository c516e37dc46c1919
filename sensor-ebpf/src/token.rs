//! Recognising a token line.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};

use clew_sensor_abi::ledger::ENTRIES;
use clew_sensor_abi::settings::{Counter, Settings};
use clew_sensor_abi::siphash::siphash24;
use clew_sensor_abi::socket::Announced;
use clew_sensor_abi::{TOKEN_DIGITS, TOKEN_LINE};

use crate::maps::{ACCEPTED, count};

/// Bytes from the line feed before the name to the last digit.
pub const LINE_BYTES: usize = TOKEN_LINE.len() + TOKEN_DIGITS;

/// How a stretch of bytes compares with a token line.
pub enum Match {
    /// It is none.
    No,
    /// It could become one with more bytes.
    Partial,
    /// It is one.
    Whole,
}

/// Compares the `len` bytes at `at` with the shape of a token line.
///
/// # Safety
///
/// [`LINE_BYTES`] bytes at `at` are readable.
#[inline(always)]
pub unsafe fn compare(at: *const u8, len: u32) -> Match {
    // SAFETY: the caller's word; the target loads unaligned words as well as others.
    let (first, second) = unsafe { (word_at(at), word_at(at.add(SECOND))) };
    if len >= LINE_BYTES as u32 {
        return if first | FOLD.0 == SHAPE.0 && second | FOLD.1 == SHAPE.1 {
            Match::Whole
        } else {
            Match::No
        };
    }
    let (missing, missing_of_second) = (missing(len), missing(len.saturating_sub(SECOND as u32)));
    if ((first | FOLD.0) ^ SHAPE.0) & !missing == 0
        && ((second | FOLD.1) ^ SHAPE.1) & !missing_of_second == 0
    {
        Match::Partial
    } else {
        Match::No
    }
}

/// Where the second word of a token line's fixed part starts; it overlaps the first by a byte.
const SECOND: usize = TOKEN_LINE.len() - 8;
/// The fixed part, and the bits that differ between its letters and capitals.
const SHAPE: (u64, u64) = (eight(TOKEN_LINE, 0), eight(TOKEN_LINE, SECOND));
const FOLD: (u64, u64) = (fold(0), fold(SECOND));

/// Eight bytes of `text` as a word.
const fn eight(text: &[u8], from: usize) -> u64 {
    let mut bytes = [0; 8];
    let mut index = 0;
    while index < 8 {
        bytes[index] = text[from + index];
        index += 1;
    }
    u64::from_le_bytes(bytes)
}

const fn fold(from: usize) -> u64 {
    let mut bytes = [0; 8];
    let mut index = 0;
    while index < 8 {
        if TOKEN_LINE[from + index].is_ascii_lowercase() {
            bytes[index] = 0x20;
        }
        index += 1;
    }
    u64::from_le_bytes(bytes)
}

/// The bytes of a word that lie behind its first `len`.
#[inline(always)]
fn missing(len: u32) -> u64 {
    if len >= 8 { 0 } else { u64::MAX << (len * 8) }
}

/// A word, least significant byte first, from anywhere.
#[inline(always)]
unsafe fn word_at(at: *const u8) -> u64 {
    // SAFETY: the caller's word. Volatile: or the compiler takes it apart into bytes.
    u64::from_le(unsafe { core::ptr::read_volatile(at.cast::<u64>()) })
}

/// The name that the token's header has as a parameter (RFC 3875, 4.1.18).
pub const PARAMETER: &[u8; 17] = b"HTTP_X_CLEW_TOKEN";

/// Whether the [`PARAMETER`] stands at `at`.
///
/// # Safety
///
/// Its length is readable there.
#[inline(always)]
pub unsafe fn is_parameter(at: *const u8) -> bool {
    const WORDS: [u64; 3] = [
        eight(PARAMETER, 0),
        eight(PARAMETER, 8),
        eight(PARAMETER, 9),
    ];
    // SAFETY: the caller's word.
    unsafe {
        word_at(at) == WORDS[0] && word_at(at.add(8)) == WORDS[1] && word_at(at.add(9)) == WORDS[2]
    }
}

/// What a token names.
pub struct Redeemed {
    /// The request.
    pub sequence: u64,
    /// The service that it is for.
    pub service: u8,
    /// It had been redeemed before.
    pub again: bool,
}

/// Which tokens count.
#[derive(Clone, Copy)]
pub struct Counts {
    /// Those that nobody has redeemed: a request comes in here.
    pub fresh: bool,
    /// Those that have been, lately: a request goes on to another process here.
    pub again: bool,
}

/// Decodes and verifies the token whose digits start at `digits`, and redeems it if it is fresh.
///
/// # Safety
///
/// [`TOKEN_DIGITS`] bytes at `digits` are readable.
#[inline(always)]
pub unsafe fn redeem(digits: *const u8, settings: &Settings, counts: Counts) -> Option<Redeemed> {
    // SAFETY: the caller's word.
    let mut token = unsafe { verify(digits, settings)? };
    if counts.fresh && accept_once(token.sequence) {
        count(Counter::Accepted);
        return Some(token);
    }
    if counts.again && is_newest(token.sequence) {
        count(Counter::Hops);
        token.again = true;
        return Some(token);
    }
    count(Counter::Replayed);
    None
}

/// Redeems a request that the proxy has announced.
#[inline(always)]
pub fn redeem_announced(announced: &Announced) -> Option<Redeemed> {
    if !accept_once(announced.sequence) {
        count(Counter::Replayed);
        return None;
    }
    count(Counter::Accepted);
    Some(Redeemed {
        sequence: announced.sequence,
        service: announced.service as u8,
        again: false,
    })
}

/// Decodes a token and checks its MAC.
///
/// # Safety
///
/// [`TOKEN_DIGITS`] bytes at `digits` are readable.
#[inline(always)]
unsafe fn verify(digits: *const u8, settings: &Settings) -> Option<Redeemed> {
    // SAFETY: the caller's word.
    let (name, mac) = unsafe { (word(digits)?, word(digits.add(16))?) };
    // Tokens of other proxies are for other sensors.
    if (name >> 56) as u32 != settings.proxy {
        return None;
    }
    // The MAC is over the bytes in wire order, and is itself little-endian on the wire.
    let expected = siphash24(settings.key0, settings.key1, name.swap_bytes());
    // Compared without branches per byte; one equality of 64 bits takes the same time always.
    if expected != mac.swap_bytes() {
        count(Counter::Forged);
        return None;
    }
    Some(Redeemed {
        sequence: name & 0xffff_ffff_ffff,
        service: (name >> 48) as u8,
        again: false,
    })
}

/// Sixteen hex digits as a big-endian word.
#[inline(always)]
unsafe fn word(digits: *const u8) -> Option<u64> {
    // SAFETY: the caller's word.
    let (high, low) = unsafe { (half(word_at(digits))?, half(word_at(digits.add(8)))?) };
    Some(u64::from(high) << 32 | u64::from(low))
}

/// Eight hex digits, the first in the lowest byte, as a big-endian word; all at once, since this
/// is a quarter of what a request costs.
#[inline(always)]
fn half(digits: u64) -> Option<u32> {
    let lower = digits | (ONES * 0x20);
    let letters = lower >> 6 & ONES;
    let values = (lower & (ONES * 0x0f)) + letters * 9;
    // Column 3 or 6 of the table, a value below 16, and one of ten or more in column 6 alone.
    let column = (lower & (ONES * 0xf0)) ^ (ONES * 0x30 + letters * 0x30);
    let range = (values + ONES * 6) & (ONES * 0x10) ^ letters << 4;
    if column | range | values & (ONES * 0xf0) != 0 {
        return None;
    }
    let bytes = (values << 4 | values >> 8) & 0x00ff_00ff_00ff_00ff;
    let pairs = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    Some(((pairs | pairs >> 16) as u32).swap_bytes())
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// The newest request accepted of those that share `sequence`'s entry in the ledger.
#[inline(always)]
fn newest_at(sequence: u64) -> Option<*mut u64> {
    ACCEPTED.get_ptr_mut(sequence as u32 & (ENTRIES as u32 - 1))
}

/// Whether that is `sequence` itself.
#[inline(always)]
fn is_newest(sequence: u64) -> bool {
    // SAFETY: an element of an array map, read at once.
    newest_at(sequence).is_some_and(|newest| unsafe { newest.read_volatile() } == sequence)
}

/// Takes `sequence`'s entry in the ledger unless it, or a later request, has had it.
#[inline(always)]
fn accept_once(sequence: u64) -> bool {
    let Some(newest) = newest_at(sequence) else {
        return false;
    };
    // SAFETY: an element of an array map; the exchange decides, so that of two CPUs that see
    // the same token one wins.
    unsafe {
        let seen = core::ptr::read_volatile(newest);
        // (`core::sync::atomic` has none on this target.)
        seen < sequence && atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(newest, seen, sequence).1
    }
}
