//! A candidate that judges live traffic beside the rules in force, and changes nothing.
//!
//! What a request consists of is kept as the rules in force are shown it, and handed to a thread of its own when they
//! are done with it. That thread has the lowest priority, and its queue is short: when the proxy is busy, requests are
//! passed over, and counted. A request waits for none of this.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clew_protocol::report::PackVersion;
use clew_rules::engine::{Connection, Intervention, Now, Options, Transaction, Verdict, compile};
use clew_rules::seclang::parse_text;

use super::kept::{Kept, Share};
use crate::config::Rulebook;

/// Requests that may wait to be judged by the candidate.
const WAITING: usize = 64;
/// Bytes that all of them may have.
const WAITING_BYTES: usize = 32 << 20;
/// Examples of each kind that are kept.
const EXAMPLES: usize = 20;
/// Rules that are counted.
const RULES: usize = 1000;
/// Bytes of a target that an example shows.
const SHOWN_BYTES: usize = 256;

/// What a candidate would have changed so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShadowReport {
    /// The candidate's packs.
    pub packs: Vec<PackVersion>,
    /// Requests that it has judged.
    pub judged: u64,
    /// Requests that were passed over: it was not done with others.
    pub skipped: u64,
    /// Requests that both refuse.
    pub both_block: u64,
    /// Requests that it refuses alone.
    pub new_blocks: u64,
    /// Requests that the rules in force refuse alone.
    pub lost_blocks: u64,
    /// Requests that the rules in force had refused before all of them was read, and it did not refuse for what it saw.
    pub undecided: u64,
    /// Processor time of the rules in force for these requests.
    pub active_time: Duration,
    /// Processor time of the candidate.
    pub candidate_time: Duration,
    /// The most it took for one of them.
    pub longest: Duration,
    /// For each rule that has matched in one of the two alone: how often in the candidate, how often in those in
    /// force. At most 1,000.
    pub rules: BTreeMap<u64, (u64, u64)>,
    /// The first of the new and of the lost blocks, at most 20 of each.
    pub examples: Vec<ShadowExample>,
}

/// A request that the candidate would have treated otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowExample {
    /// The candidate refuses it, and the rules in force do not; else the other way round.
    pub is_new: bool,
    /// Its public name.
    pub id: String,
    /// Lossy UTF-8.
    pub method: String,
    /// At most 256 bytes, lossy UTF-8.
    pub target: String,
    /// The rules that one of the two has matched alone; at most 16.
    pub rules: Vec<u64>,
}

/// The candidate at work; its thread ends when this is dropped.
pub(super) struct Shadow {
    /// What requests are shown to where no rules are in force: it has none, and reads bodies.
    pub(super) reader: Arc<Rulebook>,
    queue: SyncSender<Specimen>,
    memory: Arc<Kept>,
    skipped: AtomicU64,
    findings: Arc<Mutex<ShadowReport>>,
}

/// A request as rules are shown it.
pub(super) struct Specimen {
    connection: Connection,
    now: Now,
    id: Box<[u8]>,
    line: [Box<[u8]>; 3],
    headers: Fields,
    body: Vec<u8>,
    /// The body was not read, or not to its end.
    pub(super) is_cut: bool,
    response: Option<(u16, Fields)>,
    share: Share,
    /// What the rules in force have made of it.
    pub(super) active: Judged,
}

type Fields = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What rules have made of a request.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) blocks: bool,
    /// In the order in which they matched.
    pub(super) rules: Vec<u64>,
    pub(super) time: Duration,
}

impl Shadow {
    /// Starts the thread.
    pub(super) fn start(candidate: Rulebook, budget: Duration) -> std::io::Result<Self> {
        let (queue, specimens) = sync_channel(WAITING);
        let findings = Arc::new(Mutex::new(ShadowReport {
            packs: candidate.packs.to_vec(),
            ..ShadowReport::default()
        }));
        let limit = candidate.rules.settings().request_body_limit;
        let found = findings.clone();
        std::thread::Builder::new()
            .name("clew-shadow".to_owned())
            .spawn(move || judge_all(&candidate, budget, &specimens, &found))?;
        Ok(Self {
            reader: Arc::new(reader(limit)?),
            queue,
            memory: Kept::new(WAITING_BYTES),
            skipped: AtomicU64::new(0),
            findings,
        })
    }

