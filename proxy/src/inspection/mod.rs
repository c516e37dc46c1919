//! Rules on the path of a request: heads and bodies become a transaction of the engine, its
//! verdicts become answers.
//!
//! `request` runs the phases 1 and 2, `response` 3 and 4; the rest of the phases runs when an
//! [`Inspection`] ends. `held` keeps bodies and heads back until there is a verdict, `kept` bounds
//! the memory for that, `decode` undoes content codings, `pool` keeps transactions.
//!
//! Invariant: a request is judged by one rule set, whatever is loaded meanwhile.

mod decode;
mod kept;
mod log;
mod pool;
mod request;
mod response;
mod shadow;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use clew_protocol::request::{EDGE_RULES, EdgeFindings};
use clew_rules::engine::{Connection, Disruption, Intervention, Match, Now, Transaction, Verdict};
use clew_rules::seclang::ast::RuleEngine;
use http::HeaderValue;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType};

use crate::config::{Rulebook, RulesConfig, UnknownCoding};
use crate::page::Answer;
use crate::rate::RateLimit;

pub(crate) use kept::Share;

use kept::Kept;
use log::MatchLog;
use pool::Pool;
use request::RequestBody;
use response::ResponseBody;
use shadow::{Judged, Shadow, Specimen, matched};
pub use shadow::{ShadowExample, ShadowReport};

/// Error type of a response that rules have refused.
pub(crate) const DENIED: ErrorType = ErrorType::new("denied by rules");
/// What there may be, in [`Inspector::has`].
const RULES: u8 = 1;
const LIMITS: u8 = 2;
const SHADOW: u8 = 4;
/// A body larger than this leaves buffers behind that are not worth keeping.
const ORDINARY_BYTES: usize = 128 * 1024;

/// What all inspected requests share.
pub(crate) struct Inspector {
    rulebook: ArcSwap<Rulebook>,
    /// What of rules, limits and a candidate there is: requests that nobody looks at cost a load.
    has: AtomicU8,
    /// A candidate that judges beside it.
    shadow: ArcSwapOption<Shadow>,
    pool: Pool,
    kept: Arc<Kept>,
    log: MatchLog,
    budget: Duration,
    unknown_coding: UnknownCoding,
    expansion: usize,
    started: Instant,
}

impl Inspector {
    pub(crate) fn new(config: RulesConfig) -> Arc<Self> {
        let inspector = Self {
            has: AtomicU8::new(0),
            rulebook: ArcSwap::from_pointee(config.rulebook),
            shadow: ArcSwapOption::empty(),
            pool: Pool::default(),
            kept: Kept::new(config.kept_bodies_bytes),
            log: MatchLog::new(config.log),
            budget: config.budget,
            unknown_coding: config.unknown_coding,
            expansion: config.expansion as usize,
            started: Instant::now(),
        };
        inspector.note_rulebook(&inspector.rulebook());
        Arc::new(inspector)
    }

    /// Requests that begin from now on are judged by `rulebook`.
    pub(crate) fn replace(&self, rulebook: Rulebook) {
        self.note_rulebook(&rulebook);
        self.rulebook.store(Arc::new(rulebook));
        // What waits there holds the rules that it has seen last.
        self.pool.clear();
    }

    /// What requests that begin now are judged by.
    pub(crate) fn rulebook(&self) -> Arc<Rulebook> {
        self.rulebook.load_full()
    }

    /// Has a candidate judge beside the rules in force, from now on; none: ends that.
    ///
    /// # Errors
    ///
    /// Its thread cannot start.
    pub(crate) fn set_shadow(&self, candidate: Option<Rulebook>) -> std::io::Result<()> {
        let start = |candidate| Shadow::start(candidate, self.budget).map(Arc::new);
        let shadow = candidate.map(start).transpose()?;
        self.note(SHADOW, shadow.is_some());
        self.shadow.store(shadow);
        Ok(())
    }

    /// What the candidate would have changed.
    pub(crate) fn shadow(&self) -> Option<ShadowReport> {
        Some(self.shadow.load().as_ref()?.report())
    }

    /// The first limit that this request of a client exceeds.
    pub(crate) fn exceeded(
        &self,
        client: impl FnOnce() -> IpAddr,
        request: &RequestHeader,
    ) -> Option<RateLimit> {
        if !self.has(LIMITS) {
            return None;
        }
        let rulebook = self.rulebook.load();
        rulebook.limits.exceeded(client(), request).cloned()
    }

