//! The state machine.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clew_protocol::incident::{BanRecord, Step};
use clew_protocol::kernel::{Bound, Connect, Decision, Exec, KernelEvent, Lineage, LostClass};
use clew_protocol::request::{ProxyRecord, RequestEnded};
use clew_protocol::verdict::Action;
use clew_protocol::{IncidentId, Moment, Sequence};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cases::{Case, END_WAIT, QUIET, Thread, Trail, connect_step, exec_step, is_stop};
use crate::process::GRACE;
use crate::proof::{Common, Knowledge, Traces};
use crate::requests::{MEMORY, Requests, Unheard};
use crate::workload::Workload;

/// Most lineages whose steps are kept before anything is known to be wrong.
const TRAILS: usize = 4096;
/// Most incidents that can still grow.
const CASES: usize = 4096;
/// One request in this many is kept to tell common bytes from rare ones.
const COMMON_SAMPLE: u64 = 8;
/// Most stops that wait.
const WAITING: usize = 256;
/// How often old things are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// What the correlator is told at start.
pub struct Config {
    /// Ban the source of an attributed attack.
    pub ban: bool,
    /// For how long.
    pub ban_span: Duration,
    /// Record environment variables without their values.
    pub redact_environment: bool,
    /// Wall-clock time at `Moment(0)`, nanoseconds since the Unix epoch.
    pub epoch_ns: i128,
    /// Where names of incidents come from.
    pub next_id: Box<dyn FnMut() -> IncidentId + Send>,
}

/// What happens to the correlator.
#[derive(Debug)]
pub enum Input {
    /// From the proxy; before any kernel event that the record's request caused.
    Proxy(ProxyRecord),
    /// From the sensor, in the order that [`KernelEvent`] promises.
    Kernel(KernelEvent),
    /// Something asked for has been done.
    Acted {
        /// For which incident.
        incident: IncidentId,
        /// What.
        deed: Deed,
        /// When.
        at: Moment,
    },
    /// Time has passed.
    Tick(Moment),
}

/// What was asked for and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// The ban is in force.
    Banned,
}

/// Sums since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Kernel events.
    pub events: u64,
    /// Requests started.
    pub requests: u64,
    /// Requests, or their inputs, forgotten before their time.
    pub evicted: u64,
    /// Kernel records lost, all classes.
    pub lost: u64,
    /// Incidents opened.
    pub incidents: u64,
}

/// A step that is an incident, before it is known whose.
struct Waiting {
    until: Moment,
    lineage: Lineage,
    at: Moment,
    step: Step,
    text: Vec<u8>,
}

/// Joins requests and kernel events; see the crate's documentation.
pub struct Correlator {
    config: Config,
    requests: Requests,
    workload: Workload,
    common: Common,
    trails: HashMap<Thread, (Moment, Trail)>,
    trail_order: VecDeque<Thread>,
    cases: HashMap<Thread, Case>,
    case_order: VecDeque<Thread>,
    waiting: VecDeque<Waiting>,
    lost: HashMap<LostClass, u64>,
    counters: Counters,
    /// The latest moment heard of.
    now: Moment,
    swept: Moment,
}

