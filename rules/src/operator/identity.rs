//! `@verifyCC`, `@verifyCPF`, `@verifySSN`, `@verifySVNR`: numbers of cards and people, by their
//! check digits.

use std::ops::Range;

use super::Found;
use crate::regex::{Pattern, PatternError};

/// Which number is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// A credit card: Luhn's check (ISO/IEC 7812-1).
    Card,
    /// Brazil's CPF: eleven digits, two of them checks.
    Cpf,
    /// A US social security number: nine digits, and the ranges in use.
    Ssn,
    /// An Austrian social security number: ten digits, the fourth a check.
    Svnr,
}

/// A pattern that finds candidates, and the check that one must pass.
#[derive(Clone, Debug)]
pub struct Verify {
    number: Number,
    pattern: Pattern,
}

/// How far one search looks, and how much the next goes back, bytes. A pattern that could match to
/// the value's end at each place would otherwise cost the square of its length; so a match is seen
/// to its 512th byte, and a candidate of up to 256 bytes is never cut.
const WINDOW: usize = 512;
const OVERLAP: usize = 256;

impl Verify {
    /// Compiles the pattern that finds candidates.
    ///
    /// # Errors
    ///
    /// As [`Pattern::compile`].
    pub fn compile(number: Number, pattern: &str) -> Result<Self, PatternError> {
        Ok(Self {
            number,
            pattern: Pattern::compile(pattern)?,
        })
    }

    /// The pattern that finds candidates.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The operator's name as documented.
    pub fn name(&self) -> &'static str {
        match self.number {
            Number::Card => "verifyCC",
            Number::Cpf => "verifyCPF",
            Number::Ssn => "verifySSN",
            Number::Svnr => "verifySVNR",
        }
    }

    /// Whether a candidate passes; it is group 0.
    ///
    /// Cost: linear in `value`, at most 512 steps a byte (for a pattern that matches 512 bytes
    /// everywhere).
    pub fn matches(&self, value: &[u8], found: &mut Found) -> bool {
        found.clear();
        match self.find(value) {
            Some(range) => {
                found.push(range);
                true
            }
            None => false,
        }
    }

    fn find(&self, value: &[u8]) -> Option<Range<usize>> {
        let mut from = 0;
        while from < value.len() {
            let end = value.len().min(from + WINDOW);
            match self.pattern.find_in(value, from..end) {
                Some((start, end)) if self.passes(&value[start..end]) => return Some(start..end),
                // The next candidate may begin inside this one, except where a search is dear.
                Some((start, end)) => {
                    from = if self.pattern.is_exact() {
                        start + 1
                    } else {
                        end.max(start + 1)
                    }
                }
                None if end == value.len() || !self.pattern.is_exact() => return None,
                None => from = end - OVERLAP,
            }
        }
        None
    }

    fn passes(&self, candidate: &[u8]) -> bool {
        let digits = || {
            candidate
                .iter()
                .filter(|byte| byte.is_ascii_digit())
                .map(|byte| u32::from(byte - b'0'))
        };
        match self.number {
            Number::Card => luhn(digits()),
            Number::Cpf => first(digits()).is_some_and(|digits| cpf(&digits)),
            Number::Ssn => {
                digits().count() == 9 && first(digits()).is_some_and(|digits| ssn(&digits))
            }
            Number::Svnr => first(digits()).is_some_and(|digits| svnr(&digits)),
        }
    }
}

/// The first `N` digits.
fn first<const N: usize>(mut digits: impl Iterator<Item = u32>) -> Option<[u32; N]> {
    let mut array = [0; N];
    for digit in &mut array {
        *digit = digits.next()?;
    }
    Some(array)
}

fn luhn(digits: impl Iterator<Item = u32>) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    // Which digits count double depends on how many there are, so both sums are made.
    let mut sums = [0, 0];
    let mut count = 0;
    for digit in digits {
        sums[count % 2] += digit;
        sums[1 - count % 2] += doubled(digit);
        count += 1;
    }
    count > 0 && sums[(count + 1) % 2] % 10 == 0
}

fn cpf(digits: &[u32; 11]) -> bool {
    let check = |count: usize| {
        let sum: u32 = digits[..count]
            .iter()
            .zip((2..=count as u32 + 1).rev())
            .map(|(digit, weight)| digit * weight)
            .sum();
        match sum % 11 {
            0 | 1 => 0,
            rest => 11 - rest,
        }
    };
    !is_placeholder(digits) && check(9) == digits[9] && check(10) == digits[10]
}

fn ssn(digits: &[u32; 9]) -> bool {
    let number = |digits: &[u32]| digits.iter().fold(0, |number, digit| 10 * number + digit);
    let (area, group, serial) = (
        number(&digits[..3]),
        number(&digits[3..5]),
        number(&digits[5..]),
    );
    !is_placeholder(digits) && group != 0 && serial != 0 && (1..740).contains(&area) && area != 666
}

fn svnr(digits: &[u32; 10]) -> bool {
    const WEIGHTS: [u32; 10] = [3, 7, 9, 0, 5, 8, 4, 2, 1, 6];
    let sum: u32 = digits
        .iter()
        .zip(WEIGHTS)
        .map(|(digit, weight)| digit * weight)
        .sum();
    !is_placeholder(digits) && sum % 11 % 10 == digits[3]
}

/// `0000000000`, `1234567890` and the like: valid by their sums, and never meant.
fn is_placeholder(digits: &[u32]) -> bool {
    let steps = |step| {
        digits
            .windows(2)
            .all(|pair| (pair[0] + step) % 10 == pair[1])
    };
    steps(0) || steps(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(number: Number, pattern: &str, value: &[u8]) -> Option<Range<usize>> {
        let verify = Verify::compile(number, pattern).expect("a pattern");
        let mut found = Found::new();
        verify.matches(value, &mut found);
        found.range(0)
    }

    #[test]
    fn check_digits() {
        assert_eq!(
            found(Number::Card, r"\d{16}", b"4111111111111111"),
            Some(0..16)
        );
        assert_eq!(found(Number::Card, r"\d{16}", b"4111111111111112"), None);
        assert_eq!(
            found(Number::Cpf, r"[\d.-]{14}", b"cpf 529.982.247-25"),
            Some(4..18)
        );
        assert_eq!(found(Number::Cpf, r"\d{11}", b"11111111111"), None);
        assert_eq!(found(Number::Ssn, r"\d{9}", b"123456789"), None);
        assert_eq!(found(Number::Svnr, r"\d{10}", b"1237010180"), Some(0..10));
    }

    #[test]
    fn a_candidate_may_begin_inside_another() {
        assert_eq!(
            found(Number::Card, r"\d{16}", b"94111111111111111"),
            Some(1..17)
        );
    }

    #[test]
    fn far_candidates_are_found_across_windows() {
        let mut value = vec![b'x'; 505];
        value.extend(b"4111111111111111");
        assert_eq!(found(Number::Card, r"\d{16}", &value), Some(505..521));
    }

    #[test]
    fn a_hostile_value_costs_linear_time() {
        let value = vec![b'1'; 1 << 14];
        assert_eq!(found(Number::Svnr, r"\d+x?", &value), None);
    }
}
