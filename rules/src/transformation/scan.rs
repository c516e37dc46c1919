//! Finding the first byte that a transformation would touch.

/// Bytes looked at in one step. Inside a step there is no early exit, so that the compiler makes
/// vector code of it; `memchr` does the same by hand, but knows at most three bytes.
const STEP: usize = 32;

/// Where the first byte stands that `touched` names. Give it plain comparisons, not a table, and
/// join them with `|`: those become vector code (about 0.1 ns a byte, against 0.5 ns for a table, which the
/// compiler may make of `||`).
#[inline]
pub(super) fn position(value: &[u8], touched: impl Fn(u8) -> bool + Copy) -> Option<usize> {
    let (steps, _) = value.as_chunks::<STEP>();
    let any = |step: &[u8; STEP]| step.iter().fold(false, |any, &byte| any | touched(byte));
    let nth = steps.iter().position(any).unwrap_or(steps.len());
    let at = nth * STEP;
    let offset = value[at..].iter().position(|&byte| touched(byte));
    offset.map(|offset| at + offset)
}

/// As [`position`], of the first byte that `touched` names together with the byte after it (0 after
/// the last).
#[inline]
pub(crate) fn position_of_pair(
    value: &[u8],
    touched: impl Fn(u8, u8) -> bool + Copy,
) -> Option<usize> {
    let pairs = value.len().checked_sub(1)?;
    let (firsts, seconds) = (&value[..pairs], &value[1..]);
    let steps = firsts.as_chunks::<STEP>().0;
    let mut both = steps.iter().zip(seconds.as_chunks::<STEP>().0);
    // By index: the compiler has to see how many there are, wherever this is compiled.
    let any = |(firsts, seconds): (&[u8; STEP], &[u8; STEP])| {
        (0..STEP).fold(false, |any, at| any | touched(firsts[at], seconds[at]))
    };
    let at = STEP * both.position(any).unwrap_or(steps.len());
    let mut rest = firsts[at..].iter().zip(&seconds[at..]);
    let offset = rest.position(|(&first, &second)| touched(first, second));
    match offset {
        Some(offset) => Some(at + offset),
        None => touched(value[pairs], 0).then_some(pairs),
    }
}

/// C's `isspace`: space, `\t`, `\n`, `\v`, `\f`, `\r`.
#[inline]
pub(super) const fn is_space(byte: u8) -> bool {
    byte == b' ' || byte.wrapping_sub(b'\t') < 5
}

/// The value of a hexadecimal digit.
#[inline]
pub(super) const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that two hexadecimal digits at the start of `text` stand for.
#[inline]
pub(super) fn hex_byte(text: &[u8]) -> Option<u8> {
    match text {
        [high, low, ..] => Some((hex_digit(*high)? << 4) | hex_digit(*low)?),
        _ => None,
    }
}

/// The code point that four hexadecimal digits at the start of `text` stand for.
#[inline]
pub(super) fn hex_code(text: &[u8]) -> Option<u16> {
    let high = hex_byte(text)?;
    let low = hex_byte(&text[2..])?;
    Some(u16::from_be_bytes([high, low]))
}

/// What a code point of 16 bits becomes where only bytes exist: its low byte, except that the
/// full-width forms U+FF01 to U+FF5E become the ASCII characters they look like.
#[inline]
pub(super) const fn narrow(code: u16) -> u8 {
    let [high, low] = code.to_be_bytes();
    if high == 0xff && low > 0 && low < 0x5f {
        low + 0x20
    } else {
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_the_first_at_any_length() {
        for length in 0..100 {
            let mut value = vec![b'a'; length];
            assert_eq!(position(&value, |byte| byte == b'X'), None);
            for at in 0..length {
                value[at] = b'X';
                assert_eq!(position(&value[..=at], |byte| byte == b'X'), Some(at));
                value[at] = b'a';
            }
        }
    }

    #[test]
    fn pairs_are_seen_at_any_length() {
        let twice = |first: u8, second: u8| first == b'X' && second != b'a';
        for length in 1..100 {
            let mut value = vec![b'a'; length];
            for at in 0..length {
                value[at] = b'X';
                let expected = (at + 1 == length).then_some(at);
                assert_eq!(position_of_pair(&value, twice), expected);
                value[at] = b'a';
            }
        }
        assert_eq!(position_of_pair(b"", twice), None);
    }

    #[test]
    fn full_width_forms_are_narrowed() {
        assert_eq!(narrow(0xff01), b'!');
        assert_eq!(narrow(0xff5e), b'~');
        assert_eq!(narrow(0xff5f), 0x5f);
        assert_eq!(narrow(0x1141), 0x41);
        assert_eq!(hex_code(b"ff0"), None);
    }
}
