//! Who did it, and what that rests on.

use std::cmp::Reverse;
use std::collections::VecDeque;

use clew_protocol::kernel::{Lineage, ProcessKey, Strength};
use clew_protocol::verdict::Proof;
use clew_protocol::{Moment, Sequence};
use memchr::memmem::Finder;

use crate::content::{Needle, contains, contains_whole, is_installed_program};
use crate::process::Held;
use crate::requests::{Request, Requests};
use crate::workload::{FAMILY, Workload};

/// Candidates whose inputs are searched first for content of an event. What is found in one of them is
/// looked for in all others, which bounds the time of most verdicts.
const SEARCHED: usize = 256;
/// Candidates that are searched where it is in none of those: what a request has left to be done later is
/// done after hundreds of others were read. About a microsecond each.
const SEARCHED_AT_MOST: usize = 16_384;
/// Bytes by which content must match where the thread's own mark says otherwise.
const AGAINST_THE_MARK_BYTES: usize = 16;
/// Most candidates that an attribution names.
const NAMED: usize = 32;
/// Requests of which content is compared to tell what is common.
const COMMON: usize = 64;

/// An attribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribution {
    pub(crate) proof: Proof,
    /// The request; none for [`Proof::Candidates`].
    pub(crate) sequence: Option<Sequence>,
    /// The bytes of the request's own inputs that show in the event. Where lineage or being alone is the
    /// proof they are looked for later, and there may be none: what ran was hidden in the request, or came
    /// from elsewhere.
    pub(crate) evidence: Option<Vec<u8>>,
    /// Requests it could have been, the likeliest first; at most 32.
    pub(crate) candidates: Vec<Sequence>,
}

impl Attribution {
    /// One of `candidates`, and no proof which.
    pub(crate) fn doubt(candidates: Vec<Sequence>) -> Self {
        Self {
            proof: Proof::Candidates,
            sequence: None,
            evidence: None,
            candidates,
        }
    }

    /// Whether it may end a request.
    pub(crate) fn names_one(&self) -> bool {
        matches!(self.proof, Proof::Content | Proof::Lineage | Proof::Sole)
    }

    /// Joins what is known of two events of one lineage.
    ///
    /// One proof is enough. Two that name different requests are none: the thread's mark, which
    /// made one lineage of both events, is worth nothing then.
    pub(crate) fn join(&mut self, other: Self) {
        match (self.sequence, other.sequence) {
            (Some(one), Some(another)) if one != another => {
                *self = Self::doubt(vec![one, another]);
            }
            (Some(_), _) => {}
            (None, Some(_)) => *self = other,
            (None, None) => {
                for candidate in other.candidates {
                    if !self.candidates.contains(&candidate) {
                        self.candidates.push(candidate);
                    }
                }
            }
        }
        self.candidates.truncate(NAMED);
    }
}

/// What an event shows of a request's inputs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traces {
    /// Command lines and paths, of files too; any long stretch counts.
    pub(crate) text: Vec<u8>,
    /// `address:port` of a connection; it counts as a whole.
    pub(crate) target: Option<String>,
    /// Those that the same thread opened before. They speak for the request that the thread is marked
    /// with and for no other: where marks mean little, they were another's.
    pub(crate) earlier: Vec<String>,
}

/// Inputs of the last requests, to tell rare bytes from common ones.
#[derive(Debug, Default)]
pub(crate) struct Common(VecDeque<(Sequence, Vec<u8>)>);

impl Common {
    pub(crate) fn note(&mut self, sequence: Sequence, inputs: &[u8]) {
        if self.0.len() >= COMMON {
            self.0.pop_front();
        }
        self.0.push_back((sequence, inputs.to_vec()));
    }

    fn has(&self, stretch: &[u8], except: Sequence) -> bool {
        self.0
            .iter()
            .any(|(sequence, inputs)| *sequence != except && contains(inputs, stretch))
    }
}

/// A request that an event may belong to. There are tens of thousands of them, each in memory of its own:
/// what content proof asks for is taken together, in one pass over them.
struct Suspect<'a> {
    sequence: Sequence,
    inputs: &'a [u8],
    /// There may be, or may have been, more of them than can be looked into.
    hides_inputs: bool,
}

