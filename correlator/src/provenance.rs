//! Which requests have written which files.
//!
//! What a request leaves in a file another may run, an hour later: by then nothing else is known of the first. So who
//! wrote a file is kept with the file, as it was known when it was written.
//!
//! Whose a write was is asked as for any step, and in less of a hurry. Lineage has to be asked for soon, while it is
//! known what the thread was at. All else takes a search among the requests, and a request can write files faster
//! than those can be searched: it is done for one write at a time, and for the last ones only. What is in a record
//! is searched for first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use clew_protocol::Moment;
use clew_protocol::incident::{IncidentRequest, Writer};
use clew_protocol::kernel::{FileAccess, FileKey, Lineage};
use clew_protocol::verdict::Proof;

use crate::cases::{Thread, millis, named};
use crate::process::GRACE;
use crate::proof::{Attribution, Knowledge, Traces};

/// Most files remembered; those that were written last stay.
const FILES: usize = 4096;
/// Most requests remembered for a file: the last that wrote it.
const WRITERS: usize = 4;
/// Most bytes of a path remembered: the last ones, with the file's name.
const PATH_BYTES: usize = 1024;
/// Most bytes of a writer's request target remembered.
const TARGET_BYTES: usize = 512;
/// Most writes that wait for the proof by lineage.
const FRESH: usize = 256;
/// Most writes that wait for a search. Of what goes beyond no more than the kernel's own word is known.
const UNSEARCHED: usize = 1024;

/// Files that requests have written.
#[derive(Debug, Default)]
pub(crate) struct Provenance {
    files: HashMap<FileKey, Written>,
    /// Files by the number of their last write.
    order: BTreeMap<u64, FileKey>,
    /// Writes so far.
    writes: u64,
    /// What lineage may still prove.
    fresh: VecDeque<Arc<Write>>,
    /// What lineage does not.
    unsearched: VecDeque<Arc<Write>>,
}

/// Who has written a file.
#[derive(Debug, Default)]
struct Written {
    /// The number of the last write.
    last: u64,
    /// The latest last.
    writers: Vec<Arc<Write>>,
}

/// A lineage has written a file.
#[derive(Debug)]
pub(crate) struct Write {
    /// The first time that it did.
    at: Moment,
    lineage: Lineage,
    path: Vec<u8>,
    author: OnceLock<Author>,
}

/// Whose a write is.
#[derive(Debug)]
enum Author {
    Named(Proof, Box<IncidentRequest>),
    /// One of so many requests.
    OneOf(u32),
}

impl Provenance {
    /// Takes note of a write.
    pub(crate) fn note(&mut self, access: &FileAccess, knowledge: &Knowledge<'_>) {
        let written = self.written(access.file);
        let thread = Thread::of(&access.lineage);
        let mut writers = written.writers.iter();
        if let Some(nth) = writers.position(|it| Thread::of(&it.lineage) == thread) {
            // The same again, and now the last.
            written.writers[nth..].rotate_left(1);
            return;
        }
        let write = Arc::new(Write::new(access));
        written.writers.push(write.clone());
        if written.writers.len() > WRITERS {
            written.writers.remove(0);
        }
        let awaits_end = knowledge.awaits_end(&write.lineage, write.at);
        if awaits_end && self.fresh.len() < FRESH {
            self.fresh.push_back(write);
        } else {
            self.ask_lineage(write, knowledge);
        }
    }

    /// Those who had written a file by `at`, the latest first.
    pub(crate) fn writers(&self, file: FileKey, at: Moment) -> Vec<Arc<Write>> {
        let written = self.files.get(&file);
        let writers = written.map_or(&[][..], |it| &it.writers);
        let before = writers.iter().rev().filter(|it| it.at <= at);
        before.cloned().collect()
    }

    /// Goes on with what need not wait for the end of another request any longer.
    pub(crate) fn settle(&mut self, knowledge: &Knowledge<'_>, now: Moment) {
        for _ in 0..self.fresh.len() {
            let Some(write) = self.fresh.pop_front() else {
                return;
            };
            let is_over = now >= write.at.after(GRACE);
            if is_over || !knowledge.awaits_end(&write.lineage, write.at) {
                self.ask_lineage(write, knowledge);
            } else {
                self.fresh.push_back(write);
            }
        }
    }

