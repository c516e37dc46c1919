//! The state machine.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clew_protocol::incident::Loss;
use clew_protocol::kernel::{
    Access, Bound, Connect, Decision, Exec, FileAccess, KernelEvent, Lineage, LostClass,
};
use clew_protocol::request::{ProxyRecord, RequestEnded};
use clew_protocol::verdict::Action;
use clew_protocol::{IncidentId, Moment, Sequence};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cases::{Case, Event, Thread, Trail, Tree, target_of};
use crate::docket::{Docket, Place};
use crate::losses::Losses;
use crate::process::GRACE;
use crate::proof::{Attribution, Common, Knowledge, Traces};
use crate::provenance::Provenance;
use crate::requests::{MEMORY, Requests};
use crate::verdict::{ban, judge};
use crate::workload::Workload;

/// Most lineages whose steps are kept before anything is known to be wrong.
const TRAILS: usize = 4096;
/// One request in this many is kept to tell common bytes from rare ones.
const COMMON_SAMPLE: u64 = 8;
/// How long a stop waits for the cheapest proof before the others are tried.
const PATIENCE: Duration = Duration::from_millis(1);
/// Most stops that wait.
const WAITING: usize = 256;
/// Most writers that are searched for at once, which may take milliseconds each.
const NAMED_AT_ONCE: usize = 8;
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
    Banned {
        /// For how long: whoever has offended before is banned longer.
        span: Duration,
    },
    /// There is no ban: the source is not to be banned, or bans are only rehearsed.
    Spared,
}

/// Sums since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Kernel events.
    pub events: u64,
    /// Program starts among them.
    pub execs: u64,
    /// Outbound flows among them.
    pub connects: u64,
    /// Files opened among them.
    pub files: u64,
    /// Requests started.
    pub requests: u64,
    /// Requests, or their inputs, forgotten before their time.
    pub evicted: u64,
    /// Kernel records lost, all classes.
    pub lost: u64,
    /// Incidents opened.
    pub incidents: u64,
}

/// A step whose request is named by another proof than what was sent: whether it shows that is looked for
/// when the request has been ended, which is in more of a hurry than a ban.
struct Unweighed {
    case: IncidentId,
    lineage: Lineage,
    at: Moment,
    traces: Traces,
}

