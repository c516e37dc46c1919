//! Rules whose outcome is known when they are loaded: a run of them becomes what it comes to.
//!
//! CRS begins by setting up: is this variable of `TX` set, then set that one; about a seventh of what a
//! plain request costs. As long as nothing that a request brings has had a say in it, each of these rules has the same
//! outcome for each request. It is worked out once (`transaction/rehearsal.rs`), and carried
//! out as one step (`transaction/run.rs`).
//!
//! Invariant: a segment is only used where all rules before it were run, each phase after the other, and
//! none was taken out; otherwise its rules are run as any others are.

use super::classes::Classes;

/// Rules `start..end` of a phase, none of which looks at anything but `TX`, and what they come to.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) start: usize,
    /// Where to go on.
    pub(super) end: usize,
    /// Variables of `TX` by slot, and what they are in the end.
    pub(super) tx: Box<[(u16, Known)]>,
    /// Numbers of the rules that match, in order.
    pub(super) fired: Box<[u32]>,
    /// The last value that matched; `None`: none did.
    pub(super) last_match: Option<KnownMatch>,
    pub(super) highest_severity: u8,
}

/// A value that is known when rules are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Unset,
    Number(i64),
    Text(Box<[u8]>, Classes),
}

/// `MATCHED_VAR`: a variable of `TX`, or whether there is one, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownMatch {
    pub(super) slot: Option<u16>,
    pub(super) value: Known,
}
