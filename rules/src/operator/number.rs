//! `@eq`, `@ge`, `@gt`, `@le`, `@lt`: two numbers.

/// One of the number operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `@eq`.
    Equal,
    /// `@ge`.
    GreaterOrEqual,
    /// `@gt`.
    Greater,
    /// `@le`.
    LessOrEqual,
    /// `@lt`.
    Less,
}

impl Order {
    /// The operator's name as documented.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "eq",
            Self::GreaterOrEqual => "ge",
            Self::Greater => "gt",
            Self::LessOrEqual => "le",
            Self::Less => "lt",
        }
    }

    /// Whether the value's number stands so to the argument's.
    pub fn holds(self, value: &[u8], argument: &[u8]) -> bool {
        let (value, argument) = (integer(value), integer(argument));
        match self {
            Self::Equal => value == argument,
            Self::GreaterOrEqual => value >= argument,
            Self::Greater => value > argument,
            Self::LessOrEqual => value <= argument,
            Self::Less => value < argument,
        }
    }
}

/// The number that a text begins with, as C's `atoi` reads it: white space, a sign, digits. Text
/// without one counts as 0; what does not fit stays at the end of the range (in ModSecurity 3 it
/// becomes 0, and `Content-Length: 99999999999` is smaller than any limit).
pub fn integer(text: &[u8]) -> i64 {
    let text = &text[text
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace() || **byte == 0x0b)
        .count()..];
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0_i64, |number, digit| {
        let digit = i64::from(digit - b'0');
        number
            .saturating_mul(10)
            .saturating_add(if negative { -digit } else { digit })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        assert_eq!(integer(b" 12abc"), 12);
        assert_eq!(integer(b"-7"), -7);
        assert_eq!(integer(b"+7"), 7);
        assert_eq!(integer(b"0x10"), 0);
        assert_eq!(integer(b""), 0);
        assert_eq!(integer(b"99999999999999999999999"), i64::MAX);
        assert_eq!(integer(b"-99999999999999999999999"), i64::MIN);
    }
}
