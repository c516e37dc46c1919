//! What waits: events on disk until every network sink has them.
//!
//! ```text
//! DIRECTORY/lock                        one process at a time
//!           00000000000000000001.seg    records 1, 2, ... in order
//!           00000000000000000734.seg    the last one is written to
//!           NAME.next                   the record that the sink NAME is to get next
//! ```
//!
//! **Kept.** A record is in the kernel's hands when [`Spool::append`] returns: killing the process (kill -9) loses
//! none. [`Spool::sync`] makes durable what is there; a loss of power takes at most what came since, and nothing below
//! [`State::durable`]. A sink's place is written after its events have been taken, without a sync of its own:
//! after a loss of power some are sent again, and none is left out.
//!
//! **Dropped.** Beyond its size the oldest segment goes, read or not; where the disk is full, or cannot be written, the
//! new record. Both are counted.
//!
//! **Recovered.** The last segment is cut where its first broken record begins. In an older one a broken record, and
//! what comes after it, is skipped and counted.

mod cursor;
mod reader;
mod segment;

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cursor::Cursor;
pub(crate) use reader::{Batch, Reader};
use rustix::fs::{FlockOperation, flock};
use segment::Segment;

/// Segments that a spool of full size has: what is dropped at once is so much of it.
const SEGMENTS: u64 = 16;
/// Most bytes of a segment.
const SEGMENT_BYTES: u64 = 16 << 20;

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Something of it cannot be read or written.
    #[error(
        "cannot use the spool's {path}: {error}; make it a directory that this account may write"
    )]
    Io {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not a directory of its own.
    #[error(
        "{0} is not the spool's; set log_spool.directory to a directory with nothing else in it"
    )]
    Foreign(PathBuf),
    /// Another process has it.
    #[error(
        "the spool {0} is in use by another process; set log_spool.directory to one of its own"
    )]
    InUse(PathBuf),
}

/// The writer's side. There is one, of one thread.
#[derive(Debug)]
pub(crate) struct Spool {
    shared: Arc<Shared>,
    segment_bytes: u64,
    limit_bytes: u64,
    /// None after the disk was full: the next record tries again.
    open: Option<Segment>,
    /// Locked while it is open.
    _lock: File,
}

/// What writer and readers have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    directory: PathBuf,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State {
    /// Oldest first. The last may be the one that is written to.
    segments: VecDeque<Stored>,
    /// Number of the next record. Records below it are whole.
    next: u64,
    /// Records below it survive a loss of power.
    durable: u64,
    cursors: Vec<Cursor>,
    /// Nothing will come any more.
    closed: bool,
}

/// A segment, as the readers see it.
#[derive(Debug, Clone, Copy)]
struct Stored {
    /// Number of its first record.
    first: u64,
    bytes: u64,
}