impl<'a> Suspect<'a> {
    fn new(sequence: Sequence, request: Option<&'a Request>, at: Moment) -> Self {
        Self {
            sequence,
            inputs: request.map_or(&[], Request::inputs),
            // One who did not come through Clew may be a health check: it would have to have sent the
            // same bytes.
            hides_inputs: sequence != Sequence::STRANGER
                && request.is_none_or(|it| it.hides_inputs(at)),
        }
    }
}

/// Who an event may be the work of.
struct Circle {
    /// The processes whose requests are in question.
    family: Vec<ProcessKey>,
    /// Of each the requests are known.
    is_whole: bool,
}

/// All that is known when an event comes.
pub(crate) struct Knowledge<'a> {
    pub(crate) requests: &'a Requests,
    pub(crate) workload: &'a Workload,
    pub(crate) common: &'a Common,
}

impl<'a> Knowledge<'a> {
    /// Names the request behind an event of `lineage` at `at`.
    ///
    /// Lineage and content allow the same; lineage is looked at first because it costs nothing,
    /// while content is compared with every request that could have done it.
    pub(crate) fn attribute(&self, lineage: &Lineage, at: Moment, traces: &Traces) -> Attribution {
        self.proven_by_lineage(lineage, at)
            .unwrap_or_else(|| self.search(lineage, at, traces))
    }

    /// Names it where the thread does.
    pub(crate) fn proven_by_lineage(&self, lineage: &Lineage, at: Moment) -> Option<Attribution> {
        let sequence = self.by_lineage(lineage, at)?;
        Some(Attribution {
            proof: Proof::Lineage,
            sequence: Some(sequence),
            evidence: None,
            candidates: Vec::new(),
        })
    }

    /// Names it by any other proof.
    pub(crate) fn search(&self, lineage: &Lineage, at: Moment, traces: &Traces) -> Attribution {
        let circle = self.circle(lineage, at);
        let mut candidates = self.candidates(lineage, at, &circle);
        let needle = Needle::new(&traces.text);
        let content = self.by_content(lineage, at, traces, &needle, &circle, &candidates);
        let (proof, sequence, evidence) = match content {
            Some((sequence, evidence)) => (Proof::Content, Some(sequence), Some(evidence)),
            None => match self.as_sole(lineage, at, &circle, &candidates) {
                Some(sequence) => (Proof::Sole, Some(sequence), None),
                None => (Proof::Candidates, None, None),
            },
        };
        if proof == Proof::Candidates {
            self.suspicious_first(&mut candidates);
        }
        candidates.truncate(NAMED);
        let candidates = candidates.into_iter().map(|it| it.sequence).collect();
        Attribution {
            proof,
            sequence,
            evidence,
            candidates,
        }
    }

    /// The bytes of a request's inputs that show in an event which was proven to be its own in another way.
    /// They prove no more who did it, but whether he meant it.
    pub(crate) fn evidence(
        &self,
        sequence: Sequence,
        lineage: &Lineage,
        traces: &Traces,
    ) -> Option<Vec<u8>> {
        let needle = Needle::new(&traces.text);
        let request = self.requests.get(sequence)?;
        let stretch = self.stretch(sequence, request.inputs(), lineage, traces, &needle);
        stretch.map(<[u8]>::to_vec)
    }

