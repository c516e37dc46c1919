//! What an operator found: where in the value, and in which groups.

use std::ops::Range;

/// How many groups are kept: `TX:0`, the whole match, to `TX:9`.
pub const GROUPS: usize = 10;

/// What an operator found in a value. One is made per transaction and used again and again:
/// nothing in it is allocated.
#[derive(Clone, Debug)]
pub struct Found {
    /// Ranges into the value; a group that took no part is empty at 0.
    groups: [(usize, usize); GROUPS],
    count: usize,
    /// `@detectSQLi` shows a fingerprint of at most [`FINGERPRINT`] bytes instead of a range.
    fingerprint: [u8; FINGERPRINT],
    fingerprint_len: usize,
    exceeded: bool,
}

/// libinjection's fingerprints have at most five tokens; its buffer is 8 bytes.
const FINGERPRINT: usize = 8;

impl Default for Found {
    fn default() -> Self {
        Self::new()
    }
}

impl Found {
    /// Nothing found yet.
    pub const fn new() -> Self {
        Self {
            groups: [(0, 0); GROUPS],
            count: 0,
            fingerprint: [0; FINGERPRINT],
            fingerprint_len: 0,
            exceeded: false,
        }
    }

    /// Forgets everything. [`Operator::matches`](super::Operator::matches) does it first.
    pub fn clear(&mut self) {
        self.count = 0;
        self.fingerprint_len = 0;
        self.exceeded = false;
    }

    /// How many groups `capture` stores: 0 where the operator captures nothing.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether the operator captured nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Group `index` as `capture` stores it in `TX:index`; `value` is the value that was searched.
    /// A group that took no part in the match is empty.
    pub fn group<'v>(&'v self, index: usize, value: &'v [u8]) -> Option<&'v [u8]> {
        if index == 0 && self.fingerprint_len > 0 {
            return Some(&self.fingerprint[..self.fingerprint_len]);
        }
        let range = self.range(index)?;
        value.get(range)
    }

    /// Where group `index` lies in the value.
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let &(start, end) = self.groups[..self.count].get(index)?;
        Some(start..end)
    }

    /// What a log shows as matched data: group 0 where there is one, else the whole value.
    pub fn matched<'v>(&'v self, value: &'v [u8]) -> &'v [u8] {
        self.group(0, value).unwrap_or(value)
    }

    /// Whether a search gave up at its step limit, which only patterns with lookaround or
    /// backreferences have. The answer is then `true` and means "perhaps": a superset of the pattern
    /// matched. ModSecurity says "no match" and sets `TX:MSC_PCRE_LIMITS_EXCEEDED`, for a rule to block on.
    pub fn limit_exceeded(&self) -> bool {
        self.exceeded
    }

    /// Adds a group; what does not fit into [`GROUPS`] is dropped.
    pub(crate) fn push(&mut self, range: Range<usize>) {
        if let Some(slot) = self.groups.get_mut(self.count) {
            *slot = (range.start, range.end);
            self.count += 1;
        }
    }

    /// Whether another group would be dropped.
    pub(crate) fn is_full(&self) -> bool {
        self.count == GROUPS
    }

    pub(crate) fn set_limit_exceeded(&mut self) {
        self.exceeded = true;
    }

    pub(crate) fn set_fingerprint(&mut self, fingerprint: &[u8], value_len: usize) {
        let len = fingerprint.len().min(FINGERPRINT);
        self.fingerprint[..len].copy_from_slice(&fingerprint[..len]);
        self.fingerprint_len = len;
        self.push(0..value_len);
    }
}
