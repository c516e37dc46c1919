//! What is learned of backends: which programs work on one request per thread, and what each
//! thread is at.

use std::collections::HashMap;
use std::time::Duration;

use clew_protocol::kernel::{Bound, FileKey, ProcessKey, Strength};
use clew_protocol::{Moment, Sequence};

use crate::process::{Held, Process};
use crate::requests::{MEMORY, Requests};

/// Requests read in company, or after a wait, before a program counts as blocking.
pub(crate) const LESSONS: u32 = 1000;
/// How long a request must have lain unread, while the thread that read it in the end was at another,
/// to tell that the thread does not take what it can get. An event loop would have read it; one that is
/// kept from that by a handler that does not return works on one request at a time while it is.
const WAIT: Duration = Duration::from_millis(2);
/// Most processes and programs remembered.
const PROCESSES: usize = 4096;
const PROGRAMS: usize = 4096;
/// Most processes whose requests one may work for; who has so many may have more.
pub(crate) const FAMILY: usize = 256;

/// How a program has behaved: an executable, as it works for a service. What an interpreter runs for one may have
/// nothing in common with what it runs for another.
#[derive(Debug, Default, Clone, Copy)]
struct Conduct {
    lessons: u32,
    violated: bool,
}

/// All backends.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    processes: HashMap<ProcessKey, Process>,
    conduct: HashMap<FileKey, HashMap<Box<str>, Conduct>>,
    /// Entries of it.
    programs: usize,
    /// No process can be known whole before this: reads were lost.
    lost_until: Moment,
}

impl Workload {
    /// Takes note of a read. Reads of one process come in order of `at`.
    pub(crate) fn bind(&mut self, bound: &Bound, requests: &Requests) {
        if !self.processes.contains_key(&bound.process) {
            self.make_room(bound.at, requests);
        }
        let lost = bound.at < self.lost_until;
        let process = self
            .processes
            .entry(bound.process)
            .or_insert_with(|| Process::new(bound.executable));
        // When what has no token was sent, and when the process was done with it, nobody says.
        let lesson = bound.handed.is_none()
            && (process.had_company(bound, requests) || has_waited(process, bound, requests));
        let overlap = is_overlap(process, bound, requests, lost);
        process.note(bound, requests);
        let service = service_of(bound, requests);
        process.serve(service);
        let Some(conduct) = self.conduct_mut(bound.executable, service) else {
            return;
        };
        if overlap {
            conduct.violated = true;
        } else if lesson {
            conduct.lessons = conduct.lessons.saturating_add(1);
        }
    }

    /// Reads went unreported: for as long as they could be blamed, nothing is known to be whole.
    pub(crate) fn lost(&mut self, now: Moment) {
        self.lost_until = self.lost_until.max(now.after(MEMORY));
    }

    pub(crate) fn process(&self, key: ProcessKey) -> Option<&Process> {
        self.processes.get(&key)
    }

    /// Of every request that the process has read within memory it is known that it has.
    pub(crate) fn is_whole(&self, key: ProcessKey, at: Moment) -> bool {
        let process = self.processes.get(&key);
        at >= self.lost_until && process.is_some_and(|it| it.knows_senders(at))
    }

    /// The process, and those backends whose requests its work may be for as well: they have sent it heads
    /// without tokens, it is not certain for which request, and so on for each of them.
    pub(crate) fn family(&self, key: ProcessKey, at: Moment) -> Vec<ProcessKey> {
        let mut family = vec![key];
        let mut nth = 0;
        while let Some(&member) = family.get(nth) {
            let senders = self.processes.get(&member).map(|it| it.senders(at));
            for (sender, in_doubt) in senders.into_iter().flatten() {
                let is_certain = !in_doubt && self.is_blocking(sender, at);
                if !is_certain && !family.contains(&sender) && family.len() < FAMILY {
                    family.push(sender);
                }
            }
            nth += 1;
        }
        family
    }

    /// Which threads had to be at `sequence`, and when, that what thread `tid` has read of it is of that
    /// request: none where it had a token. None at all where that cannot be told.
    pub(crate) fn handed_through(
        &self,
        key: ProcessKey,
        tid: u32,
        sequence: Sequence,
        requests: &Requests,
    ) -> Option<Vec<Held>> {
        let mut through: Vec<Held> = Vec::new();
        let (mut key, mut tid) = (key, tid);
        let handed = |key, tid| {
            let process: Option<&Process> = self.processes.get(&key);
            process.and_then(|it| it.handed(tid, sequence))
        };
        while let Some((at, handed)) = handed(key, tid) {
            let sender = requests.get(sequence)?.readers.with_id(handed.tgid)?;
            let is_certain = handed.strength == Strength::Reader && self.is_blocking(sender, at);
            let is_new = through.iter().all(|it| it.process != sender);
            if !is_certain || !is_new {
                return None;
            }
            (key, tid) = (
                sender,
                self.processes.get(&sender)?.thread_at(sequence, at)?,
            );
            through.push(Held {
                process: key,
                tid,
                at,
            });
        }
        Some(through)
    }

