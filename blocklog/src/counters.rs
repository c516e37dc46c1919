//! What became of events, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a sink's losses are said.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Everything, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Reports and incidents that were handed over and found no room, or nobody to take them.
    pub refused: u64,
    /// Bytes that were handed over and are not events yet, about.
    pub queue_bytes: u64,
    /// Events that were made.
    pub events: u64,
    /// The spool; none where there is no network sink.
    pub spool: Option<SpoolCounters>,
    /// The sinks, as configured.
    pub sinks: Vec<SinkCounters>,
}

/// The spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolCounters {
    /// Events that were ever written to it.
    pub written: u64,
    /// Of these, how many a loss of power would have left: those before it. A crash of the process leaves all.
    pub durable: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Events that could not be written, since start.
    pub dropped: u64,
}

/// One sink, since start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkCounters {
    /// Its name.
    pub name: String,
    /// Events it has: written, or taken by the receiver.
    pub sent: u64,
    /// Events that the receiver will never take.
    pub refused: u64,
    /// Attempts that were made again.
    pub retried: u64,
    /// Events that were given up: for want of room, or because they could not be read or written. Of a spool that was
    /// too full, all that went, whether they were for this sink or not.
    pub dropped: u64,
    /// Events that wait, of a network sink with those that its filter will not let pass.
    pub waiting_events: u64,
    /// Bytes of them, about.
    pub waiting_bytes: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// The counters of one sink, as its threads keep them.
#[derive(Debug)]
pub(crate) struct SinkState {
    name: String,
    sent: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    dropped: AtomicU64,
    waiting_events: AtomicU64,
    waiting_bytes: AtomicU64,
    spoken: Mutex<Spoken>,
}

#[derive(Debug, Default)]
struct Spoken {
    last_error: Option<String>,
    /// It does not work at present, and that has been said.
    is_down: bool,
    /// When losses were last said.
    losses: Option<Instant>,
}

impl SinkState {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            waiting_events: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            spoken: Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn wait_more(&self, bytes: usize) {
        self.waiting_events.fetch_add(1, Ordering::Relaxed);
        self.waiting_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn wait_less(&self, bytes: usize) {
        self.waiting_events.fetch_sub(1, Ordering::Relaxed);
        self.waiting_bytes
            .fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// It has taken so many events: it works.
    pub(crate) fn delivered(&self, events: u64) {
        self.sent.fetch_add(events, Ordering::Relaxed);
        if std::mem::take(&mut self.spoken().is_down) {
            tracing::info!(sink = self.name, "the log sink works again");
        }
    }

    /// An attempt failed, and will be made again.
    pub(crate) fn failed(&self, problem: &str) {
        self.retried.fetch_add(1, Ordering::Relaxed);
        let mut spoken = self.spoken();
        spoken.last_error = Some(problem.to_owned());
        if !std::mem::replace(&mut spoken.is_down, true) {
            tracing::warn!(
                sink = self.name,
                problem,
                "the log sink does not take events; they wait"
            );
        }
    }

    /// The receiver will never take this event.
    pub(crate) fn refuse(&self, id: &str, problem: &str) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        self.lose(refused, problem, |refused| {
            tracing::error!(
                sink = self.name,
                event = id,
                refused,
                problem,
                "the log sink refuses events"
            );
        });
    }

    /// So many events are given up.
    pub(crate) fn drop_events(&self, events: u64, problem: &str) {
        let dropped = self.dropped.fetch_add(events, Ordering::Relaxed) + events;
        self.lose(dropped, problem, |dropped| {
            tracing::error!(sink = self.name, dropped, problem, "log events are dropped");
        });
    }

    fn lose(&self, total: u64, problem: &str, say: impl FnOnce(u64)) {
        let mut spoken = self.spoken();
        spoken.last_error = Some(problem.to_owned());
        let is_due = spoken.losses.is_none_or(|at| at.elapsed() >= SAID_EVERY);
        if is_due {
            spoken.losses = Some(Instant::now());
            drop(spoken);
            say(total);
        }
    }

    fn spoken(&self) -> std::sync::MutexGuard<'_, Spoken> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> SinkCounters {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SinkCounters {
            name: self.name.clone(),
            sent: count(&self.sent),
            refused: count(&self.refused),
            retried: count(&self.retried),
            dropped: count(&self.dropped),
            waiting_events: count(&self.waiting_events),
            waiting_bytes: count(&self.waiting_bytes),
            last_error: self.spoken().last_error.clone(),
        }
    }
}