    /// An empty specimen; none when the candidate is not done with others.
    pub(super) fn specimen(
        &self,
        connection: Connection,
        now: Now,
        id: &[u8],
    ) -> Option<Box<Specimen>> {
        let mut share = self.memory.share();
        if !share.grow(size_of::<Specimen>()) {
            self.skip();
            return None;
        }
        Some(Box::new(Specimen {
            connection,
            now,
            id: id.into(),
            line: Default::default(),
            headers: Vec::new(),
            body: Vec::new(),
            is_cut: false,
            response: None,
            share,
            active: Judged::default(),
        }))
    }

    pub(super) fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Has the candidate judge it, if there is room.
    pub(super) fn hand_over(&self, specimen: Specimen) {
        if self.queue.try_send(specimen).is_err() {
            self.skip();
        }
    }

    pub(super) fn report(&self) -> ShadowReport {
        let mut report = locked(&self.findings).clone();
        report.skipped = self.skipped.load(Ordering::Relaxed);
        report
    }
}

impl Specimen {
    pub(super) fn line(&mut self, method: &[u8], target: &[u8], version: &[u8]) -> bool {
        self.line = [method.into(), target.into(), version.into()];
        self.share.grow(method.len() + target.len() + version.len())
    }

    pub(super) fn header(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.headers.push((name.into(), value.into()));
        self.share.grow(name.len() + value.len() + 32)
    }

    pub(super) fn body(&mut self, piece: &[u8]) -> bool {
        self.body.extend_from_slice(piece);
        self.share.grow(piece.len())
    }

    pub(super) fn response<'h>(
        &mut self,
        status: u16,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> bool {
        let headers: Fields = headers
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let bytes = headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32);
        let fits = self.share.grow(bytes.sum());
        self.response = Some((status, headers));
        fits
    }

    /// What `rules` make of it.
    fn judged_by(&self, rules: &Rulebook, budget: Duration) -> Judged {
        let begun = Instant::now();
        let mut late = || begun.elapsed() >= budget;
        let mut transaction = rules.rules.transaction(self.connection, self.now, &self.id);
        let verdict = self.show(&mut transaction, &mut late);
        let blocks = verdict.is_some();
        transaction.finish(&mut late);
        Judged {
            blocks,
            rules: matched(&transaction),
            time: begun.elapsed(),
        }
    }

    fn show(
        &self,
        transaction: &mut Transaction,
        late: &mut dyn FnMut() -> bool,
    ) -> Option<Intervention> {
        let [method, target, version] = &self.line;
        transaction.request_line(method, target, version);
        for (name, value) in &self.headers {
            transaction.request_header(name, value);
        }
        refusal(transaction.request_headers_done(late))
            .or_else(|| {
                let wants = !self.body.is_empty() && transaction.wants_request_body();
                wants.then(|| refusal(transaction.request_body(&self.body)))?
            })
            .or_else(|| refusal(transaction.request_body_done(late)))
            .or_else(|| {
                let (status, headers) = self.response.as_ref()?;
                let headers = headers.iter().map(|(name, value)| (&name[..], &value[..]));
                refusal(transaction.response_head(*status, b"HTTP/1.1", headers, late))
            })
    }
}

/// Rules that read bodies of up to `limit` bytes and match nothing.
fn reader(limit: u64) -> std::io::Result<Rulebook> {
    let text = format!(
        "SecRuleEngine DetectionOnly\nSecRequestBodyAccess On\nSecRequestBodyLimit {limit}\n\
         SecRequestBodyLimitAction ProcessPartial\n"
    );
    let fail = |what: String| std::io::Error::other(what);
    let ast = parse_text("shadow", &text).map_err(|errors| fail(format!("{errors:?}")))?;
    let rules = compile(&ast, Options::default()).map_err(|errors| fail(format!("{errors:?}")))?;
    Ok(Rulebook::new(Arc::new(rules)))
}

