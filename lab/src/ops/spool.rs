//! What the block log has accepted: the events in its spool, read while clew writes them.
//!
//! An event is accepted when it is in a segment's file, whole (`blocklog/src/spool/segment.rs`): from then on the end
//! of the process does not lose it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// Of a segment, before its first record; and of a record, before what it holds.
const START: usize = 8;
const HEAD: usize = 16;

/// Watches a spool until it is stopped.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<HashMap<String, String>>>,
}

impl Watch {
    pub(super) fn start(directory: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut segments = Segments::default();
            loop {
                // What was written before it was stopped is looked at, too.
                let is_last = stopped.load(Ordering::Acquire);
                segments.look(&directory)?;
                if is_last {
                    return Ok(segments.events);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Self { stop, thread }
    }

    /// The events that were in it at any time: ids, and targets of their requests.
    pub(super) fn stop(self) -> Result<HashMap<String, String>> {
        self.stop.store(true, Ordering::Release);
        self.thread
            .join()
            .map_err(|_| anyhow!("the watch panicked"))?
    }
}

/// Segments as far as they are read; an open one can be read to its end when its name has gone.
#[derive(Default)]
struct Segments {
    open: HashMap<PathBuf, (File, Vec<u8>)>,
    events: HashMap<String, String>,
}

impl Segments {
    fn look(&mut self, directory: &Path) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return Ok(());
        };
        for path in entries.flatten().map(|it| it.path()) {
            let is_segment = path.extension().is_some_and(|it| it == "seg");
            if is_segment
                && !self.open.contains_key(&path)
                && let Ok(file) = File::open(&path)
            {
                self.open.insert(path, (file, Vec::new()));
            }
        }
        for (path, (file, rest)) in &mut self.open {
            let is_new = rest.is_empty() && std::io::Seek::stream_position(file)? == 0;
            file.read_to_end(rest)?;
            if is_new {
                if rest.len() < START {
                    std::io::Seek::rewind(file)?;
                    rest.clear();
                    continue;
                }
                rest.drain(..START);
            }
            take(rest, &mut self.events).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Takes whole records off the front.
fn take(bytes: &mut Vec<u8>, events: &mut HashMap<String, String>) -> Result<()> {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEAD) {
        let length = u32::from_le_bytes(head[..4].try_into()?) as usize;
        let Some(payload) = bytes.get(at + HEAD..at + HEAD + length) else {
            break;
        };
        let event: Value = serde_json::from_slice(payload)?;
        let text = |path: &str| event.pointer(path).and_then(Value::as_str);
        let id = text("/id").context("a record without an id")?;
        let target = text("/report/target").unwrap_or_default();
        events.insert(id.to_owned(), target.to_owned());
        at += HEAD + length;
    }
    bytes.drain(..at);
    Ok(())
}
