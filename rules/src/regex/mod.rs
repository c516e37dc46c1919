//! Regular expressions as ModSecurity writes them: PCRE's spelling, over bytes.
//!
//! A pattern is read into a tree (`syntax`), then runs on `regex-automata`, linear in the value. Only
//! what no regular expression can say (lookaround, backreferences, atomic groups) goes to `fancy-regex`,
//! which backtracks under a step limit, and only for values in which a regular
//! superset of the pattern matches.
//!
//! Known difference from PCRE: of a group that is repeated and can be empty, such as `(a*)*`, PCRE
//! shows the last, empty round, and Clew the last that was not; what matches is the same.

mod class;
mod confirm;
mod lower;
mod possessive;
mod syntax;

use std::sync::Arc;

use regex_automata::Input;
use regex_automata::meta;
use regex_automata::util::captures::Captures;
use regex_syntax::hir::Hir;

use self::class::ByteSet;
use self::confirm::Confirm;
use crate::operator::{Found, GROUPS};

/// Why a pattern does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (at byte {at} of the pattern)")]
pub struct PatternError {
    /// 0-based, in bytes of the pattern.
    pub at: usize,
    /// A sentence that says what to do.
    pub reason: String,
}

/// A compiled pattern. Cloning is cheap; clones share their scratch memory.
#[derive(Clone, Debug)]
pub struct Pattern {
    hir: Arc<Hir>,
    regex: Arc<meta::Regex>,
    /// Where `regex` is only a superset.
    confirm: Option<Arc<Confirm>>,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// A match.
    Match,
    /// No match.
    NoMatch,
    /// The step limit was reached: a superset of the pattern matches, the pattern itself may not.
    /// Only patterns that are not [exact](Pattern::is_exact) end so.
    LimitExceeded,
}

/// Compiled size of one pattern, bytes: refuses `(a{999}){999}` where a macro could bring it in.
/// The largest of CRS 3.3.4 needs a tenth.
const NFA_BYTES: usize = 4 << 20;

/// What the lazy DFA of one pattern may remember for each thread, bytes.
const CACHE_BYTES: usize = 512 << 10;

