//! Requests that are in flight, and those that lately were.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use clew_protocol::kernel::ProcessKey;
use clew_protocol::request::{INPUT_LIMIT_BYTES, RequestEnded, RequestStarted};
use clew_protocol::{Moment, Sequence};

/// How long an ended request can still be blamed.
pub(crate) const MEMORY: Duration = Duration::from_secs(60);
/// Most requests remembered, in flight and ended together.
const CAPACITY: usize = 131_072;
/// Most input bytes remembered; those of the requests that ended first go first.
const INPUT_CAPACITY_BYTES: usize = 128 << 20;

/// One upstream attempt.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) started: RequestStarted,
    /// Decoded inputs; empty once they had to be forgotten.
    pub(crate) inputs: Vec<u8>,
    pub(crate) ended: Option<RequestEnded>,
    /// A verdict has cut it.
    pub(crate) condemned: bool,
    /// Who read it, and when.
    pub(crate) bound: Option<(ProcessKey, u32, Moment)>,
}

impl Request {
    /// Open at `at`, as far as is known.
    pub(crate) fn was_open(&self, at: Moment) -> bool {
        self.ended.as_ref().is_none_or(|ended| ended.at > at)
    }

    /// Can be blamed for something that happened at `at`.
    pub(crate) fn is_recent(&self, at: Moment) -> bool {
        self.ended
            .as_ref()
            .is_none_or(|ended| at.since(ended.at) < MEMORY)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// By sequence, so that the oldest in flight is found at once.
    known: BTreeMap<Sequence, Request>,
    /// In order of their end.
    ended: VecDeque<(Moment, Sequence)>,
    input_bytes: usize,
    /// Forgotten before their time.
    pub(crate) evicted: u64,
}

impl Requests {
    pub(crate) fn start(&mut self, mut started: RequestStarted) {
        if self.known.len() >= CAPACITY {
            self.evict();
        }
        let inputs = std::mem::take(&mut started.inputs).into_vec();
        self.input_bytes += inputs.len();
        self.make_input_room();
        let sequence = started.sequence;
        self.known.insert(
            sequence,
            Request {
                started,
                inputs,
                ended: None,
                condemned: false,
                bound: None,
            },
        );
    }

    pub(crate) fn add_input(&mut self, sequence: Sequence, bytes: &[u8]) {
        let Some(request) = self.known.get_mut(&sequence) else {
            return;
        };
        let room = INPUT_LIMIT_BYTES.saturating_sub(request.inputs.len());
        let bytes = &bytes[..bytes.len().min(room)];
        request.inputs.extend_from_slice(bytes);
        self.input_bytes += bytes.len();
        self.make_input_room();
    }

    pub(crate) fn end(&mut self, ended: RequestEnded) {
        let (at, sequence) = (ended.at, ended.sequence);
        if let Some(request) = self.known.get_mut(&sequence)
            && request.ended.is_none()
        {
            request.ended = Some(ended);
            self.ended.push_back((at, sequence));
        }
    }

    pub(crate) fn bind(&mut self, sequence: Sequence, process: ProcessKey, tid: u32, at: Moment) {
        if let Some(request) = self.known.get_mut(&sequence) {
            request.bound = Some((process, tid, at));
        }
    }

    pub(crate) fn condemn(&mut self, sequence: Sequence) {
        if let Some(request) = self.known.get_mut(&sequence) {
            request.condemned = true;
        }
    }

    pub(crate) fn get(&self, sequence: Sequence) -> Option<&Request> {
        self.known.get(&sequence)
    }

    /// Requests that `process` has read and that can be blamed for something at `at`, newest
    /// first.
    pub(crate) fn suspects(
        &self,
        process: ProcessKey,
        at: Moment,
    ) -> impl Iterator<Item = Sequence> {
        let theirs = move |request: &Request| {
            request
                .bound
                .is_some_and(|(by, _, read)| by == process && read <= at)
        };
        let all = self.known.iter().rev();
        all.filter(move |(_, request)| theirs(request) && request.is_recent(at))
            .map(|(sequence, _)| *sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Forgets what ended long ago.
    pub(crate) fn expire(&mut self, now: Moment) {
        while let Some(&(at, _)) = self.ended.front()
            && now.since(at) >= MEMORY
        {
            self.forget_first_ended();
        }
    }

    fn make_input_room(&mut self) {
        while self.input_bytes > INPUT_CAPACITY_BYTES && !self.ended.is_empty() {
            self.evicted += 1;
            self.forget_first_ended();
        }
    }

    fn evict(&mut self) {
        self.evicted += 1;
        if !self.ended.is_empty() {
            self.forget_first_ended();
            return;
        }
        // All are in flight: the oldest has the smallest sequence.
        if let Some((_, request)) = self.known.pop_first() {
            self.input_bytes -= request.inputs.len();
        }
    }

    fn forget_first_ended(&mut self) {
        if let Some((_, sequence)) = self.ended.pop_front() {
            self.forget(sequence);
        }
    }

    fn forget(&mut self, sequence: Sequence) {
        if let Some(request) = self.known.remove(&sequence) {
            self.input_bytes -= request.inputs.len();
        }
    }
}