    /// Whether anybody looks at requests.
    pub(crate) fn looks(&self) -> bool {
        self.has(RULES | SHADOW)
    }

    fn has(&self, what: u8) -> bool {
        self.has.load(Ordering::Relaxed) & what != 0
    }

    fn note(&self, what: u8, is_there: bool) {
        if is_there {
            self.has.fetch_or(what, Ordering::Relaxed);
        } else {
            self.has.fetch_and(!what, Ordering::Relaxed);
        }
    }

    fn note_rulebook(&self, rulebook: &Rulebook) {
        self.note(LIMITS, !rulebook.limits.is_empty());
        self.note(RULES, rulebook.rules.settings().engine != RuleEngine::Off);
    }

    /// Begins a request; none when the rules are switched off.
    fn begin(
        self: &Arc<Self>,
        connection: Connection,
        unique_id: &[u8],
    ) -> Option<Box<Inspection>> {
        let mut rulebook = self.rulebook();
        let engine = rulebook.rules.settings().engine;
        let shadow = self.shadow.load_full();
        if engine == RuleEngine::Off {
            rulebook = shadow.as_ref()?.reader.clone();
        }
        let now = self.now();
        let specimen = shadow
            .as_ref()
            .and_then(|it| it.specimen(connection, now, unique_id));
        let transaction = self.pool.take(&rulebook.rules, connection, now, unique_id);
        Some(Box::new(Inspection {
            transaction: Some(transaction),
            clock: Clock::new(self.budget),
            is_blocking: engine == RuleEngine::On,
            is_finished: false,
            told: 0,
            seen_bytes: 0,
            request: RequestBody::new(self.kept.share()),
            response: ResponseBody::new(self.kept.share()),
            denial: None,
            rulebook,
            shadow,
            specimen,
            inspector: self.clone(),
        }))
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            unix: unix.unwrap_or_default(),
            monotonic: self.started.elapsed(),
        }
    }
}

/// The time that one request may cost, over all phases.
struct Clock {
    budget: Duration,
    spent: Duration,
}

impl Clock {
    fn new(budget: Duration) -> Self {
        Self {
            budget,
            spent: Duration::ZERO,
        }
    }

    /// Runs a phase and counts its time.
    fn run<T>(&mut self, phase: impl FnOnce(&mut dyn FnMut() -> bool) -> T) -> T {
        let begun = Instant::now();
        let left = self.budget.saturating_sub(self.spent);
        let outcome = phase(&mut || begun.elapsed() >= left);
        self.spent += begun.elapsed();
        outcome
    }
}

/// What the rules see of one request and its response, and what they have said.
pub(crate) struct Inspection {
    inspector: Arc<Inspector>,
    /// What it is judged by.
    rulebook: Arc<Rulebook>,
    /// Who judges it beside that, and what he is shown; none when he has enough to do.
    shadow: Option<Arc<Shadow>>,
    specimen: Option<Box<Specimen>>,
    /// None only while it is dropped.
    transaction: Option<Box<Transaction>>,
    clock: Clock,
    /// Whether what no rule can look at (a coding, a bomb) is refused, or told and passed.
    is_blocking: bool,
    /// The last phase has run.
    is_finished: bool,
    /// Matches that are logged already.
    told: usize,
    /// Bytes of bodies that the transaction was given.
    seen_bytes: usize,
    request: RequestBody,
    response: ResponseBody,
    /// What the client is to get instead.
    denial: Option<Answer>,
}

impl Inspection {
    /// Phases of the engine, against the request's clock.
    fn run<T>(
        &mut self,
        phase: impl FnOnce(&mut Transaction, &mut dyn FnMut() -> bool) -> T,
    ) -> Option<T> {
        let transaction = self.transaction.as_mut()?;
        Some(self.clock.run(|late| phase(transaction, late)))
    }

    /// Takes note of a verdict; the answer that it means, if it is one.
    fn take(&mut self, verdict: Option<Verdict>) -> Option<Answer> {
        let Some(Verdict::Intervention(intervention)) = verdict else {
            return None;
        };
        Some(self.deny(answer(intervention)))
    }

