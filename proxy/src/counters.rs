//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// Sums since start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Counters {
            /// Each name, what it counts, and the sum.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc.trim_ascii(), self.$name),)*].into_iter()
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: Sum,)*
        }

        impl Tally {
            pub(crate) fn read(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections,
    /// Connections closed at accept: banned source.
    banned_connections,
    /// Connections closed at accept: too many open.
    refused_connections,
    /// TLS or PROXY handshakes that failed.
    failed_handshakes,
    /// Heads that took too long.
    slow_heads,
    /// Requests whose head was read.
    requests,
    /// Requests answered 403: banned source.
    banned_requests,
    /// Requests refused for their number.
    limited_requests,
    /// Requests refused for their form or size.
    bad_requests,
    /// Requests and responses that rules have refused.
    denied_requests,
    /// Requests cancelled by a verdict.
    cancelled,
    /// Pieces of responses that waited for a verdict.
    held_responses,
    /// Those that went on without one: it took too long.
    unjudged_responses,
    /// Starts and ends of attempts that the correlator's queue had no room for.
    lost_records,
    /// Pieces of requests' inputs that it had no room for.
    lost_inputs,
}

/// One sum; relaxed, for nothing is ordered by it.
#[derive(Debug, Default)]
pub(crate) struct Sum(AtomicU64);

impl Sum {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
