//! What no regular expression can say: lookaround, backreferences, atomic groups.

use std::borrow::Cow;

use fancy_regex::{BytesMode, RegexBuilder};

use super::class::ByteSet;
use super::syntax::Node;
use super::{CACHE_BYTES, NFA_BYTES, Search, lower};
use crate::operator::{Found, GROUPS};

/// The engine that backtracks, with a step limit for each size of value.
#[derive(Debug)]
pub(super) struct Confirm {
    regexes: Vec<(usize, fancy_regex::Regex)>,
    /// Values are searched in lower case: fancy-regex compares a caseless backreference only where
    /// both ends look like UTF-8 (0.20.2). Nothing in such a pattern may tell cases apart.
    lower_case: bool,
    /// Values without these bytes need no second engine.
    doubtful: Option<ByteSet>,
}

impl Confirm {
    /// Values of up to so many bytes get so many steps; a step takes about 20 ns. The last is for
    /// all larger ones.
    const LIMITS: [(usize, usize); 4] = [
        (2 << 10, 20_000),
        (16 << 10, 130_000),
        (128 << 10, 1_000_000),
        (usize::MAX, 8_000_000),
    ];

    /// A guess, for `Pattern::memory_usage`: the engine does not tell.
    pub(super) const BYTES: usize = 256 << 10;

    pub(super) fn compile(node: &Node, doubtful: Option<ByteSet>) -> Result<Self, String> {
        let lower_case = lower::has_caseless_back(node);
        if lower_case && lower::is_case_sensitive(node) {
            return Err("a caseless backreference stands beside what is not caseless; put (?i) before all of the pattern".to_owned());
        }
        let spelling = lower::spelling(node);
        let compile = |(bytes, steps)| {
            let regex = RegexBuilder::new(&spelling)
                .bytes_mode(BytesMode::Ascii)
                .unicode_mode(false)
                // Its simplifications change what `([ab]+?)*+` matches (0.20.2).
                .optimize(false)
                .backtrack_limit(steps)
                .delegate_size_limit(NFA_BYTES)
                .delegate_dfa_size_limit(CACHE_BYTES)
                .build();
            regex.map(|regex| (bytes, regex))
        };
        let regexes = Self::LIMITS
            .into_iter()
            .map(compile)
            .collect::<Result<_, _>>();
        let regexes =
            regexes.map_err(|error| format!("the pattern cannot be compiled: {error}"))?;
        Ok(Self {
            regexes,
            lower_case,
            doubtful,
        })
    }

    /// Whether the linear engine may be wrong about `value`.
    pub(super) fn is_needed(&self, value: &[u8]) -> bool {
        self.doubtful
            .is_none_or(|doubtful| doubtful.occurs_in(value))
    }

    /// `value` as this engine must see it.
    fn text<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        if self.lower_case {
            value.to_ascii_lowercase().into()
        } else {
            value.into()
        }
    }

    fn regex(&self, value: &[u8]) -> &fancy_regex::Regex {
        let fits = self.regexes.iter().find(|(bytes, _)| value.len() <= *bytes);
        &fits.unwrap_or(&self.regexes[0]).1
    }

    pub(super) fn search(&self, value: &[u8], from: usize) -> Search {
        let text = self.text(value);
        match self.regex(value).find_from_pos(&*text, from) {
            Ok(Some(_)) => Search::Match,
            Ok(None) => Search::NoMatch,
            Err(_) => Search::LimitExceeded,
        }
    }

    pub(super) fn find(&self, value: &[u8], from: usize) -> Option<(usize, usize)> {
        let text = self.text(value);
        let found = self.regex(value).find_from_pos(&*text, from).ok()??;
        Some((found.start(), found.end()))
    }

    /// At the step limit, where the superset matched is all that is known.
    pub(super) fn captures(&self, value: &[u8], from: usize, found: &mut Found) -> (Search, usize) {
        let text = self.text(value);
        let captures = match self.regex(value).captures_from_pos(&*text, from) {
            Ok(Some(captures)) => captures,
            Ok(None) => return (Search::NoMatch, from),
            Err(_) => {
                found.push(from..value.len());
                return (Search::LimitExceeded, from);
            }
        };
        for group in captures.iter().take(GROUPS) {
            found.push(group.map_or(0..0, |group| group.start()..group.end()));
        }
        let next = captures
            .get(0)
            .map_or(from, |whole| super::after(whole.start(), whole.end()));
        (Search::Match, next)
    }
}
