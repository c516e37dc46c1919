//! Incidents on disk: one JSON object a line, later revisions after earlier ones. The latest are in memory too.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use clew_protocol::IncidentId;
use clew_protocol::incident::Incident;
use clew_protocol::verdict::Proof;

use crate::journal::{self, Journal};

const FILE: &str = "incidents.jsonl";
/// The file is set aside at this size; with the one before it, twice as much is kept.
const LIMIT_BYTES: u64 = 64 << 20;
/// Incidents in memory, for the admin API: some tens of kilobytes each at most.
pub(crate) const RECENT: usize = 256;
/// How much of the file they are read from at start, bytes.
const TAIL_BYTES: u64 = 4 << 20;

/// The file, open for appending, and the latest in it.
#[derive(Debug)]
pub(crate) struct Store {
    journal: Journal,
    recent: Recent,
}

impl Store {
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let path = state.join(FILE);
        let recent = Recent::default();
        for incident in journal::tail(&path, TAIL_BYTES)? {
            recent.put(incident);
        }
        let journal = Journal::open(path, LIMIT_BYTES)?;
        Ok(Self { journal, recent })
    }

    /// The latest; any number of handles may be held.
    pub(crate) fn recent(&self) -> Recent {
        self.recent.clone()
    }

    fn write(&mut self, incident: Incident) -> Result<()> {
        if incident.revision == 1 {
            self.recent.count(incident.proof);
        }
        let written = self.journal.write(&incident);
        if written.is_err() {
            self.recent.add_unwritten();
        }
        self.recent.put(incident);
        written
    }
}

/// The latest incidents, each in its last revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent(Arc<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    latest: Mutex<VecDeque<Arc<Incident>>>,
    unwritten: AtomicU64,
    /// Incidents of this run by [`PROOFS`].
    proofs: [AtomicU64; PROOFS.len()],
}

/// What attributions rest on, strongest first.
const PROOFS: [(Proof, &str); 4] = [
    (Proof::Content, "content"),
    (Proof::Lineage, "lineage"),
    (Proof::Sole, "sole"),
    (Proof::Candidates, "candidates"),
];

impl Recent {
    /// At most `most`, the latest first.
    pub(crate) fn list(&self, most: usize) -> Vec<Arc<Incident>> {
        self.lock().iter().rev().take(most).cloned().collect()
    }

    pub(crate) fn find(&self, id: IncidentId) -> Option<Arc<Incident>> {
        self.lock().iter().rev().find(|it| it.id == id).cloned()
    }

    /// Records of incidents that are not in the file.
    pub(crate) fn unwritten(&self) -> u64 {
        self.0.unwritten.load(Ordering::Relaxed)
    }

    /// Incidents of this run, by what their attribution rested on at first.
    pub(crate) fn by_proof(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self
            .0
            .proofs
            .each_ref()
            .map(|it| it.load(Ordering::Relaxed));
        PROOFS.iter().map(|it| it.1).zip(counts)
    }

    fn count(&self, proof: Proof) {
        if let Some(index) = PROOFS.iter().position(|it| it.0 == proof) {
            self.0.proofs[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add_unwritten(&self) {
        self.0.unwritten.fetch_add(1, Ordering::Relaxed);
    }

    fn put(&self, incident: Incident) {
        let mut all = self.lock();
        let incident = Arc::new(incident);
        match all.iter_mut().rev().find(|it| it.id == incident.id) {
            Some(before) => *before = incident,
            None => {
                if all.len() >= RECENT {
                    all.pop_front();
                }
                all.push_back(incident);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Incident>>> {
        self.0.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Incidents that may wait for the disk.
const WAITING: usize = 512;

/// A thread that writes: verdicts do not wait for a disk.
#[derive(Debug)]
pub(crate) struct Writer {
    /// None once it is to end.
    queue: Option<SyncSender<Incident>>,
    thread: Option<JoinHandle<()>>,
    recent: Recent,
}

impl Writer {
    pub(crate) fn start(store: Store) -> Result<Self> {
        let (queue, incidents) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("clew-incidents".to_owned());
        Ok(Self {
            recent: store.recent(),
            queue: Some(queue),
            thread: Some(thread.spawn(move || write_all(store, &incidents))?),
        })
    }

    pub(crate) fn write(&self, incident: Incident) {
        let id = incident.id;
        let is_queued = self
            .queue
            .as_ref()
            .is_some_and(|it| it.try_send(incident).is_ok());
        if !is_queued {
            self.recent.add_unwritten();
            tracing::error!(incident = %id, "incident not written: the disk is too slow");
        }
    }
}

/// Waits until all is written.
impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(_)) = ended {
            tracing::error!("the thread that writes incidents panicked");
        }
    }
}

fn write_all(mut store: Store, incidents: &Receiver<Incident>) {
    // Started by a thread that has the highest priority; this has none.
    if let Err(error) = rustix::process::setpriority_process(None, 0) {
        tracing::debug!(%error, "incidents are written at the priority of verdicts");
    }
    for incident in incidents {
        let id = incident.id;
        if let Err(error) = store.write(incident) {
            let error = format!("{error:#}");
            tracing::error!(incident = %id, error, "incident not written");
        }
    }
}

/// The last revision of one incident.
pub(crate) fn find(state: &Path, id: IncidentId) -> Result<Option<Incident>> {
    let mut found = None;
    journal::read_with(&state.join(FILE), &id.to_string(), |incident: Incident| {
        if incident.id == id {
            found = Some(incident);
        }
    })?;
    Ok(found)
}

/// All incidents, oldest first, each in its last revision.
pub(crate) fn read(state: &Path) -> Result<Vec<Incident>> {
    let mut known: HashMap<IncidentId, usize> = HashMap::new();
    let mut incidents: Vec<Incident> = Vec::new();
    journal::read(&state.join(FILE), |incident: Incident| {
        match known.get(&incident.id) {
            Some(&index) => incidents[index] = incident,
            None => {
                known.insert(incident.id, incidents.len());
                incidents.push(incident);
            }
        }
    })?;
    Ok(incidents)
}