impl Pattern {
    /// Compiles `pattern` as PCRE would with `DOTALL` and `DOLLAR_ENDONLY`, without UTF: `.` matches
    /// every byte, `$` only at the end, `\w` and letters of either case are ASCII.
    ///
    /// # Errors
    ///
    /// What PCRE refuses, what Clew cannot run (recursion, conditions, verbs, `\p`), and what is too
    /// large.
    pub fn compile(pattern: &str) -> Result<Self, PatternError> {
        let refused = |reason: String| PatternError { at: 0, reason };
        let node = possessive::relaxed(syntax::parse(pattern.as_bytes())?);
        let confirm = match possessive::doubtful(&node) {
            Some(ByteSet::EMPTY) => None,
            doubtful => Some(Arc::new(
                Confirm::compile(&node, doubtful).map_err(refused)?,
            )),
        };
        let hir = lower::greedy(&node).unwrap_or_else(|| lower::superset(&node));
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(NFA_BYTES))
            .hybrid_cache_capacity(CACHE_BYTES)
            .onepass(false);
        let regex = meta::Builder::new().configure(config).build_from_hir(&hir);
        let regex = regex.map_err(|error| refused(why(&error)))?;
        Ok(Self {
            hir: Arc::new(hir),
            regex: Arc::new(regex),
            confirm,
        })
    }

    /// Whether `value` has a match anywhere.
    ///
    /// Cost: linear in `value`; of a pattern that is not [exact](Self::is_exact), at most about
    /// 8 steps a byte, and 20,000.
    pub fn search(&self, value: &[u8]) -> Search {
        match self.confirm_for(value) {
            None if self.regex.is_match(value) => Search::Match,
            None => Search::NoMatch,
            Some(confirm) => match self.regex.find(value) {
                None => Search::NoMatch,
                Some(superset) => confirm.search(value, superset.start()),
            },
        }
    }

    /// The second engine, where the first is not enough for this value.
    fn confirm_for(&self, value: &[u8]) -> Option<&Confirm> {
        self.confirm
            .as_deref()
            .filter(|confirm| confirm.is_needed(value))
    }

    /// Whether `value` has a match anywhere, or may have one ([`Search::LimitExceeded`]).
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.search(value) != Search::NoMatch
    }

    /// As [`search`](Self::search), and where: pushes the whole match and the groups that the pattern
    /// has, up to [`GROUPS`]. A group that took no part is empty.
    pub fn captures(&self, value: &[u8], found: &mut Found) -> Search {
        self.captures_from(value, 0, found).0
    }

    /// All matches from the left, as long as `found` has room for more groups.
    pub fn captures_all(&self, value: &[u8], found: &mut Found) -> Search {
        let mut result = Search::NoMatch;
        let mut from = 0;
        while from <= value.len() && !found.is_full() {
            let (search, end) = self.captures_from(value, from, found);
            match search {
                Search::NoMatch => break,
                Search::LimitExceeded if result == Search::Match => break,
                _ => result = search,
            }
            if search == Search::LimitExceeded {
                break;
            }
            from = end;
        }
        result
    }

    /// The first match that starts at `from` or later, and where to look for the next.
    fn captures_from(&self, value: &[u8], from: usize, found: &mut Found) -> (Search, usize) {
        let input = Input::new(value).range(from..);
        if let Some(confirm) = self.confirm_for(value) {
            return match self.regex.search(&input) {
                None => (Search::NoMatch, from),
                Some(superset) => confirm.captures(value, superset.start(), found),
            };
        }
        // Where there is only the whole match, the engines for groups are not needed.
        if self.regex.captures_len() == 1 {
            return match self.regex.search(&input) {
                None => (Search::NoMatch, from),
                Some(whole) => {
                    found.push(whole.range());
                    (Search::Match, after(whole.start(), whole.end()))
                }
            };
        }
        // Most values have no match, and a search for one bit is several times faster.
        if !self.regex.is_match(input.clone()) {
            return (Search::NoMatch, from);
        }
        let mut captures = self.regex.create_captures();
        self.regex.search_captures(&input, &mut captures);
        push_groups(&captures, found);
        let next = captures
            .get_match()
            .map_or(from, |whole| after(whole.start(), whole.end()));
        (Search::Match, next)
    }

    /// The first match within `range` of `value`, whose surroundings count for `^`, `$` and `\b`.
    /// Only for patterns that are [exact](Self::is_exact); others search all that follows.
    pub(crate) fn find_in(
        &self,
        value: &[u8],
        range: std::ops::Range<usize>,
    ) -> Option<(usize, usize)> {
        match &self.confirm {
            None => {
                let found = self.regex.search(&Input::new(value).span(range))?;
                Some((found.start(), found.end()))
            }
            Some(confirm) => {
                let superset = self.regex.search(&Input::new(value).range(range.start..))?;
                confirm.find(value, superset.start())
            }
        }
    }

    /// The pattern's syntax tree. Where [`is_exact`](Self::is_exact) is false, what it matches is a
    /// superset: good for a filter, not for a verdict.
    pub fn hir(&self) -> &Hir {
        &self.hir
    }

    /// Whether [`hir`](Self::hir) matches just what the pattern matches. Not so with lookaround,
    /// backreferences, atomic groups, and possessive quantifiers that matter.
    pub fn is_exact(&self) -> bool {
        self.confirm.is_none()
    }

    /// The linear engine, which decides alone where the pattern [is exact](Self::is_exact); for
    /// callers that bring their own scratch memory (`regex_automata::meta::Regex::search_with`).
    pub fn regex(&self) -> &meta::Regex {
        &self.regex
    }

    /// What the compiled pattern takes, bytes, without the scratch memory that each thread adds.
    pub fn memory_usage(&self) -> usize {
        self.regex.memory_usage() + self.confirm.as_ref().map_or(0, |_| Confirm::BYTES)
    }
}

fn why(error: &meta::BuildError) -> String {
    match error.size_limit() {
        Some(limit) => format!(
            "the pattern is too large: compiled, it would take more than {limit} bytes; lower its repetitions"
        ),
        None => format!("the pattern cannot be compiled: {error}"),
    }
}

/// Where the next search begins after a match, which may be empty.
fn after(start: usize, end: usize) -> usize {
    if end > start { end } else { end + 1 }
}

