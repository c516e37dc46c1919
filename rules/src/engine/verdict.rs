//! What the engine tells its caller.

use super::Phase;

/// What follows from the rules of a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Stop: the request, or the response, must not go on.
    Intervention(Intervention),
}

impl Verdict {
    /// Whether the transaction may go on.
    pub fn passes(&self) -> bool {
        *self == Self::Pass
    }
}

/// How a transaction is to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intervention {
    /// What to do.
    pub action: Disruption,
    /// The HTTP status to answer with.
    pub status: u16,
    /// Id of the rule; 0 for a limit of the engine itself.
    pub rule: u64,
    /// The phase.
    pub phase: Phase,
}

/// The way of stopping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disruption {
    /// Answer with the status.
    Deny,
    /// Close the connection without an answer.
    Drop,
    /// Answer with a redirection to this address.
    Redirect(String),
}
