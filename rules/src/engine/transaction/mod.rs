//! One request and its response, through the five phases.

mod body;
mod calendar;
mod candidates;
mod effect;
mod expand;
mod head;
mod lookup;
mod persistent;
mod rehearsal;
mod report;
mod response;
mod run;
mod state;
mod work;

use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(super) use rehearsal::rehearse;
pub(super) use state::List;
use state::State;
use work::Work;

use super::filter::Scanner;
use super::record::Match;
use super::ruleset::RuleSet;
use super::verdict::Verdict;
use super::{Phase, Processor};

thread_local! {
    /// The scanner of this thread, while no phase runs on it.
    static SCANNER: Cell<Option<Box<Scanner>>> = const { Cell::new(None) };
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client's address and port.
    pub client: (IpAddr, u16),
    /// The server's address and port, as the client sees them.
    pub server: (IpAddr, u16),
}

/// What time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Since the Unix epoch.
    pub unix: Duration,
    /// By a clock that never goes back; only differences count.
    pub monotonic: Duration,
}

/// One request and its response. Give it what arrives, in order:
/// [`request_line`](Self::request_line), [`request_header`](Self::request_header) for each,
/// [`request_headers_done`](Self::request_headers_done), [`request_body`](Self::request_body),
/// [`request_body_done`](Self::request_body_done), [`response_head`](Self::response_head),
/// [`response_body`](Self::response_body), [`response_body_done`](Self::response_body_done), and in
/// the end, also after an intervention, [`finish`](Self::finish). Then [`reset`](Self::reset) makes
/// it ready for the next one; its buffers are kept.
///
/// Where rules run, `out_of_time` is asked now and then (at the latest after 32 KiB of work) whether
/// the request's time is used up; see [`OutOfTime`](super::OutOfTime).
pub struct Transaction {
    rules: Arc<RuleSet>,
    state: State,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("matches", &self.state.records.len())
            .finish_non_exhaustive()
    }
}

impl RuleSet {
    /// A new transaction. `unique_id` is what `UNIQUE_ID` shows.
    pub fn transaction(
        self: &Arc<Self>,
        connection: Connection,
        now: Now,
        unique_id: &[u8],
    ) -> Transaction {
        let mut state = State::default();
        state.reset(self, connection, now, unique_id);
        Transaction {
            rules: Arc::clone(self),
            state,
        }
    }
}

impl Transaction {
    /// Forgets all, for another request.
    pub fn reset(&mut self, connection: Connection, now: Now, unique_id: &[u8]) {
        self.state.reset(&self.rules, connection, now, unique_id);
    }

    /// As [`reset`](Self::reset), with other rules (after a reload).
    pub fn reset_with(
        &mut self,
        rules: &Arc<RuleSet>,
        connection: Connection,
        now: Now,
        unique_id: &[u8],
    ) {
        if !Arc::ptr_eq(rules, &self.rules) {
            self.rules = Arc::clone(rules);
        }
        self.reset(connection, now, unique_id);
    }

    /// The rules it runs.
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// Tells what time it is now: for `DURATION`, `TIME` and collections.
    pub fn set_now(&mut self, now: Now) {
        self.state.now = now;
    }

    /// The request line: `GET`, `/path?query` as sent, `HTTP/1.1`.
    pub fn request_line(&mut self, method: &[u8], target: &[u8], version: &[u8]) {
        self.state
            .request_line(&self.rules, method, target, version);
    }

    /// A header line of the request. Its name is compared without regard to case.
    pub fn request_header(&mut self, name: &[u8], value: &[u8]) {
        self.state.request_header(&self.rules, name, value);
    }

    /// Phase 1.
    pub fn request_headers_done(&mut self, out_of_time: &mut dyn FnMut() -> bool) -> Verdict {
        self.state.head_done(&self.rules);
        self.run(Phase::RequestHeaders, out_of_time)
    }

    /// Whether the request's body is wanted: asked after phase 1.
    pub fn wants_request_body(&self) -> bool {
        self.state.wants_request_body()
    }

