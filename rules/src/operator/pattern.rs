//! `@rx` and `@rxGlobal`.

use super::Found;
use crate::regex::{Pattern, PatternError, Search};

/// The pattern of `@rx` and `@rxGlobal`.
#[derive(Clone, Debug)]
pub struct Rx(Pattern);

impl Rx {
    /// Compiles a pattern; also for patterns whose macros have just been expanded.
    ///
    /// # Errors
    ///
    /// As [`Pattern::compile`].
    pub fn compile(pattern: &str) -> Result<Self, PatternError> {
        Pattern::compile(pattern).map(Self)
    }

    /// The pattern itself.
    pub fn pattern(&self) -> &Pattern {
        &self.0
    }

    /// The leftmost match, as `@rx` has it; where the step limit was reached, see
    /// [`Found::limit_exceeded`].
    pub fn matches(&self, value: &[u8], found: &mut Found) -> bool {
        found.clear();
        settle(self.0.captures(value, found), found)
    }

    /// All matches, as `@rxGlobal` has it, until the groups of [`Found`] are filled.
    pub fn matches_all(&self, value: &[u8], found: &mut Found) -> bool {
        found.clear();
        settle(self.0.captures_all(value, found), found)
    }
}

fn settle(search: Search, found: &mut Found) -> bool {
    if search == Search::LimitExceeded {
        found.set_limit_exceeded();
    }
    search != Search::NoMatch
}
