//! One backend process, and what each of its threads is at.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clew_protocol::kernel::{Bound, FileKey};
use clew_protocol::{Moment, Sequence};

use crate::requests::Requests;

/// Most threads of a process remembered.
const THREADS: usize = 4096;
/// Most requests that one thread is at.
const AT_ONCE: usize = 32;
/// Neighbours looked at to see whether a request had company.
const NEIGHBOURS: usize = 32;
/// How much later than a decision the proxy may have been done with a request that the thread had
/// answered before it: the backend is done with it, the proxy is about to be, or waits for a processor.
pub(crate) const GRACE: Duration = Duration::from_millis(100);
/// Reads come in batches, so a decision may come after reads that are later than it by less than
/// this (two batches, and [`GRACE`]); what had ended by those may not have by the decision.
const BATCHES: Duration = Duration::from_millis(150);

/// One backend process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) executable: FileKey,
    /// The last requests it has read, oldest first.
    neighbours: VecDeque<Sequence>,
    last_read: Moment,
    threads: HashMap<u32, Thread>,
    /// There are more threads at work than are remembered.
    crowded: bool,
}

/// One thread.
#[derive(Debug, Default)]
struct Thread {
    last: Option<Sequence>,
    /// Requests it has read and that were open a moment ago, with the time of each read.
    open: Vec<(Moment, Sequence)>,
    /// It was at more than are remembered.
    crowded: bool,
}

impl Process {
    pub(crate) fn new(executable: FileKey) -> Self {
        Self {
            executable,
            neighbours: VecDeque::new(),
            last_read: Moment(0),
            threads: HashMap::new(),
            crowded: false,
        }
    }

    pub(crate) fn last_read(&self) -> Moment {
        self.last_read
    }

    pub(crate) fn note(&mut self, bound: &Bound, requests: &Requests) {
        self.executable = bound.executable;
        self.last_read = self.last_read.max(bound.at);
        if self.neighbours.len() >= NEIGHBOURS {
            self.neighbours.pop_front();
        }
        self.neighbours.push_back(bound.sequence);
        if self.threads.len() >= THREADS && !self.threads.contains_key(&bound.tid) {
            self.make_room(bound.at, requests);
        }
        let thread = self.threads.entry(bound.tid).or_default();
        thread.note(bound, requests);
    }

    /// Another request was in flight when this one was read.
    pub(crate) fn had_company(&self, bound: &Bound, requests: &Requests) -> bool {
        self.neighbours
            .iter()
            .rev()
            .any(|&sequence| sequence != bound.sequence && is_open(sequence, bound.at, requests))
    }

    /// The request that a thread has read last.
    pub(crate) fn last_of(&self, tid: u32) -> Option<Sequence> {
        self.threads.get(&tid)?.last
    }

    /// Another request that thread `tid` had read by `at` was open then, and [`GRACE`] later.
    pub(crate) fn thread_has_other(
        &self,
        tid: u32,
        than: Sequence,
        at: Moment,
        requests: &Requests,
    ) -> bool {
        let has_other = |thread: &Thread| {
            thread.crowded
                || thread.open.iter().any(|&(read, sequence)| {
                    let request = requests.get(sequence);
                    sequence != than
                        && read <= at
                        && request.is_some_and(|it| it.was_open(at.after(GRACE)) && !it.condemned)
                })
        };
        self.crowded || self.threads.get(&tid).is_some_and(has_other)
    }

    /// All that its threads had read by `at` and that were open then.
    pub(crate) fn open(&self, at: Moment, requests: &Requests) -> impl Iterator<Item = Sequence> {
        let all = self.threads.values().flat_map(|thread| &thread.open);
        all.filter(move |(read, sequence)| *read <= at && is_open(*sequence, at, requests))
            .map(|(_, sequence)| *sequence)
    }

    /// A thread of it is at a request.
    pub(crate) fn is_busy(&self, now: Moment, requests: &Requests) -> bool {
        let mut threads = self.threads.values();
        self.crowded || threads.any(|thread| thread.is_busy(now, requests))
    }

    fn make_room(&mut self, now: Moment, requests: &Requests) {
        self.threads
            .retain(|_, thread| thread.crowded || thread.is_busy(now, requests));
        if self.threads.len() >= THREADS {
            self.threads.clear();
            self.crowded = true;
        }
    }
}

impl Thread {
    fn note(&mut self, bound: &Bound, requests: &Requests) {
        self.open.retain(|&(_, sequence)| {
            let request = requests.get(sequence);
            let ended = request.map(|request| request.ended);
            ended.is_some_and(|it| it.is_none_or(|it| bound.at.since(it) < BATCHES))
        });
        if self.open.len() >= AT_ONCE {
            self.open
                .retain(|&(_, sequence)| is_open(sequence, bound.at, requests));
        }
        if self.open.len() >= AT_ONCE {
            self.open.clear();
            self.crowded = true;
        }
        self.open.push((bound.at, bound.sequence));
        self.last = Some(bound.sequence);
    }

    fn is_busy(&self, now: Moment, requests: &Requests) -> bool {
        let mut open = self.open.iter();
        open.any(|&(_, sequence)| is_open(sequence, now, requests))
    }
}

fn is_open(sequence: Sequence, at: Moment, requests: &Requests) -> bool {
    let request = requests.get(sequence);
    request.is_some_and(|request| request.was_open(at))
}
