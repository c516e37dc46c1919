//! A queue that is bounded in entries and in bytes, and never makes who fills it wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvError, RecvTimeoutError};
use std::time::Duration;

/// The filling end.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    entries: mpsc::SyncSender<(T, usize)>,
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

/// The emptying end.
#[derive(Debug)]
pub(crate) struct Receiver<T> {
    entries: mpsc::Receiver<(T, usize)>,
    bytes: Arc<AtomicUsize>,
}

/// Room for so many entries, and about so many bytes.
pub(crate) fn bounded<T>(entries: usize, limit: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::sync_channel(entries);
    let bytes = Arc::new(AtomicUsize::new(0));
    let sender = Sender {
        entries: sender,
        bytes: Arc::clone(&bytes),
        limit,
    };
    let receiver = Receiver {
        entries: receiver,
        bytes,
    };
    (sender, receiver)
}

impl<T> Sender<T> {
    /// Whether there was room for an entry of so many bytes.
    pub(crate) fn offer(&self, entry: T, bytes: usize) -> bool {
        // Several may find the last room at once: the limit is passed by an entry each.
        if self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > self.limit {
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let taken = self.entries.try_send((entry, bytes)).is_ok();
        if !taken {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl<T> Receiver<T> {
    /// Waits for the next entry; its bytes are free again.
    pub(crate) fn take(&self) -> Result<(T, usize), RecvError> {
        let entry = self.entries.recv()?;
        self.bytes.fetch_sub(entry.1, Ordering::Relaxed);
        Ok(entry)
    }

    /// The same, for so long.
    pub(crate) fn take_within(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let (entry, bytes) = self.entries.recv_timeout(timeout)?;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(entry)
    }
}
