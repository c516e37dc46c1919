//! Whether a long value can have none of the strings that a few rules require.
//!
//! Of each rule one string of its best clause must be there. Where those are few, one search with vector
//! instructions tells at a tenth of the price of [`Atoms`](super::atoms::Atoms) that none is; where it
//! finds one, the value is scanned as ever.

use aho_corasick::packed::Searcher;

use super::bytes::frequency;
use super::requirement::Requirement;
use super::sample::share_of_triple;

/// Shorter values are scanned as fast.
const LONG: usize = 256;
/// So many strings are searched for at once.
const STRINGS: usize = 64;
/// Shorter strings stand nearly everywhere.
const SHORT: usize = 3;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Rare(Searcher);

impl Rare {
    /// Of rules of which each requires a string. `None`: there are too many, or too short ones, or this
    /// machine has no such instructions.
    pub(super) fn of<'r>(rules: impl Iterator<Item = &'r Requirement>) -> Option<Self> {
        let mut strings: Vec<&[u8]> = Vec::new();
        for rule in rules {
            let is_long = |clause: &&Vec<Vec<u8>>| clause.iter().all(|it| it.len() >= SHORT);
            let clause = rule.clauses.iter().find(is_long)?;
            strings.extend(clause.iter().map(|string| from_rarest(string)));
            strings.sort_unstable();
            strings.dedup();
            if strings.len() > STRINGS {
                return None;
            }
        }
        Searcher::new(strings).map(Self)
    }

    /// Whether none of the strings is in `value`, as far as that is worth looking for. `lower` is scratch.
    pub(super) fn is_absent(&self, value: &[u8], lower: &mut Vec<u8>) -> bool {
        if value.len() < LONG {
            return false;
        }
        lower.clear();
        lower.extend_from_slice(value);
        lower.make_ascii_lowercase();
        self.0.find(lower).is_none()
    }
}

/// The string from the rarest of its fours of bytes on: by its first bytes a string is looked for.
fn from_rarest(string: &[u8]) -> &[u8] {
    let fours = string.windows(4).map(|four| {
        let share: f32 = four.iter().map(|byte| frequency(*byte)).product();
        share + share_of_triple([four[0], four[1], four[2]])
    });
    let rarest = fours.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
    rarest.map_or(string, |(start, _)| &string[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(strings: &[&str]) -> Requirement {
        Requirement::phrases(strings.iter().map(|it| it.as_bytes()))
    }

    #[test]
    fn every_string_is_seen_in_any_case_and_place() {
        let rules = [rule(&["xp_cmdshell", "java.lang"]), rule(&["../etc"])];
        let Some(rare) = Rare::of(rules.iter()) else {
            return;
        };
        let mut lower = Vec::new();
        let plain = "the rest of it ".repeat(40);
        assert!(rare.is_absent(plain.as_bytes(), &mut lower));
        for string in ["xp_cmdshell", "XP_CmdShell", "java.LANG", "../etc"] {
            for at in 0..plain.len() {
                let value = format!("{}{string}{}", &plain[..at], &plain[at..]);
                assert!(!rare.is_absent(value.as_bytes(), &mut lower), "{value}");
            }
        }
        assert!(!rare.is_absent(b"short", &mut lower));
    }

    #[test]
    fn a_rule_that_requires_little_cannot_be_told_absent() {
        assert!(Rare::of([rule(&["xy"])].iter()).is_none());
        assert!(Rare::of([Requirement::default()].iter()).is_none());
    }
}
