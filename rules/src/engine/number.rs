//! Whole numbers as ModSecurity reads and compares them.

use super::macros::Macro;

/// What C's `atoi` reads, without overflow: blanks, a sign, digits; anything else is 0.
pub(super) fn integer(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = digits.iter().take_while(|b| b.is_ascii_digit());
    let value = digits.fold(0_i64, |sum, b| {
        sum.saturating_mul(10).saturating_add(i64::from(b - b'0'))
    });
    if negative { -value } else { value }
}

/// The number whose decimal text is exactly `text`, so that the text can be made again from it.
pub(super) fn canonical(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [] => false,
        [b'0'] => text.len() == 1,
        [first, ..] => {
            *first != b'0' && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit)
        }
    };
    plain.then(|| integer(text))
}

/// `@eq` and its kin, for values that are numbers already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Comparison {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "eq" => Some(Self::Eq),
            "ge" => Some(Self::Ge),
            "gt" => Some(Self::Gt),
            "le" => Some(Self::Le),
            "lt" => Some(Self::Lt),
            _ => None,
        }
    }

    pub(super) fn holds(self, value: i64, operand: i64) -> bool {
        match self {
            Self::Eq => value == operand,
            Self::Ge => value >= operand,
            Self::Gt => value > operand,
            Self::Le => value <= operand,
            Self::Lt => value < operand,
        }
    }
}

/// A number in a rule: written out, one of `TX`, or whatever a macro gives.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Constant(i64),
    Tx(u16),
    Macro(Macro),
}

impl Operand {
    pub(super) fn of(text: Macro) -> Self {
        match (text.constant(), text.tx_slot()) {
            (Some(constant), _) => Self::Constant(integer(constant)),
            (None, Some(slot)) => Self::Tx(slot),
            (None, None) => Self::Macro(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_atoi_reads() {
        assert_eq!(integer(b" 12abc"), 12);
        assert_eq!(integer(b"-3"), -3);
        assert_eq!(integer(b"abc"), 0);
        assert_eq!(integer(b"99999999999999999999999"), i64::MAX);
    }

    #[test]
    fn canonical_numbers_print_as_they_were() {
        assert_eq!(canonical(b"5"), Some(5));
        assert_eq!(canonical(b"0"), Some(0));
        assert_eq!(canonical(b"-7"), Some(-7));
        for not in [
            &b"05"[..],
            b"",
            b"-",
            b"-0",
            b"5 ",
            b"+5",
            b"9999999999999999999",
        ] {
            assert_eq!(canonical(not), None);
        }
    }
}