fn push_groups(captures: &Captures, found: &mut Found) {
    for group in captures.iter().take(GROUPS) {
        found.push(group.map_or(0..0, |span| span.range()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(pattern: &str, value: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut found = Found::new();
        let pattern =
            Pattern::compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        let search = pattern.captures(value, &mut found);
        assert_eq!(search, pattern.search(value));
        let group = |index| found.group(index, value).map(<[u8]>::to_vec);
        (search == Search::Match).then(|| (0..found.len()).filter_map(group).collect())
    }

    fn error(pattern: &str) -> PatternError {
        Pattern::compile(pattern)
            .err()
            .unwrap_or_else(|| panic!("{pattern} compiles"))
    }

    #[test]
    fn dot_matches_line_feeds_and_dollar_only_the_end() {
        assert_eq!(groups("a.b", b"a\nb"), Some(vec![b"a\nb".to_vec()]));
        assert_eq!(groups("a$", b"a\n"), None);
        assert_eq!(groups("(?m)a$", b"a\n"), Some(vec![b"a".to_vec()]));
        assert_eq!(groups(r"a\Z", b"a\n"), Some(vec![b"a".to_vec()]));
        assert_eq!(groups("(?m)^$", b"a\n"), None);
    }

    #[test]
    fn groups_that_took_no_part_are_empty() {
        let expected = vec![b"b".to_vec(), vec![], b"b".to_vec()];
        assert_eq!(groups("(a)|(b)", b"b"), Some(expected));
    }

    #[test]
    fn quoting_and_comments() {
        assert_eq!(groups(r"\Qa.b\E+", b"a.bbb"), Some(vec![b"a.bbb".to_vec()]));
        assert_eq!(groups(r"\Qa.b\E+", b"axb"), None);
        assert_eq!(
            groups("(?x) a b # c\n c", b"abc"),
            Some(vec![b"abc".to_vec()])
        );
        assert_eq!(groups("a(?#x)b", b"ab"), Some(vec![b"ab".to_vec()]));
    }

    #[test]
    fn what_needs_backtracking_is_marked() {
        for pattern in [r"<\?(?!xml)", r"(a)\1", r"(?>a+)b", r"a*+a"] {
            assert!(
                !Pattern::compile(pattern).expect(pattern).is_exact(),
                "{pattern}"
            );
        }
        assert!(Pattern::compile(r"\s*+;").expect("possessive").is_exact());
        assert_eq!(groups(r"a++[ab]", b"aab"), Some(vec![b"aab".to_vec()]));
        assert_eq!(groups(r"a++[ab]", b"aa"), None);
    }

    /// fancy-regex alone does not find it: the byte after it looks like the middle of a UTF-8 sequence.
    #[test]
    fn a_caseless_backreference_before_any_byte() {
        assert_eq!(
            groups(r"(?i)(x)=\1", b"x=X\x80").map(|groups| groups[0].clone()),
            Some(b"x=X".to_vec())
        );
        assert!(Pattern::compile(r"(?i)(x)(?-i)y\1").is_ok());
        assert!(error(r"(x)(?i)\1").reason.contains("caseless"));
    }

    #[test]
    fn the_step_limit_is_told() {
        let pattern = Pattern::compile(r"(a+)+(?!a)\1b").expect("a pattern");
        let mut value = vec![b'a'; 2000];
        value.push(b'b');
        value.extend([b'a'; 2000]);
        assert_ne!(pattern.search(&value), Search::NoMatch);
        assert_eq!(pattern.search(b"c"), Search::NoMatch);
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(error("a(b").at, 2);
        assert_eq!(error("a)b").at, 1);
        assert_eq!(error("a[b").at, 1);
        assert_eq!(error("*").at, 0);
        assert_eq!(error("[z-a]").at, 2);
        assert_eq!(error(r"(a)\2").at, 5);
        for pattern in [
            r"(?R)",
            r"(?(1)a|b)",
            r"\p{L}",
            r"\x{100}",
            "(*UTF)a",
            r"\",
            "a{3,2}",
            r"\y",
        ] {
            assert!(!error(pattern).reason.is_empty());
        }
    }

    #[test]
    fn size_and_depth_have_limits() {
        assert!(
            error("(?:(?:a{999}){999}){999}")
                .reason
                .contains("too large")
        );
        error(&"(".repeat(10_000));
        error(&format!("a{}", "{1}".repeat(10_000)));
        assert!(Pattern::compile(&"a|".repeat(10_000)).is_ok());
    }
}