fn refusal(verdict: Verdict) -> Option<Intervention> {
    match verdict {
        Verdict::Intervention(intervention) => Some(intervention),
        _ => None,
    }
}

/// Ids of the rules that have matched.
pub(super) fn matched(transaction: &Transaction) -> Vec<u64> {
    let matches = transaction.matches();
    matches
        .filter_map(|matched| matched.rule.map(|rule| rule.id))
        .collect()
}

fn judge_all(
    candidate: &Rulebook,
    budget: Duration,
    specimens: &Receiver<Specimen>,
    findings: &Mutex<ShadowReport>,
) {
    // On Linux that of this thread alone.
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        tracing::debug!(%error, "the candidate is judged at the priority of requests");
    }
    for specimen in specimens {
        let judged = specimen.judged_by(candidate, budget);
        locked(findings).add(&specimen, &judged);
    }
}

fn locked(findings: &Mutex<ShadowReport>) -> std::sync::MutexGuard<'_, ShadowReport> {
    findings.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ShadowReport {
    fn add(&mut self, specimen: &Specimen, judged: &Judged) {
        let active = &specimen.active;
        self.judged += 1;
        self.active_time += active.time;
        self.candidate_time += judged.time;
        self.longest = self.longest.max(judged.time);
        for (id, count) in alone(&judged.rules, &active.rules) {
            if let Some(counts) = self.rule(id) {
                counts.0 += count;
            }
        }
        for (id, count) in alone(&active.rules, &judged.rules) {
            if let Some(counts) = self.rule(id) {
                counts.1 += count;
            }
        }
        match (judged.blocks, active.blocks) {
            (true, true) => self.both_block += 1,
            (true, false) => {
                self.new_blocks += 1;
                self.show(specimen, &judged.rules, &active.rules, true);
            }
            (false, true) if specimen.is_cut => self.undecided += 1,
            (false, true) => {
                self.lost_blocks += 1;
                self.show(specimen, &active.rules, &judged.rules, false);
            }
            (false, false) => {}
        }
    }

    /// The counts of a rule, as long as there is room for others.
    fn rule(&mut self, id: u64) -> Option<&mut (u64, u64)> {
        if self.rules.len() >= RULES && !self.rules.contains_key(&id) {
            return None;
        }
        Some(self.rules.entry(id).or_default())
    }

    fn show(&mut self, specimen: &Specimen, ours: &[u64], theirs: &[u64], is_new: bool) {
        let of_kind = self.examples.iter().filter(|it| it.is_new == is_new);
        if of_kind.count() >= EXAMPLES {
            return;
        }
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned()
        };
        self.examples.push(ShadowExample {
            is_new,
            id: text(&specimen.id),
            method: text(&specimen.line[0]),
            target: text(&specimen.line[1]),
            rules: alone(ours, theirs).into_keys().take(16).collect(),
        });
    }
}

/// How much more often each rule is in `ours` than in `theirs`.
fn alone(ours: &[u64], theirs: &[u64]) -> BTreeMap<u64, u64> {
    let mut counts: BTreeMap<u64, i64> = BTreeMap::new();
    for id in ours {
        *counts.entry(*id).or_default() += 1;
    }
    for id in theirs {
        *counts.entry(*id).or_default() -= 1;
    }
    let more = counts.into_iter().filter(|(_, count)| *count > 0);
    more.map(|(id, count)| (id, count.unsigned_abs())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_have_is_no_difference() {
        let alone: Vec<_> = alone(&[1, 2, 2, 3], &[2, 3, 4]).into_iter().collect();
        assert_eq!(alone, [(1, 1), (2, 1)]);
    }
}
