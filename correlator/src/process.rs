//! One backend process, and what each of its threads is at.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use clew_protocol::kernel::{Bound, FileKey, Handed, ProcessKey, Strength};
use clew_protocol::{Moment, Sequence};

use crate::requests::{MEMORY, Requests};

/// Most threads of a process remembered.
const THREADS: usize = 4096;
/// Most requests that one thread is at.
const AT_ONCE: usize = 32;
/// Most backends that send a process what it is to do.
const SENDERS: usize = 32;
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
    /// The services that it has read requests for.
    services: Vec<Box<str>>,
    /// The last requests it has read, oldest first.
    neighbours: VecDeque<Sequence>,
    last_read: Moment,
    threads: HashMap<u32, Thread>,
    /// There are more threads at work than are remembered.
    crowded: bool,
    /// Backends that have sent it heads without tokens, and when each last did.
    senders: HashMap<ProcessKey, Sent>,
    /// Nobody knows who sent it what, before this.
    unsent_until: Moment,
}

/// When a backend last sent something.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    last: Moment,
    /// The same of what a task of it sent that did not carry the request itself.
    last_in_doubt: Moment,
}

/// A thread that was at a request, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) process: ProcessKey,
    pub(crate) tid: u32,
    pub(crate) at: Moment,
}

/// A request that a thread has read.
#[derive(Debug, Clone, Copy)]
struct Read {
    at: Moment,
    sequence: Sequence,
    handed: Option<Handed>,
}

/// One thread.
#[derive(Debug, Default)]
struct Thread {
    last: Option<Sequence>,
    /// Requests it has read and that were open a moment ago.
    open: Vec<Read>,
    /// It was at more than are remembered.
    crowded: bool,
}

impl Process {
    pub(crate) fn new(executable: FileKey) -> Self {
        Self {
            executable,
            services: Vec::new(),
            neighbours: VecDeque::new(),
            last_read: Moment(0),
            threads: HashMap::new(),
            crowded: false,
            senders: HashMap::new(),
            unsent_until: Moment(0),
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
        if let Some(handed) = bound.handed {
            self.note_sender(handed, bound, requests);
        }
    }

    /// It works for a service. There are fewer than 256 of them.
    pub(crate) fn serve(&mut self, service: &str) {
        if !self.services.iter().any(|it| **it == *service) {
            self.services.push(service.into());
        }
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(|it| &**it)
    }

    fn note_sender(&mut self, handed: Handed, bound: &Bound, requests: &Requests) {
        let request = requests.get(bound.sequence);
        let sender = request.and_then(|it| it.readers.with_id(handed.tgid));
        if self.senders.len() >= SENDERS {
            self.senders
                .retain(|_, sent| bound.at.since(sent.last) < MEMORY);
        }
        let has_room = self.senders.len() < SENDERS;
        let known = sender.filter(|it| has_room || self.senders.contains_key(it));
        let Some(sender) = known else {
            self.unsent_until = bound.at.after(MEMORY);
            return;
        };
        let sent = self.senders.entry(sender).or_default();
        sent.last = bound.at;
        if handed.strength != Strength::Reader {
            sent.last_in_doubt = bound.at;
        }
    }

    /// Backends that have sent it something within memory, and whether it was in doubt for which request.
    pub(crate) fn senders(&self, at: Moment) -> impl Iterator<Item = (ProcessKey, bool)> {
        let within = move |then| at.since(then) < MEMORY;
        let recent = self
            .senders
            .iter()
            .filter(move |(_, sent)| within(sent.last));
        recent.map(move |(&process, sent)| (process, within(sent.last_in_doubt)))
    }

    /// Everybody is known who has sent it something within memory.
    pub(crate) fn knows_senders(&self, at: Moment) -> bool {
        at >= self.unsent_until
    }

    /// The reading of `sequence` by thread `tid`: who has sent it, if it had no token. None also where the
    /// reading is not remembered.
    pub(crate) fn handed(&self, tid: u32, sequence: Sequence) -> Option<(Moment, Handed)> {
        let mut open = self.threads.get(&tid)?.open.iter().rev();
        let read = open.find(|read| read.sequence == sequence)?;
        read.handed.map(|handed| (read.at, handed))
    }

    /// A thread that is at `sequence`, by `at`.
    pub(crate) fn thread_at(&self, sequence: Sequence, at: Moment) -> Option<u32> {
        let is_at = |read: &Read| read.sequence == sequence && read.at <= at;
        let mut threads = self.threads.iter();
        let found = threads.find(|(_, thread)| thread.open.iter().any(is_at));
        found.map(|(&tid, _)| tid)
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
                || thread.open.iter().any(|read| {
                    let request = requests.get(read.sequence);
                    read.sequence != than
                        && read.at <= at
                        && request.is_some_and(|it| it.was_open(at.after(GRACE)) && !it.condemned)
                })
        };
        self.crowded || self.threads.get(&tid).is_some_and(has_other)
    }

    /// All that its threads had read by `at` and that were open then.
    pub(crate) fn open(&self, at: Moment, requests: &Requests) -> impl Iterator<Item = Sequence> {
        let all = self.threads.values().flat_map(|thread| &thread.open);
        all.filter(move |read| read.at <= at && is_open(read.sequence, at, requests))
            .map(|read| read.sequence)
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
        self.open.retain(|read| {
            let request = requests.get(read.sequence);
            let ended = request.map(|request| request.ended);
            ended.is_some_and(|it| it.is_none_or(|it| bound.at.since(it) < BATCHES))
        });
        if self.open.len() >= AT_ONCE {
            self.open
                .retain(|read| is_open(read.sequence, bound.at, requests));
        }
        if self.open.len() >= AT_ONCE {
            self.open.clear();
            self.crowded = true;
        }
        self.open.push(Read {
            at: bound.at,
            sequence: bound.sequence,
            handed: bound.handed,
        });
        self.last = Some(bound.sequence);
    }

    fn is_busy(&self, now: Moment, requests: &Requests) -> bool {
        let mut open = self.open.iter();
        open.any(|read| is_open(read.sequence, now, requests))
    }
}

fn is_open(sequence: Sequence, at: Moment, requests: &Requests) -> bool {
    let request = requests.get(sequence);
    request.is_some_and(|request| request.was_open(at))
}
