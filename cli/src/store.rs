//! Incidents on disk: JSON lines, one a record, later records of an incident replacing earlier.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

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