    pub(crate) fn is_blocking(&self, key: ProcessKey, at: Moment) -> bool {
        let Some(process) = self.processes.get(&key).filter(|_| at >= self.lost_until) else {
            return false;
        };
        let of_it = self.conduct.get(&process.executable);
        let all = process.services();
        let mut all = all.map(|service| of_it.and_then(|it| it.get(service)));
        let mut is_learned = false;
        all.all(|conduct| {
            is_learned |= conduct.is_some_and(|it| it.lessons >= LESSONS);
            conduct.is_some_and(|it| !it.violated)
        }) && is_learned
    }

    pub(crate) fn expire(&mut self, now: Moment, requests: &Requests) {
        // A thread may be at a request for longer than that; a process without it would look as
        // if it were at nothing.
        self.processes.retain(|_, process| {
            now.since(process.last_read()) < 2 * MEMORY || process.is_busy(now, requests)
        });
    }

    /// None for a program that there is no room for: it never counts as blocking.
    fn conduct_mut(&mut self, executable: FileKey, service: &str) -> Option<&mut Conduct> {
        let known = self.conduct.get(&executable);
        if known.is_none_or(|it| !it.contains_key(service)) {
            if self.programs >= PROGRAMS {
                return None;
            }
            self.programs += 1;
            let services = self.conduct.entry(executable).or_default();
            services.insert(service.into(), Conduct::default());
        }
        self.conduct.get_mut(&executable)?.get_mut(service)
    }

    fn make_room(&mut self, now: Moment, requests: &Requests) {
        if self.processes.len() < PROCESSES {
            return;
        }
        let idle = |(key, process): (&ProcessKey, &Process)| {
            (process.is_busy(now, requests), process.last_read(), *key)
        };
        let idlest = self
            .processes
            .iter()
            .map(idle)
            .min_by_key(|it| (it.0, it.1));
        if let Some((busy, _, key)) = idlest {
            self.processes.remove(&key);
            if busy {
                // What its threads are at is forgotten with it.
                self.lost(now);
            }
        }
    }
}

/// The service that a request is for; empty where the proxy's record of it got lost.
fn service_of<'a>(bound: &Bound, requests: &'a Requests) -> &'a str {
    let told = requests.told(bound.sequence);
    told.map_or("", |it| it.service.as_ref())
}

/// The request could have been read while the thread was at the one before, and was not. All that a
/// process with one thread, which never has company, can be seen to do.
fn has_waited(process: &Process, bound: &Bound, requests: &Requests) -> bool {
    let previous = process.last_of(bound.tid).and_then(|it| requests.get(it));
    let span = previous.and_then(|it| it.readers.since(bound.process).zip(it.ended));
    let Some((told, (read, ended))) = requests.told(bound.sequence).zip(span) else {
        return false;
    };
    ended.min(bound.at).since(read.max(told.sent_at)) >= WAIT
}

/// The thread has read this request with another one open.
///
/// Unanswered is not open: the client may have gone, or a verdict have cut it.
fn is_overlap(process: &Process, bound: &Bound, requests: &Requests, lost: bool) -> bool {
    if bound.same_read > 0 {
        return true;
    }
    let previous = process.last_of(bound.tid);
    bound.previous_unanswered
        && match previous.and_then(|sequence| requests.get(sequence)) {
            Some(request) => !request.condemned && request.was_open(bound.at),
            // Forgotten, so it had ended; unless it was never heard of.
            None => lost,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(sequence: u64, tgid: u32) -> Bound {
        Bound {
            at: Moment(sequence),
            sequence: Sequence(sequence),
            process: ProcessKey { tgid, start: 1 },
            tid: tgid,
            executable: FileKey {
                device: 1,
                inode: 1,
            },
            same_read: 0,
            previous_unanswered: false,
            handed: None,
        }
    }

    /// A table that is full made room for every read, of known processes too.
    #[test]
    fn a_known_process_needs_no_room() {
        let (mut workload, requests) = (Workload::default(), Requests::default());
        for it in 0..PROCESSES as u32 {
            workload.bind(&bound(u64::from(it) + 1, it), &requests);
        }
        workload.bind(&bound(1_000_000, 7), &requests);
        assert_eq!(workload.processes.len(), PROCESSES);
        workload.bind(&bound(1_000_001, 1_000_000), &requests);
        assert_eq!(workload.processes.len(), PROCESSES);
        assert!(workload.process(bound(1, 0).process).is_none());
    }
}