    /// Bytes of the request's body that are looked at: asked after phase 1. What lies beyond is
    /// refused or passed as `SecRequestBodyLimitAction` says.
    pub fn request_body_limit(&self) -> u64 {
        self.state.request_body_limit(&self.rules)
    }

    /// A piece of the request's body, decoded as `Content-Encoding` says. The intervention, when it
    /// comes, is 413.
    pub fn request_body(&mut self, piece: &[u8]) -> Verdict {
        self.state.request_body(&self.rules, piece)
    }

    /// Phase 2. To be called for requests without a body, too.
    pub fn request_body_done(&mut self, out_of_time: &mut dyn FnMut() -> bool) -> Verdict {
        self.state.request_body_done(&self.rules);
        self.run(Phase::RequestBody, out_of_time)
    }

    /// The response's head, and phase 3.
    pub fn response_head<'h>(
        &mut self,
        status: u16,
        version: &[u8],
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        out_of_time: &mut dyn FnMut() -> bool,
    ) -> Verdict {
        self.state
            .response_head(&self.rules, status, version, headers.into_iter());
        self.run(Phase::ResponseHeaders, out_of_time)
    }

    /// Whether the response's body is wanted: asked after phase 3.
    pub fn wants_response_body(&self) -> bool {
        self.state.wants_response_body(&self.rules)
    }

    /// Bytes of the response's body that are looked at.
    pub fn response_body_limit(&self) -> u64 {
        self.state.response_body_limit
    }

    /// A piece of the response's body, decoded as `Content-Encoding` says.
    pub fn response_body(&mut self, piece: &[u8]) -> Verdict {
        self.state.response_body(&self.rules, piece)
    }

    /// Phase 4.
    pub fn response_body_done(&mut self, out_of_time: &mut dyn FnMut() -> bool) -> Verdict {
        self.state.response_body_done();
        self.run(Phase::ResponseBody, out_of_time)
    }

    /// Phase 5. Runs after an intervention, too; nothing can be stopped any more.
    pub fn finish(&mut self, out_of_time: &mut dyn FnMut() -> bool) {
        self.run(Phase::Logging, out_of_time);
    }

    /// Rules that matched and are not `nolog`, in the order in which they matched.
    pub fn matches(&self) -> impl Iterator<Item = Match<'_>> {
        self.state.matches(&self.rules)
    }

    /// Numbers of all rules that matched, those with `nolog` among them, in order; a number is an
    /// index into [`RuleSet::rules`].
    pub fn matched_rules(&self) -> &[u32] {
        &self.state.fired
    }

    /// Who read the request's body.
    pub fn processor(&self) -> Option<Processor> {
        self.state.processor
    }

    /// A variable of `TX`, as a number.
    pub fn tx(&self, name: &str) -> i64 {
        self.state.tx_number(&self.rules, name)
    }

    /// All variables of `TX` that are set, each with its value, in no order that means anything.
    pub fn tx_values(&self) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
        self.state.tx_values(&self.rules)
    }

    /// CRS's anomaly scores of request and response: those of version 4, or of version 3.
    pub fn scores(&self) -> (i64, i64) {
        let request = [
            "blocking_inbound_anomaly_score",
            "inbound_anomaly_score",
            "anomaly_score",
        ];
        let response = ["blocking_outbound_anomaly_score", "outbound_anomaly_score"];
        let highest = |names: &[&str]| {
            names
                .iter()
                .map(|name| self.tx(name))
                .max()
                .unwrap_or_default()
        };
        (highest(&request), highest(&response))
    }

    fn run(&mut self, phase: Phase, out_of_time: &mut dyn FnMut() -> bool) -> Verdict {
        let mut scanner = SCANNER
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default();
        scanner.begin(self.rules.serial);
        let mut work = Work::new(&mut scanner, out_of_time);
        let verdict = self.state.run(&self.rules, phase, &mut work);
        // A thread that ends keeps none.
        let _ = SCANNER.try_with(|kept| kept.set(Some(scanner)));
        verdict
    }
}
