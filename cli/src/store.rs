//! Incidents on disk: JSON lines, one a record, later records of an incident replacing earlier.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use clew_protocol::IncidentId;
use clew_protocol::incident::Incident;

const FILE: &str = "incidents.jsonl";
/// The file is set aside at this size; with the one before it, twice as much is kept.
const LIMIT_BYTES: u64 = 64 << 20;

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Store {
    pub(crate) fn open(state: &Path) -> Result<Self> {
        let path = state.join(FILE);
        let file = append(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    pub(crate) fn write(&mut self, incident: &Incident) -> Result<()> {
        let mut line = serde_json::to_vec(incident)?;
        line.push(b'\n');
        if self.bytes + line.len() as u64 > LIMIT_BYTES {
            std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
            self.file = append(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
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
}

impl Writer {
    pub(crate) fn start(store: Store) -> Result<Self> {
        let (queue, incidents) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("clew-incidents".to_owned());
        Ok(Self {
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
        if let Err(error) = store.write(&incident) {
            let error = format!("{error:#}");
            tracing::error!(incident = %incident.id, error, "incident not written");
        }
    }
}

fn append(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// All incidents, oldest first, each in its last revision.
pub(crate) fn read(state: &Path) -> Result<Vec<Incident>> {
    let path = state.join(FILE);
    let mut known: HashMap<IncidentId, usize> = HashMap::new();
    let mut incidents: Vec<Incident> = Vec::new();
    for path in [path.with_extension("jsonl.1"), path.clone()] {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        for line in BufReader::new(file).lines() {
            // A line cut short by a crash is not worth losing the others for.
            let Ok(incident) = serde_json::from_str::<Incident>(&line?) else {
                continue;
            };
            match known.get(&incident.id) {
                Some(&index) => incidents[index] = incident,
                None => {
                    known.insert(incident.id, incidents.len());
                    incidents.push(incident);
                }
            }
        }
    }
    Ok(incidents)
}