    /// Those in flight that an event may belong to.
    pub(crate) fn in_flight(&self, lineage: &Lineage, at: Moment) -> Vec<Sequence> {
        let family = self.workload.family(lineage.backend, at);
        let processes = family.iter().filter_map(|it| self.workload.process(*it));
        let read = processes.flat_map(|it| it.open(at, self.requests));
        let marked = lineage.recent.iter().copied().chain([lineage.sequence]);
        let marked = marked.filter(|it| self.requests.was_open(*it, at));
        let mut all: Vec<Sequence> = marked.chain(read).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// All that keeps lineage from being proven is a request that the thread has answered and the
    /// proxy has not reported as ended.
    pub(crate) fn awaits_end(&self, lineage: &Lineage, at: Moment) -> bool {
        let request = self.requests.get(lineage.sequence);
        request.is_some_and(|it| it.was_open(at))
            && self.held_by(lineage, at).is_some_and(|held| {
                let mut held = held.iter();
                held.any(|it| self.has_other(it, lineage.sequence))
            })
    }

    /// The threads that have to have been at the request, and when, that an event is its doing: the one that
    /// caused it, and those through which the request came to it. None where threads tell nothing.
    fn held_by(&self, lineage: &Lineage, at: Moment) -> Option<Vec<Held>> {
        let (process, tid) = (lineage.backend, lineage.tid);
        if lineage.strength != Strength::Reader || !self.workload.is_blocking(process, at) {
            return None;
        }
        let mut held = self.handed_through(lineage)?;
        held.push(Held { process, tid, at });
        Some(held)
    }

    fn handed_through(&self, lineage: &Lineage) -> Option<Vec<Held>> {
        let (process, tid) = (lineage.backend, lineage.tid);
        self.workload
            .handed_through(process, tid, lineage.sequence, self.requests)
    }

    /// A thread was at another request than `sequence`, too.
    fn has_other(&self, held: &Held, sequence: Sequence) -> bool {
        let process = self.workload.process(held.process);
        process.is_none_or(|it| it.thread_has_other(held.tid, sequence, held.at, self.requests))
    }

    /// The thread was at this request and at no other, so that what it did was most likely for this one.
    pub(crate) fn is_alone(&self, lineage: &Lineage, at: Moment) -> bool {
        let process = self.workload.process(lineage.backend);
        self.is_marked(lineage, at)
            && !process.is_some_and(|it| {
                it.thread_has_other(lineage.tid, lineage.sequence, at, self.requests)
            })
    }

    /// The thread has read a request that it may still be at.
    ///
    /// One that is over tells nothing: where others read for it, what a thread has read itself is old.
    /// But a server that blocks may go on with what a verdict has cut.
    fn is_marked(&self, lineage: &Lineage, at: Moment) -> bool {
        let marked = self.requests.get(lineage.sequence);
        lineage.strength == Strength::Reader
            && marked.is_some_and(|request| {
                request.was_open(at)
                    || request.condemned && self.workload.is_blocking(lineage.backend, at)
            })
            && self.handed_through(lineage).is_some()
    }

    /// Puts those first that the rules of the edge scored highest; the rest keeps its order.
    fn suspicious_first(&self, candidates: &mut [Suspect<'_>]) {
        let score = |it: &Suspect<'_>| {
            self.requests
                .told(it.sequence)
                .map_or(0, |it| it.edge.score)
        };
        candidates.sort_by_cached_key(|it| Reverse(score(it)));
    }

    fn circle(&self, lineage: &Lineage, at: Moment) -> Circle {
        let family = self.workload.family(lineage.backend, at);
        let mut members = family.iter();
        let is_whole = family.len() < FAMILY && members.all(|it| self.workload.is_whole(*it, at));
        Circle { family, is_whole }
    }

    /// The thread's own mark first, then what the process read last, then the rest.
    fn candidates(&self, lineage: &Lineage, at: Moment, circle: &Circle) -> Vec<Suspect<'a>> {
        let recent = |sequence: &&Sequence| self.requests.may_be_blamed(**sequence, at);
        let mut first = vec![lineage.sequence];
        for sequence in lineage.recent.iter().filter(recent) {
            if !first.contains(sequence) {
                first.push(*sequence);
            }
        }
        let known = first
            .iter()
            .map(|it| Suspect::new(*it, self.requests.get(*it), at));
        let mut all: Vec<Suspect<'a>> = known.collect();
        first.sort_unstable();
        let rest = self.requests.suspects(&circle.family, at);
        let rest = rest.filter(|(sequence, _)| first.binary_search(sequence).is_err());
        all.extend(rest.map(|(sequence, request)| Suspect::new(sequence, Some(request), at)));
        all
    }