/// Joins requests and kernel events; see the crate's documentation.
pub struct Correlator {
    config: Config,
    requests: Requests,
    workload: Workload,
    common: Common,
    trails: HashMap<Thread, (Moment, Trail)>,
    trail_order: VecDeque<Thread>,
    docket: Docket,
    provenance: Provenance,
    /// Incidents, before it is known whose.
    waiting: VecDeque<Event>,
    unweighed: Vec<Unweighed>,
    losses: Losses,
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
            docket: Docket::default(),
            provenance: Provenance::default(),
            waiting: VecDeque::new(),
            unweighed: Vec::new(),
            losses: Losses::default(),
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
            Input::Acted { incident, deed, at } => {
                let case = self.docket.all_mut().find(|case| case.id == incident);
                if let Some(case) = case {
                    case.note(deed, at);
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

    /// A stop waits for something that comes within a few milliseconds: tick soon.
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

    /// Files of which it is remembered who wrote them, for tests of the bounds.
    pub fn written_files(&self) -> usize {
        self.provenance.len()
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
            ProxyRecord::Answered { sequence, at } => {
                self.requests.answer(sequence, at);
                self.settle(None, actions);
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
            for case in self.docket.all_mut().filter(of_it) {
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
            KernelEvent::Exec(exec) => {
                self.counters.execs += 1;
                self.exec(&exec, actions);
            }
            KernelEvent::Connect(connect) => {
                self.counters.connects += 1;
                self.connect(&connect, actions);
            }
            KernelEvent::File(access) => {
                self.counters.files += 1;
                self.file(&access, actions);
            }
            KernelEvent::Lost { class, total } => self.lose(class, total),
        }
    }

    fn bound(&mut self, bound: &Bound) {
        self.requests.bind(bound, self.now);
        self.workload.bind(bound, &self.requests);
    }

    fn lose(&mut self, class: LostClass, total: u64) {
        let new = self.losses.note(class, total, self.now);
        self.counters.lost = self.counters.lost.saturating_add(new);
        // An unreported read may be the one that would have proved us wrong. Nobody says when it
        // was: by the next tick at the latest.
        if class == LostClass::Bound {
            self.workload.lost(self.now.after(SWEEP));
        }
    }

    fn exec(&mut self, exec: &Exec, actions: &mut Vec<Action>) {
        let mut event = Event::of_exec(exec, self.config.redact_environment);
        if let Some(file) = exec.process.file {
            event.writes = self.provenance.writers(file, event.at);
        }
        self.event(event, exec.decision == Decision::Allowed, actions);
    }

    fn connect(&mut self, connect: &Connect, actions: &mut Vec<Action>) {
        let event = Event::of_connect(connect);
        self.event(event, connect.decision != Decision::Denied, actions);
    }

    /// Who wrote a file is remembered; who reads it is told by whom it was written.
    fn file(&mut self, access: &FileAccess, actions: &mut Vec<Action>) {
        let mut event = Event::of_file(access);
        if let Tree::Process(pid) = event.tree {
            event.tree = self.tree_of(&event.lineage, pid);
        }
        match access.access {
            Access::Read => event.writes = self.provenance.writers(access.file, access.at),
            Access::Write if access.decision.is_stop() => {}
            Access::Write => {
                let knowledge = Knowledge {
                    requests: &self.requests,
                    workload: &self.workload,
                    common: &self.common,
                };
                self.provenance.note(access, &knowledge);
            }
        }
        self.event(event, access.decision == Decision::Allowed, actions);
    }

    /// The tree of a process of which nothing but the id is known: of the program that it has become.
    fn tree_of(&self, lineage: &Lineage, pid: u32) -> Tree {
        let thread = Thread::of(lineage);
        let trail = self.trails.get(&thread).map(|(_, trail)| trail);
        let known = trail.and_then(|it| it.tree_of(pid));
        let known = known.or_else(|| self.docket.tree_of(thread, pid));
        known.unwrap_or(Tree::Process(pid))
    }

    /// One step of a lineage. A harmless one is kept in case the next is not.
    fn event(&mut self, event: Event, harmless: bool, actions: &mut Vec<Action>) {
        let thread = Thread::of(&event.lineage);
        let known = self.docket.of_tree(thread, event.tree);
        if harmless {
            let is_alone = self.knowledge().is_alone(&event.lineage, event.at);
            let known = known.or_else(|| self.docket.last_of(thread).filter(|_| is_alone));
            match known {
                Some(place) => self.append(place, event),
                None => self.trail(thread, event.at).add(event),
            }
        } else if let Some(place) = known.filter(|it| !self.is_open(*it, &event)) {
            self.append(place, event);
        } else if self.waiting.len() < WAITING
            && self.knowledge().awaits_end(&event.lineage, event.at)
        {
            self.wait(event, actions);
        } else {
            self.incident(event, actions);
        }
    }

    fn is_open(&self, place: Place, event: &Event) -> bool {
        let case = self.docket.get(place);
        case.is_some_and(|case| case.is_open_to(event.step.decision))
    }

    fn knowledge(&self) -> Knowledge<'_> {
        Knowledge {
            requests: &self.requests,
            workload: &self.workload,
            common: &self.common,
        }
    }

    /// Puts off the question whose an event is; no response that it may end goes on meanwhile.
    fn wait(&mut self, mut event: Event, actions: &mut Vec<Action>) {
        event.held = self.knowledge().in_flight(&event.lineage, event.at);
        let held = event.held.iter();
        actions.extend(held.map(|&sequence| Action::Hold { sequence }));
        self.waiting.push_back(event);
    }

    /// Goes on with what need not wait any longer.
    fn settle(&mut self, now: Option<Moment>, actions: &mut Vec<Action>) {
        let mut nth = 0;
        while let Some(event) = self.waiting.get(nth) {
            let past = |span| now.is_some_and(|now| now >= event.at.after(span));
            let is_over = past(GRACE) || !self.knowledge().awaits_end(&event.lineage, event.at);
            // What was sent may say sooner whose it is.
            let is_tried = !is_over && past(PATIENCE) && !event.is_in_doubt;
            if is_over || (is_tried && self.attribute(event).names_one()) {
                if let Some(mut event) = self.waiting.remove(nth) {
                    let held = std::mem::take(&mut event.held);
                    self.incident(event, actions);
                    let free = held.into_iter();
                    actions.extend(free.map(|sequence| Action::Release { sequence }));
                }
                continue;
            }
            if let Some(event) = self.waiting.get_mut(nth) {
                event.is_in_doubt |= is_tried;
            }
            nth += 1;
        }
    }

    /// Names who did it, and does what that allows: in a case that is known, or in a new one.
    fn incident(&mut self, event: Event, actions: &mut Vec<Action>) {
        let thread = Thread::of(&event.lineage);
        let same_tree = self.docket.of_tree(thread, event.tree);
        if let Some(place) = same_tree.filter(|it| !self.is_open(*it, &event)) {
            return self.append(place, event);
        }
        let (lineage, at, traces) = (event.lineage.clone(), event.at, self.traces(&event));
        let attribution = self.knowledge().attribute(&lineage, at, &traces);
        let is_unweighed = attribution.names_one() && attribution.evidence.is_none();
        let place = same_tree.or_else(|| self.case_for(&event, &attribution));
        let case = if let Some(case) = place.and_then(|it| self.docket.get_mut(it)) {
            case.add(event);
            if !case.condemned {
                case.attribution.join(attribution);
            }
            judge(case, at, &self.config, &mut self.requests, actions);
            case.id
        } else {
            let mut case = self.open(&event);
            let id = case.id;
            case.attribution = attribution;
            case.add(event);
            judge(&mut case, at, &self.config, &mut self.requests, actions);
            self.enter(thread, case, actions);
            id
        };
        if is_unweighed {
            self.unweighed.push(Unweighed {
                case,
                lineage,
                at,
                traces,
            });
        }
    }

    fn enter(&mut self, thread: Thread, case: Case, actions: &mut Vec<Action>) {
        for mut gone in self.docket.file(thread, case) {
            // What is due later is due now.
            if gone.due.is_some() {
                let degraded = self.losses.felt(self.now);
                let epoch = self.config.epoch_ns;
                name_writers(&gone, &self.knowledge(), self.now);
                actions.push(report(&mut gone, &self.requests, epoch, degraded));
            }
        }
    }

    /// Looks for what was sent in what has been attributed otherwise, and bans where that is found.
    fn weigh(&mut self, actions: &mut Vec<Action>) {
        for step in std::mem::take(&mut self.unweighed) {
            let knowledge = Knowledge {
                requests: &self.requests,
                workload: &self.workload,
                common: &self.common,
            };
            let mut cases = self.docket.all_mut();
            let Some(case) = cases.find(|case| case.id == step.case) else {
                continue;
            };
            let Some(sequence) = case.attribution.sequence else {
                continue;
            };
            if case.attribution.evidence.is_none() {
                let evidence = knowledge.evidence(sequence, &step.lineage, &step.traces);
                case.attribution.evidence = evidence;
                ban(case, step.at, &self.config, &self.requests, actions);
            }
        }
    }

    /// Whose the event is, by itself and, where the thread is at one request only, by what the thread
    /// did before.
    fn attribute(&self, event: &Event) -> Attribution {
        let traces = self.traces(event);
        self.knowledge()
            .attribute(&event.lineage, event.at, &traces)
    }

    fn traces(&self, event: &Event) -> Traces {
        let thread = Thread::of(&event.lineage);
        let before = match self.docket.last_of(thread) {
            Some(place) => self.docket.get(place).map(|case| &case.trail),
            None => self.trails.get(&thread).map(|(_, trail)| trail),
        };
        let knowledge = self.knowledge();
        let before = before.filter(|_| knowledge.is_alone(&event.lineage, event.at));
        Traces {
            text: event.text.clone(),
            target: target_of(&event.step),
            earlier: before.map(Trail::targets).unwrap_or_default(),
        }
    }

    /// The case of the same request; or, where the thread is at one request only, that of the same
    /// thread in which nobody is named.
    fn case_for(&self, event: &Event, attribution: &Attribution) -> Option<Place> {
        let of_request = attribution.sequence.and_then(|it| self.docket.naming(it));
        let is_alone = self.knowledge().is_alone(&event.lineage, event.at);
        let thread = Thread::of(&event.lineage);
        of_request.or_else(|| self.docket.in_doubt(thread).filter(|_| is_alone))
    }

    fn open(&mut self, event: &Event) -> Case {
        self.counters.incidents += 1;
        let trail = self.trails.remove(&Thread::of(&event.lineage));
        let mut trail = trail.map(|(_, trail)| trail).unwrap_or_default();
        if !self.knowledge().is_alone(&event.lineage, event.at) {
            trail.keep(event.tree);
        }
        Case::open((self.config.next_id)(), trail, event.at)
    }

    /// One more step of a case, whoever it is of.
    fn append(&mut self, place: Place, event: Event) {
        if let Some(case) = self.docket.get_mut(place) {
            case.add(event);
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

    fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.settle(Some(now), actions);
        self.weigh(actions);
        let knowledge = Knowledge {
            requests: &self.requests,
            workload: &self.workload,
            common: &self.common,
        };
        self.provenance.settle(&knowledge, now);
        let epoch = self.config.epoch_ns;
        let is_due = |case: &&mut Case| case.due.is_some_and(|due| due <= now);
        for case in self.docket.all_mut().filter(is_due) {
            let degraded = self.losses.felt(now);
            name_writers(case, &knowledge, now);
            actions.push(report(case, &self.requests, epoch, degraded));
        }
        self.provenance.search(&knowledge);
        // A few at each tick: a second's worth at once would keep a stop waiting.
        self.requests.expire(now);
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Moment) {
        self.requests.forgotten.expire(now);
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
        self.docket.sweep(now);
    }
}

/// The latest time that an input names.
fn time_of(input: &Input) -> Moment {
    match input {
        Input::Proxy(ProxyRecord::Started(started)) => started.at,
        Input::Proxy(ProxyRecord::Input { .. }) => Moment(0),
        Input::Proxy(ProxyRecord::Answered { at, .. }) => *at,
        Input::Proxy(ProxyRecord::Ended(ended)) => ended.at,
        Input::Proxy(ProxyRecord::InFlight(flights)) => flights.at,
        Input::Kernel(KernelEvent::Bound(bound)) => bound.at,
        Input::Kernel(KernelEvent::Exec(exec)) => exec.at,
        Input::Kernel(KernelEvent::Connect(connect)) => connect.at,
        Input::Kernel(KernelEvent::File(access)) => access.at,
        Input::Kernel(KernelEvent::Lost { .. }) => Moment(0),
        Input::Acted { at, .. } | Input::Tick(at) => *at,
    }
}

/// Names whoever has written what the last steps of a case ran or read, where that is still open.
fn name_writers(case: &Case, knowledge: &Knowledge<'_>, now: Moment) {
    let unnamed = case.writes().filter(|write| !write.is_named());
    for write in unnamed.take(NAMED_AT_ONCE) {
        write.name(knowledge, now);
    }
}

/// The record of a case as of now.
fn report(case: &mut Case, requests: &Requests, epoch_ns: i128, degraded: Vec<Loss>) -> Action {
    let clock = |at| timestamp(epoch_ns, at);
    Action::Report(Box::new(case.record(requests, clock, degraded)))
}

/// RFC 3339 in UTC; empty for times outside year 1 to 9999.
fn timestamp(epoch_ns: i128, at: Moment) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(epoch_ns + i128::from(at.0))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
