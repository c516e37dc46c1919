//! Requests that are in flight, and those that lately were.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use clew_protocol::kernel::{Bound, ProcessKey};
use clew_protocol::request::{INPUT_LIMIT_BYTES, InFlight, RequestEnded, RequestStarted};
use clew_protocol::{Moment, Sequence};

use crate::forgotten::Forgotten;

/// How long an ended request can still be blamed.
pub(crate) const MEMORY: Duration = Duration::from_secs(60);
/// Most requests remembered, in flight and ended together: 2,200 a second for a minute.
const CAPACITY: usize = 131_072;
/// Most input bytes remembered; those of the requests that ended first go first.
const INPUT_CAPACITY_BYTES: usize = 128 << 20;

/// One upstream attempt.
#[derive(Debug)]
pub(crate) struct Request {
    /// What the proxy said of it; none while only its reading or its end has been heard of.
    pub(crate) started: Option<Box<RequestStarted>>,
    pub(crate) inputs: Inputs,
    /// When the proxy was done with it, or at the latest was.
    pub(crate) ended: Option<Moment>,
    /// How it ended, where the proxy's record of that has arrived.
    pub(crate) outcome: Option<RequestEnded>,
    /// A verdict has cut it.
    pub(crate) condemned: bool,
    /// Who read it, and when.
    pub(crate) readers: Readers,
}

/// The decoded inputs of a request.
#[derive(Debug)]
pub(crate) enum Inputs {
    /// All that the proxy keeps of them.
    Whole(Vec<u8>),
    /// They had to be forgotten then; what they cannot have held is in the sketch of that time.
    Sketched(Moment),
    /// Some of them never arrived.
    Unknown,
}

/// The processes that have read a request: mostly one, and more where it went on from there. What each
/// does may be its doing.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    first: Option<Reader>,
    /// No more than there are processes.
    further: Vec<Reader>,
    latest: Moment,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    process: ProcessKey,
    since: Moment,
}

impl Readers {
    fn note(&mut self, process: ProcessKey, at: Moment) {
        self.latest = self.latest.max(at);
        if self.since(process).is_some() {
            return;
        }
        let reader = Reader { process, since: at };
        if self.first.is_none() {
            self.first = Some(reader);
        } else {
            self.further.push(reader);
        }
    }

    fn processes(&self) -> impl Iterator<Item = ProcessKey> {
        self.all().map(|it| it.process)
    }

    /// The process with this id that has read it.
    pub(crate) fn with_id(&self, tgid: u32) -> Option<ProcessKey> {
        self.processes().find(|it| it.tgid == tgid)
    }

    /// Since when a process has been at it.
    pub(crate) fn since(&self, process: ProcessKey) -> Option<Moment> {
        let mut all = self.all();
        all.find(|it| it.process == process).map(|it| it.since)
    }

    fn all(&self) -> impl Iterator<Item = &Reader> {
        self.first.iter().chain(&self.further)
    }
}

impl Request {
    fn unheard() -> Self {
        Self {
            started: None,
            inputs: Inputs::Unknown,
            ended: None,
            outcome: None,
            condemned: false,
            readers: Readers::default(),
        }
    }

    /// Open at `at`, as far as is known.
    pub(crate) fn was_open(&self, at: Moment) -> bool {
        self.ended.is_none_or(|ended| ended > at)
    }

    /// Can be blamed for something that happened at `at`.
    pub(crate) fn is_recent(&self, at: Moment) -> bool {
        self.last().is_none_or(|last| at.since(last) < MEMORY)
    }

    /// Whether its inputs might hold something at `at` that can no longer be told.
    pub(crate) fn hides_inputs(&self, at: Moment) -> bool {
        match self.inputs {
            Inputs::Whole(_) => false,
            // The sketch goes when what has ended by then is past blame; this one was open.
            Inputs::Sketched(then) => at.since(then) >= MEMORY,
            Inputs::Unknown => true,
        }
    }

    /// Inputs to look into; none where all that is left is a sketch.
    pub(crate) fn inputs(&self) -> &[u8] {
        match &self.inputs {
            Inputs::Whole(bytes) => bytes,
            _ => &[],
        }
    }