impl Correlator {
    /// An empty one.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            requests: Requests::default(),
            workload: Workload::default(),
            common: Common::default(),
            trails: HashMap::new(),
            trail_order: VecDeque::new(),
            cases: HashMap::new(),
            case_order: VecDeque::new(),
            waiting: VecDeque::new(),
            lost: HashMap::new(),
            counters: Counters::default(),
            now: Moment(0),
            swept: Moment(0),
        }
    }

    /// Takes one input; what is to be done is appended to `actions`, in order.
    pub fn handle(&mut self, input: Input, actions: &mut Vec<Action>) {
        self.now = self.now.max(time_of(&input));
        match input {
            Input::Proxy(record) => self.proxy(record, actions),
            Input::Kernel(event) => self.kernel(event, actions),
            Input::Acted {
                incident,
                deed: Deed::Banned,
                at,
            } => {
                let case = self.cases.values_mut().find(|case| case.id == incident);
                if let Some(case) = case {
                    case.banned_at.get_or_insert(at);
                }
            }
            Input::Tick(now) => self.tick(now, actions),
        }
    }

    /// Sums since start.
    pub fn counters(&self) -> Counters {
        Counters {
            evicted: self.requests.evicted,
            ..self.counters
        }
    }

    /// A stop waits for something that comes within a millisecond: tick soon.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The service a request went to, while the request is remembered.
    pub fn service_of(&self, sequence: Sequence) -> Option<&str> {
        let told = self.requests.told(sequence)?;
        Some(told.service.as_ref())
    }

    /// Requests remembered, for tests of the bounds.
    pub fn remembered(&self) -> usize {
        self.requests.len()
    }

    /// Bytes of inputs remembered, for tests of the bounds.
    pub fn remembered_bytes(&self) -> usize {
        self.requests.input_bytes()
    }

    fn proxy(&mut self, record: ProxyRecord, actions: &mut Vec<Action>) {
        match record {
            ProxyRecord::Started(started) => {
                self.counters.requests += 1;
                if self.counters.requests.is_multiple_of(COMMON_SAMPLE) {
                    self.common.note(started.sequence, &started.inputs);
                }
                self.requests.start(started, self.now);
            }
            ProxyRecord::Input { sequence, bytes } => {
                self.requests.add_input(sequence, &bytes, self.now);
            }
            ProxyRecord::Ended(ended) => {
                self.ended(ended);
                self.settle(None, actions);
            }
            ProxyRecord::InFlight(flights) => {
                self.requests.end_others(&flights);
                self.settle(None, actions);
            }
        }
    }

    fn ended(&mut self, ended: RequestEnded) {
        if let Some(cancelled_at) = ended.cancelled_at {
            let of_it = |case: &&mut Case| case.attribution.sequence == Some(ended.sequence);
            for case in self.cases.values_mut().filter(of_it) {
                case.cancelled_at.get_or_insert(cancelled_at);
                case.touch(ended.at);
            }
        }
        self.requests.end(ended, self.now);
    }

    fn kernel(&mut self, event: KernelEvent, actions: &mut Vec<Action>) {
        self.counters.events += 1;
        match event {
            KernelEvent::Bound(bound) => self.bound(&bound),
            KernelEvent::Interleaved { sequence, .. } => self.interleaved(sequence),
            KernelEvent::Exec(exec) => self.exec(&exec, actions),
            KernelEvent::Connect(connect) => self.connect(&connect, actions),
            KernelEvent::Lost { class, total } => self.lose(class, total),
        }
    }

    fn bound(&mut self, bound: &Bound) {
        let interleaved = self.requests.bind(bound, self.now);
        self.workload.bind(bound, &self.requests);
        if interleaved {
            self.workload.interleaved(bound.executable);
        }
    }

    fn interleaved(&mut self, sequence: Sequence) {
        match self.requests.interleave(sequence) {
            Ok(Some(reading)) => self.workload.interleaved(reading.executable),
            // It will be known who read it.
            Ok(None) => {}
            // Somebody is no blocking server, and it cannot be known who.
            Err(Unheard) => self.workload.lost(self.now),
        }
    }

    fn lose(&mut self, class: LostClass, total: u64) {
        let before = self.lost.insert(class, total).unwrap_or(0);
        let new = total.saturating_sub(before);
        self.counters.lost = self.counters.lost.saturating_add(new);
        // An unreported read may be the one that would have proved us wrong. Nobody says when it
        // was: by the next tick at the latest.
        if class == LostClass::Bound {
            self.workload.lost(self.now.after(SWEEP));
        }
    }

    fn exec(&mut self, exec: &Exec, actions: &mut Vec<Action>) {
        let step = exec_step(exec, self.config.redact_environment);
        let mut text = exec.process.arguments.join(&0);
        text.push(0);
        text.extend_from_slice(&exec.process.filename);
        let harmless = exec.decision == Decision::Allowed;
        self.step(&exec.lineage, exec.at, step, &text, harmless, actions);
    }

    fn connect(&mut self, connect: &Connect, actions: &mut Vec<Action>) {
        let harmless = connect.decision != Decision::Denied;
        self.step(
            &connect.lineage,
            connect.at,
            connect_step(connect),
            &[],
            harmless,
            actions,
        );
    }

    /// One step of a lineage. A harmless one is kept in case the next is not.
    fn step(
        &mut self,
        lineage: &Lineage,
        at: Moment,
        step: Step,
        text: &[u8],
        harmless: bool,
        actions: &mut Vec<Action>,
    ) {
        let thread = Thread::of(lineage);
        match self.cases.get(&thread) {
            Some(case) if harmless || !case.is_open_to(step.decision) => {
                return self.append(thread, lineage, at, step, actions);
            }
            None if harmless => return self.trail(thread, at).add(at, step),
            _ => {}
        }
        let waiting = Waiting {
            until: at.after(GRACE),
            lineage: lineage.clone(),
            at,
            step,
            text: text.to_vec(),
        };
        if self.waiting.len() < WAITING && self.knowledge().awaits_end(lineage, at) {
            self.waiting.push_back(waiting);
        } else {
            self.incident(waiting, actions);
        }
    }

    fn knowledge(&self) -> Knowledge<'_> {
        Knowledge {
            requests: &self.requests,
            workload: &self.workload,
            common: &self.common,
        }
    }

    /// Goes on with what need not wait any longer, in order.
    fn settle(&mut self, now: Option<Moment>, actions: &mut Vec<Action>) {
        while let Some(first) = self.waiting.front() {
            let overdue = now.is_some_and(|now| now >= first.until);
            if !overdue && self.knowledge().awaits_end(&first.lineage, first.at) {
                break;
            }
            if let Some(first) = self.waiting.pop_front() {
                self.incident(first, actions);
            }
        }
    }

    /// Names who did it, and does what that allows: in a new case, or in one of the same lineage
    /// that had no proof to act upon.
    fn incident(&mut self, incident: Waiting, actions: &mut Vec<Action>) {
        let thread = Thread::of(&incident.lineage);
        let known = self.cases.get(&thread);
        if known.is_some_and(|case| !case.is_open_to(incident.step.decision)) {
            let Waiting {
                lineage, at, step, ..
            } = incident;
            return self.append(thread, &lineage, at, step, actions);
        }
        let known = self.cases.remove(&thread);
        let is_new = known.is_none();
        let mut case = known.unwrap_or_else(|| self.open(thread, incident.at));
        let lineage = self.decide(&mut case, incident, actions);
        let condemned = case.attribution.sequence.filter(|_| case.condemned);
        release(&lineage, condemned, actions);
        if is_new {
            self.file(thread, case, actions);
        } else {
            self.cases.insert(thread, case);
        }
    }

    fn open(&mut self, thread: Thread, at: Moment) -> Case {
        self.counters.incidents += 1;
        let trail = self.trails.remove(&thread);
        let trail = trail.map(|(_, trail)| trail).unwrap_or_default();
        Case::open((self.config.next_id)(), trail, at)
    }

    /// Adds the step, attributes it, and judges; gives the lineage back.
    fn decide(&mut self, case: &mut Case, incident: Waiting, actions: &mut Vec<Action>) -> Lineage {
        let Waiting {
            lineage,
            at,
            step,
            text,
            ..
        } = incident;
        case.stopped |= is_stop(step.decision);
        case.trail.add(at, step);
        case.touch(at.after(QUIET));
        let traces = Traces {
            text,
            targets: case.trail.traces.targets.clone(),
        };
        let attribution = self.knowledge().attribute(&lineage, at, &traces);
        case.attribution.join(attribution);
        if case.stopped {
            self.judge(case, at, actions);
        }
        lineage
    }

    /// One more step of an incident that is known.
    fn append(
        &mut self,
        thread: Thread,
        lineage: &Lineage,
        at: Moment,
        step: Step,
        actions: &mut Vec<Action>,
    ) {
        let Some(case) = self.cases.get_mut(&thread) else {
            return;
        };
        case.stopped |= is_stop(step.decision);
        case.trail.add(at, step);
        case.touch(at.after(QUIET));
        // A response held again belongs to a request already judged, or to others.
        let condemned = case.attribution.sequence.filter(|_| case.condemned);
        release(lineage, condemned, actions);
    }

    /// Cancels the request that the attribution names, and bans its source where it may.
    fn judge(&mut self, case: &mut Case, at: Moment, actions: &mut Vec<Action>) {
        let Some(sequence) = case.attribution.sequence.filter(|_| case.names_one()) else {
            return;
        };
        case.condemned = true;
        self.requests.condemn(sequence);
        case.due = Some(at.after(END_WAIT));
        actions.push(Action::Condemn {
            sequence,
            incident: case.id,
        });
        let Some(told) = self.requests.told(sequence) else {
            return;
        };
        let client = &told.client;
        if self.config.ban && !client.cross_site && !client.shared {
            let span = self.config.ban_span;
            case.ban = Some(BanRecord {
                address: client.address,
                seconds: span.as_secs(),
            });
            actions.push(Action::Ban {
                address: client.address,
                span,
                incident: case.id,
            });
        }
    }

    fn trail(&mut self, thread: Thread, at: Moment) -> &mut Trail {
        if !self.trails.contains_key(&thread) {
            while self.trail_order.len() >= TRAILS {
                if let Some(oldest) = self.trail_order.pop_front() {
                    self.trails.remove(&oldest);
                }
            }
            self.trail_order.push_back(thread);
        }
        &mut self
            .trails
            .entry(thread)
            .or_insert_with(|| (at, Trail::default()))
            .1
    }

    fn file(&mut self, thread: Thread, case: Case, actions: &mut Vec<Action>) {
        while self.case_order.len() >= CASES {
            let oldest = self.case_order.pop_front();
            let Some(mut oldest) = oldest.and_then(|it| self.cases.remove(&it)) else {
                continue;
            };
            // What is due later is due now.
            if oldest.due.is_some() {
                actions.push(report(&mut oldest, &self.requests, self.config.epoch_ns));
            }
        }
        self.case_order.push_back(thread);
        self.cases.insert(thread, case);
    }

    fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.settle(Some(now), actions);
        let epoch = self.config.epoch_ns;
        for case in self
            .cases
            .values_mut()
            .filter(|case| case.due.is_some_and(|due| due <= now))
        {
            actions.push(report(case, &self.requests, epoch));
        }
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Moment) {
        self.requests.expire(now);
        self.workload.expire(now, &self.requests);
        while let Some(thread) = self.trail_order.front() {
            match self.trails.get(thread) {
                Some((at, _)) if now.since(*at) < MEMORY => break,
                _ => {
                    self.trails.remove(thread);
                    self.trail_order.pop_front();
                }
            }
        }
        while let Some(thread) = self.case_order.front() {
            match self.cases.get(thread) {
                Some(case) if case.due.is_some() || now.since(case.decided_at) < MEMORY => break,
                _ => {
                    self.cases.remove(thread);
                    self.case_order.pop_front();
                }
            }
        }
    }
}

