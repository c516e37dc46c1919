//! What is learned of backends: which process read which requests, and which executables work
//! on one request per thread.

use std::collections::{HashMap, VecDeque};

use clew_protocol::kernel::{Bound, FileKey, ProcessKey};
use clew_protocol::{Moment, Sequence};

use crate::requests::{MEMORY, Requests};

/// Requests read beside another one before an executable counts as blocking.
pub(crate) const LESSONS: u32 = 1000;
/// Most processes, executables and threads of a process remembered.
const PROCESSES: usize = 4096;
const EXECUTABLES: usize = 4096;
const THREADS: usize = 4096;
/// Most requests of one process remembered.
const READ: usize = 16_384;
/// Neighbours looked at to see whether a request had company.
const NEIGHBOURS: usize = 32;

/// One backend process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) executable: FileKey,
    /// Requests it has read, oldest first, that can still be blamed.
    pub(crate) read: VecDeque<(Moment, Sequence)>,
    /// Requests each thread has read and that had not ended when it read the next; the last one
    /// it has read is the last.
    threads: HashMap<u32, Vec<Sequence>>,
    /// Something it read has been forgotten or was never heard of.
    pub(crate) incomplete_until: Moment,
}

/// How an executable has behaved.
#[derive(Debug, Default, Clone, Copy)]
struct Conduct {
    lessons: u32,
    violated: bool,
}

/// All backends.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    processes: HashMap<ProcessKey, Process>,
    conduct: HashMap<FileKey, Conduct>,
    /// No process can be known whole before this: records were lost.
    lost_until: Moment,
}

impl Workload {
    pub(crate) fn bind(&mut self, bound: &Bound, requests: &Requests) {
        self.make_room();
        let had_company = self.had_company(bound, requests);
        let overlap = self.is_overlap(bound, requests);
        let process = self
            .processes
            .entry(bound.process)
            .or_insert_with(|| Process {
                executable: bound.executable,
                read: VecDeque::new(),
                threads: HashMap::new(),
                incomplete_until: Moment(0),
            });
        process.note(bound, requests);
        if self.conduct.len() >= EXECUTABLES && !self.conduct.contains_key(&bound.executable) {
            return;
        }
        let conduct = self.conduct.entry(bound.executable).or_default();
        if overlap {
            conduct.violated = true;
        } else if had_company {
            conduct.lessons = conduct.lessons.saturating_add(1);
        }
    }

    /// Another request of the same process was in flight when this one was read.
    fn had_company(&self, bound: &Bound, requests: &Requests) -> bool {
        let Some(process) = self.processes.get(&bound.process) else {
            return false;
        };
        process
            .read
            .iter()
            .rev()
            .take(NEIGHBOURS)
            .any(|&(_, sequence)| {
                sequence != bound.sequence
                    && requests
                        .get(sequence)
                        .is_some_and(|request| request.was_open(bound.at))
            })
    }

    /// The thread has read this request with another one open.
    ///
    /// Unanswered is not open: the client may have gone, or a verdict have cut it.
    fn is_overlap(&self, bound: &Bound, requests: &Requests) -> bool {
        if bound.same_read > 0 {
            return true;
        }
        if !bound.previous_unanswered {
            return false;
        }
        let process = self.processes.get(&bound.process);
        let previous = process.and_then(|it| it.threads.get(&bound.tid)?.last().copied());
        let previous = previous.and_then(|sequence| requests.get(sequence));
        previous.is_none_or(|request| !request.condemned && request.was_open(bound.at))
    }

    /// A response of `process` left after its thread had read another request.
    pub(crate) fn interleaved(&mut self, process: ProcessKey) {
        if let Some(process) = self.processes.get(&process) {
            self.conduct.entry(process.executable).or_default().violated = true;
        }
    }

    /// Reads went unreported: for as long as they could be blamed, nothing is known to be whole.
    pub(crate) fn lost(&mut self, now: Moment) {
        self.lost_until = now.after(MEMORY);
    }

    pub(crate) fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(&key)
    }

    /// Every request the process has read within memory is known.
    pub(crate) fn is_whole(&self, key: ProcessKey, at: Moment) -> bool {
        at >= self.lost_until
            && self
                .processes
                .get(&key)
                .is_some_and(|process| at >= process.incomplete_until)
    }

    pub(crate) fn is_blocking(&self, key: ProcessKey, at: Moment) -> bool {
        let conduct = self
            .processes
            .get(&key)
            .and_then(|it| self.conduct.get(&it.executable));
        at >= self.lost_until && conduct.is_some_and(|it| !it.violated && it.lessons >= LESSONS)
    }

    pub(crate) fn expire(&mut self, now: Moment) {
        for process in self.processes.values_mut() {
            process.expire(now);
        }
        self.processes.retain(|_, process| !process.read.is_empty());
    }

    fn make_room(&mut self) {
        if self.processes.len() < PROCESSES {
            return;
        }
        let idle = |process: &Process| process.read.back().map_or(Moment(0), |&(at, _)| at);
        let oldest = self
            .processes
            .iter()
            .min_by_key(|(_, it)| idle(it))
            .map(|(key, _)| *key);
        if let Some(oldest) = oldest {
            self.processes.remove(&oldest);
        }
    }
}

impl Process {
    fn note(&mut self, bound: &Bound, requests: &Requests) {
        if self.read.len() >= READ && self.read.pop_front().is_some() {
            self.incomplete_until = bound.at.after(MEMORY);
        }
        self.read.push_back((bound.at, bound.sequence));
        if self.threads.len() >= THREADS && !self.threads.contains_key(&bound.tid) {
            self.threads.clear();
        }
        let open = self.threads.entry(bound.tid).or_default();
        open.retain(|&sequence| {
            requests
                .get(sequence)
                .is_some_and(|request| request.ended.is_none())
        });
        if open.len() < 64 {
            open.push(bound.sequence);
        }
    }

    /// Another request that thread `tid` has read is still open.
    pub(crate) fn thread_has_other(&self, tid: u32, than: Sequence, requests: &Requests) -> bool {
        self.threads.get(&tid).is_some_and(|read| {
            read.iter().any(|&sequence| {
                sequence != than
                    && requests
                        .get(sequence)
                        .is_some_and(|request| request.ended.is_none() && !request.condemned)
            })
        })
    }

    fn expire(&mut self, now: Moment) {
        // An open request may be older than this; what it is bound to is with the request.
        while self
            .read
            .front()
            .is_some_and(|&(at, _)| now.since(at) >= 2 * MEMORY)
        {
            self.read.pop_front();
        }
    }
}