    /// What it can be blamed for begins before this; none while it is in flight.
    ///
    /// A backend may read what the proxy has long given up, and works for it from then on.
    fn last(&self) -> Option<Moment> {
        self.ended.map(|ended| ended.max(self.readers.latest))
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// By sequence, so that the oldest in flight is found at once.
    known: BTreeMap<Sequence, Request>,
    /// In order of their end.
    ended: VecDeque<(Moment, Sequence)>,
    /// So many at the front of `ended` have no inputs any more.
    ended_bare: usize,
    /// Those in flight below this have no inputs any more.
    open_bare: Sequence,
    input_bytes: usize,
    /// The highest sequence that was known and is forgotten.
    highest_forgotten: Sequence,
    /// Inputs of requests that can be blamed have got lost until then.
    pub(crate) inputs_lost_until: Moment,
    /// What is left of those that had to go before their time.
    pub(crate) forgotten: Forgotten,
    /// Requests or their inputs forgotten before their time.
    pub(crate) evicted: u64,
}

impl Requests {
    pub(crate) fn start(&mut self, mut started: Box<RequestStarted>, now: Moment) {
        let inputs = std::mem::take(&mut started.inputs).into_vec();
        let request = self.entry(started.sequence, now);
        if request.started.is_some() {
            return;
        }
        request.started = Some(started);
        let bytes = inputs.len();
        request.inputs = Inputs::Whole(inputs);
        self.input_bytes += bytes;
        self.make_input_room(now);
    }

    pub(crate) fn add_input(&mut self, sequence: Sequence, bytes: &[u8], now: Moment) {
        let Some(request) = self.known.get_mut(&sequence) else {
            return;
        };
        let Inputs::Whole(inputs) = &mut request.inputs else {
            // A sketch of pieces would miss what lies across two of them.
            request.inputs = Inputs::Unknown;
            return;
        };
        let room = INPUT_LIMIT_BYTES.saturating_sub(inputs.len());
        let bytes = &bytes[..bytes.len().min(room)];
        inputs.extend_from_slice(bytes);
        self.input_bytes += bytes.len();
        self.make_input_room(now);
    }

    pub(crate) fn end(&mut self, ended: RequestEnded, now: Moment) {
        let (at, sequence) = (ended.at, ended.sequence);
        // Also where the start was lost: the reading may come after this, and must not look as
        // if it were never to end.
        let request = self.entry(sequence, now);
        if request.outcome.is_some() {
            return;
        }
        request.outcome = Some(ended);
        let assumed = request.ended;
        request.ended = Some(assumed.map_or(at, |assumed| assumed.min(at)));
        if assumed.is_none() {
            self.ended.push_back((at, sequence));
        }
    }

    /// The backend is done with it, whatever becomes of its response.
    pub(crate) fn answer(&mut self, sequence: Sequence, at: Moment) {
        if let Some(request) = self.known.get_mut(&sequence)
            && request.ended.is_none()
        {
            request.ended = Some(at);
            self.ended.push_back((at, sequence));
        }
    }

    /// Ends what the proxy no longer has in flight, its own record of that being lost.
    pub(crate) fn end_others(&mut self, flights: &InFlight) {
        let open: HashSet<Sequence> = flights.open.iter().copied().collect();
        for (&sequence, request) in self.known.range_mut(..flights.below) {
            if request.ended.is_none() && !open.contains(&sequence) {
                request.ended = Some(flights.at);
                self.ended.push_back((flights.at, sequence));
            }
        }
        if flights.inputs_lost {
            self.lose_inputs(flights.at);
        }
    }

    /// Takes note of who read a request.
    pub(crate) fn bind(&mut self, bound: &Bound, now: Moment) {
        // One that was never heard of is a suspect nevertheless.
        let request = self.entry(bound.sequence, now);
        request.readers.note(bound.process, bound.at);
    }

    pub(crate) fn condemn(&mut self, sequence: Sequence) {
        if let Some(request) = self.known.get_mut(&sequence) {
            request.condemned = true;
        }
    }

    pub(crate) fn get(&self, sequence: Sequence) -> Option<&Request> {
        self.known.get(&sequence)
    }

    /// What the proxy said of a request.
    pub(crate) fn told(&self, sequence: Sequence) -> Option<&RequestStarted> {
        self.known.get(&sequence)?.started.as_deref()
    }

    /// Requests that one of `processes` has read and that can be blamed for something at `at`, newest
    /// first.
    pub(crate) fn suspects(
        &self,
        processes: &[ProcessKey],
        at: Moment,
    ) -> impl Iterator<Item = (Sequence, &Request)> {
        let theirs = move |request: &Request| {
            let mut since = processes.iter().map(|it| request.readers.since(*it));
            since.any(|since| since.is_some_and(|since| since <= at))
        };
        let all = self.known.iter().rev();
        all.filter(move |(_, request)| theirs(request) && request.is_recent(at))
            .map(|(sequence, request)| (*sequence, request))
    }