    /// Searches for the author of one write.
    pub(crate) fn search(&mut self, knowledge: &Knowledge<'_>) {
        while let Some(write) = self.unsearched.pop_front() {
            // Of some nobody will ask, or it has been done for a record.
            let is_wanted = Arc::strong_count(&write) > 1 && !write.is_named();
            if is_wanted {
                return write.search(knowledge);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// The entry of a file that is written now; the oldest goes for it where there is no room.
    fn written(&mut self, file: FileKey) -> &mut Written {
        if self.files.len() >= FILES
            && !self.files.contains_key(&file)
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.files.remove(&oldest);
        }
        self.writes += 1;
        let written = self.files.entry(file).or_default();
        self.order.remove(&written.last);
        written.last = self.writes;
        self.order.insert(written.last, file);
        written
    }

    fn ask_lineage(&mut self, write: Arc<Write>, knowledge: &Knowledge<'_>) {
        let proven = knowledge.proven_by_lineage(&write.lineage, write.at);
        if let Some(attribution) = proven {
            write.attribute(&attribution, knowledge);
        } else if self.unsearched.len() < UNSEARCHED {
            self.unsearched.push_back(write);
        } else {
            let recent = Attribution::doubt(write.lineage.recent.clone());
            write.attribute(&recent, knowledge);
        }
    }
}

impl Write {
    fn new(access: &FileAccess) -> Self {
        let path = &access.path;
        Self {
            at: access.at,
            lineage: access.lineage.clone(),
            path: path[path.len().saturating_sub(PATH_BYTES)..].to_vec(),
            author: OnceLock::new(),
        }
    }

    /// As a record of a step at `at` tells it; `clock` says what time it was.
    pub(crate) fn told(&self, at: Moment, clock: impl Fn(Moment) -> String) -> Writer {
        let (proof, request, candidates) = match self.author.get() {
            Some(Author::Named(proof, request)) => (*proof, Some(request.as_ref().clone()), 0),
            Some(Author::OneOf(candidates)) => (Proof::Candidates, None, *candidates),
            None => (Proof::Candidates, None, count(self.lineage.recent.len())),
        };
        Writer {
            at: clock(self.at),
            before_ms: millis(at.since(self.at)),
            path: String::from_utf8_lossy(&self.path).into_owned(),
            proof,
            request,
            candidates,
        }
    }

    /// Nobody has to be searched for any more.
    pub(crate) fn is_named(&self) -> bool {
        self.author.get().is_some()
    }

    /// Names the author at once, for a record.
    pub(crate) fn name(&self, knowledge: &Knowledge<'_>, now: Moment) {
        // Later it has been asked for, and what is known of the thread is too new.
        let is_fresh = now.since(self.at) <= GRACE;
        let proven = is_fresh.then(|| knowledge.proven_by_lineage(&self.lineage, self.at));
        match proven.flatten() {
            Some(attribution) => self.attribute(&attribution, knowledge),
            None => self.search(knowledge),
        }
    }

    fn search(&self, knowledge: &Knowledge<'_>) {
        let traces = Traces {
            text: self.path.clone(),
            ..Traces::default()
        };
        let found = knowledge.search(&self.lineage, self.at, &traces);
        self.attribute(&found, knowledge);
    }

    fn attribute(&self, attribution: &Attribution, knowledge: &Knowledge<'_>) {
        let sequence = attribution.sequence;
        let request = sequence.and_then(|it| named(knowledge.requests, it));
        let author = match request {
            Some(request) => Author::Named(attribution.proof, Box::new(summary(request))),
            None => Author::OneOf(count(attribution.candidates.len())),
        };
        // There is only ever one: whoever comes second has been told the same.
        let _ = self.author.set(author);
    }
}

/// A request as it is kept for as long as its file: within a bound, and without an outcome, which it mostly has not yet.
fn summary(mut request: IncidentRequest) -> IncidentRequest {
    request.status = None;
    request.relayed_body_bytes = None;
    let end = request.target.floor_char_boundary(TARGET_BYTES);
    request.target.truncate(end);
    request.target.shrink_to_fit();
    request
}

/// There was one at least, whether it is known or not.
fn count(candidates: usize) -> u32 {
    u32::try_from(candidates.max(1)).unwrap_or(u32::MAX)
}