impl Spool {
    /// Opens, or makes, the spool in `directory`; `readers` are the names of the sinks, whose places it looks up.
    ///
    /// # Errors
    /// [`SpoolError`]
    pub(crate) fn open(
        directory: &Path,
        limit_bytes: u64,
        readers: &[&str],
    ) -> Result<Self, SpoolError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |error| SpoolError::Io { path, error }
        };
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(directory);
        made.map_err(fail(directory))?;
        refuse_foreign(directory)?;
        let lock = lock(directory)?;
        let segments = segment::list(directory).map_err(fail(directory))?;
        let (open, next) = segment::recover(directory, &segments).map_err(fail(directory))?;
        let first = segments.front().map_or(next, |it| it.first);
        let cursors = cursor::load(directory, readers, first, next).map_err(fail(directory))?;
        let state = State {
            segments: segment::list(directory).map_err(fail(directory))?,
            next,
            durable: next,
            cursors,
            closed: false,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                directory: directory.to_owned(),
                state: Mutex::new(state),
                arrived: Condvar::new(),
            }),
            segment_bytes: (limit_bytes / SEGMENTS).min(SEGMENT_BYTES),
            limit_bytes,
            open,
            _lock: lock,
        })
    }

    /// What readers are made of.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it could not be written. Nothing of it is left, and the next one may be.
    pub(crate) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let next = self.shared.state().next;
        let is_full = |it: &Segment| it.bytes() >= self.segment_bytes;
        if self.open.as_ref().is_none_or(is_full) {
            self.begin_segment(next)?;
        }
        let Some(segment) = &mut self.open else {
            return Ok(());
        };
        if let Err(error) = segment.append(next, payload) {
            if segment.is_broken() {
                segment.sync()?;
                self.open = None;
            }
            return Err(error);
        }
        let bytes = segment.bytes();
        let mut state = self.shared.state();
        if let Some(last) = state.segments.back_mut() {
            last.bytes = bytes;
        }
        state.next = next + 1;
        self.shared.arrived.notify_all();
        state.drop_beyond(self.limit_bytes, &self.shared.directory);
        Ok(())
    }

    fn begin_segment(&mut self, next: u64) -> io::Result<()> {
        self.sync()?;
        // What could not be cut off a broken segment is not read: the next begins with this number.
        let segment = Segment::create(&self.shared.directory, next)?;
        let mut state = self.shared.state();
        state.segments.retain(|it| it.first != next);
        state.segments.push_back(Stored {
            first: next,
            bytes: segment.bytes(),
        });
        drop(state);
        self.open = Some(segment);
        Ok(())
    }

    /// Makes all records durable.
    ///
    /// # Errors
    /// When the disk does not say so; what is [`State::durable`] stays.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let next = self.shared.state().next;
        if self.shared.state().durable == next {
            return Ok(());
        }
        if let Some(segment) = &self.open {
            segment.sync()?;
        }
        self.shared.state().durable = next;
        Ok(())
    }

    /// Whether there is something to make durable.
    pub(crate) fn is_dirty(&self) -> bool {
        let state = self.shared.state();
        state.durable < state.next
    }

    /// Readers that have read all are told so, and wait no more.
    pub(crate) fn close(&self) {
        self.shared.state().closed = true;
        self.shared.arrived.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is under the lock is whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events and bytes of records that the reader `index` has not taken.
    pub(crate) fn waiting(&self, index: usize) -> (u64, u64) {
        let state = self.state();
        let Some(cursor) = state.cursors.get(index) else {
            return (0, 0);
        };
        let first = state.first().max(cursor.next);
        let later = |it: &&Stored| it.first > cursor.segment;
        let bytes: u64 = state.segments.iter().filter(later).map(|it| it.bytes).sum();
        let current = state.segments.iter().find(|it| it.first == cursor.segment);
        let rest = current.map_or(0, |it| it.bytes.saturating_sub(cursor.offset));
        match state.next - first.min(state.next) {
            0 => (0, 0),
            events => (events, bytes + rest),
        }
    }

    /// Records that were written, the bytes they take, and how many of them survive a loss of power; since the
    /// spool was made.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        let state = self.state();
        let bytes = state.segments.iter().map(|it| it.bytes).sum();
        (state.next - 1, bytes, state.durable - 1)
    }

    /// Waits until there is a record `number`, nothing comes any more, or the time is up; whether there is one.
    fn wait_for(&self, number: u64, timeout: Duration) -> bool {
        let state = self.state();
        let is_not = |state: &mut State| state.next <= number && !state.closed;
        let waited = self.arrived.wait_timeout_while(state, timeout, is_not);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.next > number
    }

    /// Nothing comes any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }
}

impl State {
    /// Number of the oldest record that is kept.
    fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |it| it.first)
    }

    /// The segment that record `number` is in.
    fn segment_of(&self, number: u64) -> Option<Stored> {
        let place = self.segments.partition_point(|it| it.first <= number);
        self.segments.get(place.checked_sub(1)?).copied()
    }

    /// Drops segments from the oldest on until the rest is within `limit_bytes`; the last one stays.
    fn drop_beyond(&mut self, limit_bytes: u64, directory: &Path) {
        let mut bytes: u64 = self.segments.iter().map(|it| it.bytes).sum();
        while bytes > limit_bytes && self.segments.len() > 1 {
            let Some(oldest) = self.segments.pop_front() else {
                break;
            };
            bytes -= oldest.bytes;
            segment::remove(directory, oldest.first);
        }
    }

    /// Removes the segments that every reader has done with.
    fn drop_read(&mut self, directory: &Path) {
        let read = self.cursors.iter().map(|it| it.next).min();
        let read = read.unwrap_or(self.next);
        while self.segments.get(1).is_some_and(|it| it.first <= read) {
            if let Some(oldest) = self.segments.pop_front() {
                segment::remove(directory, oldest.first);
            }
        }
    }
}

/// Names of this module are removed, and the directory is made over to an account: it must be the spool's own.
fn refuse_foreign(directory: &Path) -> Result<(), SpoolError> {
    let fail = |error| SpoolError::Io {
        path: directory.to_owned(),
        error,
    };
    if !std::fs::symlink_metadata(directory).map_err(fail)?.is_dir() {
        return Err(SpoolError::Foreign(directory.to_owned()));
    }
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        let is_ours = path.ends_with("lock") || matches!(extension, Some("seg" | "next" | "new"));
        if !is_ours {
            return Err(SpoolError::Foreign(path));
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, SpoolError> {
    let path = directory.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false);
    options.mode(0o600).custom_flags(segment::NO_LINK);
    let file = options.open(&path).map_err(|error| SpoolError::Io {
        path: path.clone(),
        error,
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::InUse(directory.to_owned())),
        Err(error) => Err(SpoolError::Io {
            path,
            error: error.into(),
        }),
    }
}

#[cfg(test)]
mod tests;