    /// Was in flight at `at`, as far as is known.
    pub(crate) fn was_open(&self, sequence: Sequence, at: Moment) -> bool {
        self.get(sequence).is_some_and(|it| it.was_open(at))
    }

    /// Whether a request that the kernel says a process has read lately can be blamed.
    ///
    /// The kernel does not tell how lately. All that were read are known until they are past
    /// blame, so an unknown one is past it, unless it is too new for that.
    pub(crate) fn may_be_blamed(&self, sequence: Sequence, at: Moment) -> bool {
        match self.known.get(&sequence) {
            Some(request) => request.is_recent(at),
            None => sequence > self.highest_forgotten,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn input_bytes(&self) -> usize {
        self.input_bytes
    }

    /// Forgets what ended long ago.
    pub(crate) fn expire(&mut self, now: Moment) {
        while let Some(&(at, sequence)) = self.ended.front()
            && now.since(at) >= MEMORY
        {
            self.pop_ended();
            let last = self.known.get(&sequence).and_then(Request::last);
            match last {
                Some(last) if now.since(last) < MEMORY => self.ended.push_back((last, sequence)),
                _ => drop(self.remove(sequence)),
            }
        }
    }

    fn entry(&mut self, sequence: Sequence, now: Moment) -> &mut Request {
        if self.known.len() >= CAPACITY && !self.known.contains_key(&sequence) {
            self.evict(now);
        }
        self.known.entry(sequence).or_insert_with(Request::unheard)
    }

    fn evict(&mut self, now: Moment) {
        self.evicted += 1;
        if let Some(sequence) = self.pop_ended() {
            self.strip(sequence, now);
            if let Some(request) = self.remove(sequence)
                && let Some(last) = request.last()
            {
                for process in request.readers.processes() {
                    self.forgotten.note_ended(process, last.after(MEMORY));
                }
            }
        } else if let Some((&sequence, _)) = self.known.first_key_value() {
            // All are in flight: the oldest has the smallest sequence.
            self.strip(sequence, now);
            let readers = self.remove(sequence).map(|request| request.readers);
            for process in readers.iter().flat_map(Readers::processes) {
                self.forgotten.note_open(process, now);
            }
        }
    }

    fn make_input_room(&mut self, now: Moment) {
        while self.input_bytes > INPUT_CAPACITY_BYTES
            && let Some(sequence) = self.next_to_strip()
        {
            let before = self.input_bytes;
            self.strip(sequence, now);
            self.evicted += u64::from(self.input_bytes < before);
        }
    }

    /// The first that ended, or else the oldest in flight.
    fn next_to_strip(&mut self) -> Option<Sequence> {
        if let Some(&(_, sequence)) = self.ended.get(self.ended_bare) {
            self.ended_bare += 1;
            return Some(sequence);
        }
        let has_inputs = |(_, request): &(&Sequence, &Request)| !request.inputs().is_empty();
        let mut newer = self.known.range(self.open_bare..);
        // Sequences come nearly in order: where none is left, an older one came late.
        let found = newer
            .find(has_inputs)
            .or_else(|| self.known.iter().find(has_inputs));
        let sequence = found.map(|(sequence, _)| *sequence)?;
        self.open_bare = sequence;
        Some(sequence)
    }

    /// Forgets the inputs of a request but for a sketch.
    fn strip(&mut self, sequence: Sequence, now: Moment) {
        let Some(request) = self.known.get_mut(&sequence) else {
            return;
        };
        if let Inputs::Whole(inputs) = &request.inputs {
            self.input_bytes -= inputs.len();
            self.forgotten.sketch(inputs, now);
            request.inputs = Inputs::Sketched(now);
        }
    }

    /// Some input has got lost, of any request that is known.
    fn lose_inputs(&mut self, at: Moment) {
        self.inputs_lost_until = self.inputs_lost_until.max(at.after(MEMORY));
        for request in self.known.values_mut().filter(|it| it.ended.is_none()) {
            self.input_bytes -= request.inputs().len();
            request.inputs = Inputs::Unknown;
        }
    }

    fn pop_ended(&mut self) -> Option<Sequence> {
        let (_, sequence) = self.ended.pop_front()?;
        self.ended_bare = self.ended_bare.saturating_sub(1);
        Some(sequence)
    }

    fn remove(&mut self, sequence: Sequence) -> Option<Request> {
        let request = self.known.remove(&sequence)?;
        self.input_bytes -= request.inputs().len();
        self.highest_forgotten = self.highest_forgotten.max(sequence);
        Some(request)
    }
}
