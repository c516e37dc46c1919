//! What the correlator asks of the others.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::incident::Incident;
use crate::{IncidentId, Sequence};

/// What an attribution rests on, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Proof {
    /// Bytes of this request's inputs, in no other candidate, appear in the event.
    Content,
    /// Forked from the thread that read it, in an executable learned as blocking.
    Lineage,
    /// No other request was in flight in that process, nor had ended in it within the last 60 s.
    Sole,
    /// One of these requests; never a ban.
    Candidates,
}

/// One thing to do, in the order given.
#[derive(Debug)]
pub enum Action {
    /// Cancel the request: nothing more of its response goes to the client.
    Condemn {
        /// The attempt.
        sequence: Sequence,
        /// Why.
        incident: IncidentId,
    },
    /// Let its response wait: it may be the one that something was stopped in.
    Hold {
        /// The attempt.
        sequence: Sequence,
    },
    /// Take back one [`Action::Hold`].
    Release {
        /// The attempt.
        sequence: Sequence,
    },
    /// Refuse an address.
    Ban {
        /// Whom.
        address: IpAddr,
        /// For how long.
        span: Duration,
        /// Why.
        incident: IncidentId,
    },
    /// Write the incident down. It may come again with a higher `revision`.
    Report(Box<Incident>),
}