/// The latest time that an input names.
fn time_of(input: &Input) -> Moment {
    match input {
        Input::Proxy(ProxyRecord::Started(started)) => started.at,
        Input::Proxy(ProxyRecord::Input { .. }) => Moment(0),
        Input::Proxy(ProxyRecord::Ended(ended)) => ended.at,
        Input::Proxy(ProxyRecord::InFlight(flights)) => flights.at,
        Input::Kernel(KernelEvent::Bound(bound)) => bound.at,
        Input::Kernel(KernelEvent::Interleaved { at, .. }) => *at,
        Input::Kernel(KernelEvent::Exec(exec)) => exec.at,
        Input::Kernel(KernelEvent::Connect(connect)) => connect.at,
        Input::Kernel(KernelEvent::Lost { .. }) => Moment(0),
        Input::Acted { at, .. } | Input::Tick(at) => *at,
    }
}

/// The record of a case as of now.
fn report(case: &mut Case, requests: &Requests, epoch_ns: i128) -> Action {
    let at = timestamp(epoch_ns, case.decided_at);
    Action::Report(Box::new(case.record(requests, at)))
}

/// Lets everything go that was held for `lineage`, but what is condemned.
fn release(lineage: &Lineage, condemned: Option<Sequence>, actions: &mut Vec<Action>) {
    let free = lineage.held.iter().filter(|held| Some(**held) != condemned);
    actions.extend(free.map(|&sequence| Action::Release { sequence }));
}

/// RFC 3339 in UTC; empty for times outside year 1 to 9999.
fn timestamp(epoch_ns: i128, at: Moment) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(epoch_ns + i128::from(at.0))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
