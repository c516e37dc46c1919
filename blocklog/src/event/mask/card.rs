//! Card numbers (ISO/IEC 7812-1): 13 to 19 digits, single spaces, dashes or `+` between them, that begin as an
//! issuer's do and end in the check digit of Luhn.

use std::ops::Range;

const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Where card numbers are. Each stretch of digits is looked at with the 19 digits from its start on: linear time.
pub(super) fn spans(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        if let Some(span) = longest(bytes, at) {
            at = span.end;
            spans.push(span);
        }
        at += bytes[at..]
            .iter()
            .take_while(|it| it.is_ascii_digit())
            .count();
    }
    spans
}

/// The longest card number that begins at `start`.
fn longest(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let mut digits = [0; 19];
    let mut count = 0;
    let mut found = None;
    let mut at = start;
    while let Some(&byte) = bytes.get(at) {
        if byte.is_ascii_digit() {
            *digits.get_mut(count)? = byte - b'0';
            count += 1;
        } else if !is_separator(byte) || !bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
            break;
        }
        at += 1;
        let ends = byte.is_ascii_digit() && !bytes.get(at).is_some_and(u8::is_ascii_digit);
        if ends && DIGITS.contains(&count) && is_card(&digits[..count]) {
            found = Some(start..at);
        }
        if count == digits.len() {
            break;
        }
    }
    found
}

fn is_separator(byte: u8) -> bool {
    b" -+".contains(&byte)
}

fn is_card(digits: &[u8]) -> bool {
    let number = |count: usize| {
        digits[..count]
            .iter()
            .fold(0_u32, |sum, it| sum * 10 + u32::from(*it))
    };
    let is_issued = match digits.len() {
        13 | 16 | 19 if digits[0] == 4 => true,
        14 => matches!(number(2), 36 | 38 | 39) || matches!(number(3), 300..=305 | 309),
        15 => matches!(number(2), 34 | 37) || matches!(number(4), 1800 | 2131),
        16 if matches!(number(2), 51..=55) || matches!(number(4), 2221..=2720) => true,
        16..=19 if matches!(number(4), 3528..=3589 | 6011) || matches!(number(2), 62 | 64 | 65) => {
            true
        }
        13..=19 => matches!(number(2), 50 | 56..=58 | 63 | 67),
        _ => false,
    };
    is_issued && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let doubled = |(place, digit): (usize, &u8)| match (place % 2, digit * 2) {
        (0, _) => u32::from(*digit),
        (_, twice) => u32::from(twice / 10 + twice % 10),
    };
    let sum: u32 = digits.iter().rev().enumerate().map(doubled).sum();
    sum.is_multiple_of(10)
}
