//! Recognising a token line.

use clew_sensor_abi::settings::{Counter, Settings};
use clew_sensor_abi::siphash::siphash24;
use clew_sensor_abi::{REPLAY_SLOTS, TOKEN_DIGITS, TOKEN_LINE};
use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg};

use crate::maps::{SLOTS, count};

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
    let mut index = 0;
    while index < TOKEN_LINE.len() {
        if index as u32 >= len {
            return Match::Partial;
        }
        // SAFETY: index < LINE_BYTES.
        let byte = unsafe { *at.add(index) };
        // Folding to lower case turns some control bytes into letters' neighbours, never into
        // letters; '\n', '-', ':' and ' ' are compared as they are.
        let want = TOKEN_LINE[index];
        let same = byte == want || (want.is_ascii_lowercase() && byte | 0x20 == want);
        if !same {
            return Match::No;
        }
        index += 1;
    }
    if len < LINE_BYTES as u32 {
        Match::Partial
    } else {
        Match::Whole
    }
}

/// Decodes, verifies and redeems the token whose digits start at `digits`; its sequence.
///
/// # Safety
///
/// [`TOKEN_DIGITS`] bytes at `digits` are readable.
#[inline(always)]
pub unsafe fn redeem(digits: *const u8, settings: &Settings) -> Option<u64> {
    // SAFETY: the caller's word.
    let (name, mac) = unsafe { (word(digits)?, word(digits.add(16))?) };
    // Tokens of other proxies are for other sensors.
    if (name >> 48) as u32 != settings.proxy {
        return None;
    }
    // The MAC is over the bytes in wire order, and is itself little-endian on the wire.
    let expected = siphash24(settings.key0, settings.key1, name.swap_bytes());
    // Compared without branches per byte; one equality of 64 bits takes the same time always.
    if expected != mac.swap_bytes() {
        count(Counter::Forged);
        return None;
    }
    let sequence = name & 0xffff_ffff_ffff;
    if !accept_once(sequence) {
        count(Counter::Replayed);
        return None;
    }
    count(Counter::Accepted);
    Some(sequence)
}

/// Sixteen hex digits as a big-endian word.
#[inline(always)]
unsafe fn word(digits: *const u8) -> Option<u64> {
    let mut word = 0_u64;
    let mut wrong = 0_u32;
    let mut index = 0;
    while index < 16 {
        // SAFETY: the caller's word.
        let byte = u32::from(unsafe { *digits.add(index) });
        let decimal = byte.wrapping_sub(u32::from(b'0'));
        let letter = (byte | 0x20).wrapping_sub(u32::from(b'a'));
        let digit = if decimal < 10 {
            decimal
        } else {
            letter.wrapping_add(10)
        };
        wrong |= (decimal >= 10 && letter >= 6) as u32;
        word = word << 4 | u64::from(digit & 15);
        index += 1;
    }
    (wrong == 0).then_some(word)
}

/// Takes `sequence`'s slot unless it, or a later request, has had it.
#[inline(always)]
fn accept_once(sequence: u64) -> bool {
    let Some(slot) = SLOTS.get_ptr_mut(sequence as u32 & (REPLAY_SLOTS as u32 - 1)) else {
        return false;
    };
    // SAFETY: an element of an array map; the exchange decides, so that of two CPUs that see
    // the same token one wins. (`core::sync::atomic` has no exchange on this target.)
    let won = unsafe {
        let held = &raw mut (*slot).sequence;
        let seen = core::ptr::read_volatile(held);
        seen < sequence && atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(held, seen, sequence).1
    };
    if !won {
        return false;
    }
    // SAFETY: the slot is ours now; flags are hints.
    unsafe { core::ptr::write_volatile(&raw mut (*slot).flags, 0) };
    true
}
