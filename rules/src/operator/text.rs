//! `@streq`, `@contains`, `@containsWord`, `@beginsWith`, `@endsWith`, `@within`, `@strmatch`: two
//! texts, compared byte by byte.

use memchr::memmem::{self, Finder};

use crate::transformation::position_of_pair;

/// One of the text operators. Case counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `@streq`: they are the same.
    Streq,
    /// `@contains`: the argument is somewhere in the value.
    Contains,
    /// `@containsWord`: and no ASCII letter stands next to it.
    ContainsWord,
    /// `@beginsWith`.
    BeginsWith,
    /// `@endsWith`.
    EndsWith,
    /// `@within`: the value is somewhere in the argument.
    Within,
    /// `@strmatch`: as `@contains`.
    Strmatch,
}

impl Comparison {
    /// The operator's name as documented.
    pub fn name(self) -> &'static str {
        match self {
            Self::Streq => "streq",
            Self::Contains => "contains",
            Self::ContainsWord => "containsWord",
            Self::BeginsWith => "beginsWith",
            Self::EndsWith => "endsWith",
            Self::Within => "within",
            Self::Strmatch => "strmatch",
        }
    }

    /// Whether it holds. An empty argument is in every value, an empty value within every argument.
    pub fn holds(self, value: &[u8], argument: &[u8]) -> bool {
        match self {
            Self::Streq => value == argument,
            Self::Contains | Self::Strmatch => memmem::find(value, argument).is_some(),
            Self::ContainsWord => contains_word(value, argument),
            Self::BeginsWith => value.starts_with(argument),
            Self::EndsWith => value.ends_with(argument),
            Self::Within => is_within(argument, value),
        }
    }
}

/// Lists are short and many values are asked: what `memmem` prepares for each costs more than it saves.
fn is_within(list: &[u8], value: &[u8]) -> bool {
    const SHORT: usize = 256;
    match value {
        [first, second, ..] if list.len() <= SHORT => {
            let mut rest = list;
            let both = |a: u8, b: u8| (a == *first) & (b == *second);
            while let Some(at) = position_of_pair(rest, both) {
                if rest[at..].starts_with(value) {
                    return true;
                }
                rest = &rest[at + 1..];
            }
            false
        }
        _ => memmem::find(list, value).is_some(),
    }
}

fn contains_word(value: &[u8], word: &[u8]) -> bool {
    if word.is_empty() {
        return true;
    }
    let is_letter = |at: usize| value.get(at).is_some_and(u8::is_ascii_alphabetic);
    let finder = Finder::new(word);
    let mut from = 0;
    while let Some(offset) = finder.find(&value[from..]) {
        let start = from + offset;
        let follows = start > 0 && is_letter(start - 1);
        if !follows && !is_letter(start + word.len()) {
            return true;
        }
        from = start + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_ends_at_anything_but_a_letter() {
        let holds = |value: &[u8]| Comparison::ContainsWord.holds(value, b"select");
        assert!(holds(b"1select_"));
        assert!(holds(b"selective select"));
        assert!(!holds(b"selection preselect"));
    }
}