    /// Exactly one candidate's inputs hold bytes of the event that no other's do.
    fn by_content(
        &self,
        lineage: &Lineage,
        at: Moment,
        traces: &Traces,
        needle: &Needle<'_>,
        circle: &Circle,
        candidates: &[Suspect<'_>],
    ) -> Option<(Sequence, Vec<u8>)> {
        if !self.knows_inputs(at, circle, candidates) {
            return None;
        }
        let (sequence, evidence) = self.content_match(lineage, traces, needle, candidates)?;
        if sequence != lineage.sequence && self.is_marked(lineage, at) {
            let blocking = self.workload.is_blocking(lineage.backend, at);
            if blocking || evidence.len() < AGAINST_THE_MARK_BYTES {
                return None;
            }
        }
        Some((sequence, evidence))
    }

    /// What any request that could have done it can have held is known, or the bytes might be
    /// those of one that is not.
    fn knows_inputs(&self, at: Moment, circle: &Circle, candidates: &[Suspect<'_>]) -> bool {
        let forgotten = &self.requests.forgotten;
        let mut family = circle.family.iter();
        circle.is_whole
            && at >= self.requests.inputs_lost_until
            && !family.any(|it| forgotten.may_be_open(*it, at))
            && !candidates.iter().any(|it| it.hides_inputs)
    }

    /// The longest stretch of an event that is in the inputs of a request, and is nothing common.
    fn stretch<'b>(
        &self,
        sequence: Sequence,
        inputs: &'b [u8],
        lineage: &Lineage,
        traces: &'b Traces,
        needle: &Needle<'_>,
    ) -> Option<&'b [u8]> {
        let earlier = traces.earlier.iter();
        let earlier = earlier.filter(|_| sequence == lineage.sequence);
        let mut targets = traces.target.iter().chain(earlier).map(|it| it.as_bytes());
        let target = targets.find(|it| contains_whole(inputs, it));
        target
            .or_else(|| needle.longest_in(inputs))
            .filter(|stretch| !is_installed_program(stretch))
            .filter(|stretch| !self.common.has(stretch, sequence))
    }

    fn content_match(
        &self,
        lineage: &Lineage,
        traces: &Traces,
        needle: &Needle<'_>,
        candidates: &[Suspect<'_>],
    ) -> Option<(Sequence, Vec<u8>)> {
        let mut found: Option<(Sequence, Vec<u8>)> = None;
        let mut lesser: Vec<Vec<u8>> = Vec::new();
        for (nth, it) in candidates.iter().take(SEARCHED_AT_MOST).enumerate() {
            if nth >= SEARCHED && found.is_some() {
                break;
            }
            let sequence = it.sequence;
            let stretch = self.stretch(sequence, it.inputs, lineage, traces, needle);
            let Some(stretch) = stretch.map(<[u8]>::to_vec) else {
                continue;
            };
            match &mut found {
                Some((_, best)) if stretch.len() <= best.len() => lesser.push(stretch),
                found => lesser.extend(found.replace((sequence, stretch)).map(|(_, it)| it)),
            }
        }
        // Another request with rare bytes of its own in the event is an honest doubt; one that
        // only shares a part of the longest stretch ("touch /tmp/m-" of "touch /tmp/m-2") is none.
        if let Some((_, best)) = &found
            && lesser.iter().any(|stretch| !contains(best, stretch))
        {
            return None;
        }
        let (sequence, evidence) = found?;
        let finder = Finder::new(&evidence);
        let mut others = candidates.iter().filter(|it| it.sequence != sequence);
        let shared = others.any(|it| finder.find(it.inputs).is_some());
        let unique = !shared && !self.requests.forgotten.may_hold(&evidence);
        (unique && self.requests.told(sequence).is_some()).then_some((sequence, evidence))
    }

    /// The thread read it, works on one request at a time, and was at it.
    fn by_lineage(&self, lineage: &Lineage, at: Moment) -> Option<Sequence> {
        let request = self.requests.get(lineage.sequence)?;
        let forgotten = &self.requests.forgotten;
        let is_at_it = |it: &Held| {
            !forgotten.may_be_open(it.process, it.at) && !self.has_other(it, lineage.sequence)
        };
        let proven = request.started.is_some()
            && request.was_open(at)
            && self.held_by(lineage, at)?.iter().all(is_at_it);
        proven.then_some(lineage.sequence)
    }

    /// Nothing else was there to do it.
    fn as_sole(
        &self,
        lineage: &Lineage,
        at: Moment,
        circle: &Circle,
        candidates: &[Suspect<'_>],
    ) -> Option<Sequence> {
        let forgotten = &self.requests.forgotten;
        let mut family = circle.family.iter();
        let alone = matches!(candidates, [only] if only.sequence == lineage.sequence)
            && circle.is_whole
            && !family.any(|it| forgotten.may_blame(*it, at))
            && self.requests.told(lineage.sequence).is_some();
        alone.then_some(lineage.sequence)
    }
}