    fn deny(&mut self, answer: Answer) -> Answer {
        self.tell();
        self.denial = Some(answer.clone());
        answer
    }

    /// Refuses what cannot be looked at, where rules may refuse at all; tells it either way.
    fn refuse(&mut self, status: u16, reason: &str) -> Option<Answer> {
        tracing::info!(target: "clew::rules", status, blocked = self.is_blocking, "{reason}");
        self.is_blocking.then(|| self.deny(Answer::Status(status)))
    }

    /// The answer that replaces the response, once rules have refused.
    pub(crate) fn denial(&self) -> Option<&Answer> {
        self.denial.as_ref()
    }

    /// What the correlator is told of the matches so far.
    pub(crate) fn findings(&self) -> EdgeFindings {
        let Some(transaction) = &self.transaction else {
            return EdgeFindings::default();
        };
        let matches = transaction.matches();
        let rules: Box<[u64]> = matches
            .filter_map(|matched| matched.rule.map(|rule| rule.id))
            .take(EDGE_RULES)
            .collect();
        // What raises the score says so; the look-up is for the few requests that have one.
        let score = if rules.is_empty() {
            0
        } else {
            transaction.scores().0
        };
        EdgeFindings { score, rules }
    }

    /// The request is over, however it ended: the last phase, and the log.
    pub(crate) fn finish(&mut self) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        let now = self.inspector.now();
        self.run(|transaction, late| {
            transaction.set_now(now);
            transaction.finish(late);
        });
        self.tell();
        self.hand_over();
    }

    /// Shows the candidate what there is to see; none of it when there is no memory for it.
    fn show(&mut self, show: impl FnOnce(&mut Specimen) -> bool) {
        if let (Some(shadow), Some(specimen)) = (&self.shadow, &mut self.specimen)
            && !show(specimen)
        {
            shadow.skip();
            self.specimen = None;
        }
    }

    /// Has the candidate judge it, beside what it came to.
    fn hand_over(&mut self) {
        let Some((shadow, mut specimen)) = self.shadow.take().zip(self.specimen.take()) else {
            return;
        };
        specimen.active = Judged {
            blocks: self.denial.is_some(),
            rules: self.transaction.as_deref().map_or_else(Vec::new, matched),
            time: self.clock.spent,
        };
        shadow.hand_over(*specimen);
    }

    /// The rules that matched, once it is finished; scores of the request and of the response.
    pub(crate) fn outcome(&self) -> Option<(Vec<Match<'_>>, (i64, i64))> {
        let transaction = self.transaction.as_ref()?;
        let matches: Vec<_> = transaction.matches().collect();
        (!matches.is_empty()).then(|| (matches, transaction.scores()))
    }

    /// What it was judged by.
    pub(crate) fn rulebook(&self) -> &Rulebook {
        &self.rulebook
    }

    /// Processor time so far.
    pub(crate) fn spent(&self) -> Duration {
        self.clock.spent
    }

    /// Bytes of the request's body that were read for it.
    pub(crate) fn request_body_bytes(&self) -> u64 {
        self.request.bytes as u64
    }

    /// Writes down what has matched since the last time.
    fn tell(&mut self) {
        if let Some(transaction) = &self.transaction {
            self.told = self.inspector.log.tell(transaction, self.told);
        }
    }
}

impl Drop for Inspection {
    fn drop(&mut self) {
        self.finish();
        let is_current = Arc::ptr_eq(&self.inspector.rulebook.load(), &self.rulebook);
        if let Some(transaction) = self.transaction.take()
            && self.seen_bytes <= ORDINARY_BYTES
            && is_current
        {
            self.inspector.pool.give_back(transaction);
        }
    }
}

/// What a client is told for an intervention.
fn answer(intervention: Intervention) -> Answer {
    let status = match intervention.status {
        status @ 200..=599 => status,
        _ => 403,
    };
    match intervention.action {
        Disruption::Deny if intervention.rule == 0 => Answer::Status(status),
        Disruption::Deny => Answer::Denied(status),
        Disruption::Drop => Answer::Silence,
        Disruption::Redirect(to) => HeaderValue::from_str(&to)
            .map_or(Answer::Denied(403), |to| Answer::Elsewhere(status, to)),
    }
}

/// What ends a response that rules have refused; the answer is in [`Inspection::denial`].
fn denied() -> Box<Error> {
    Error::new(DENIED)
}
