//! The block log as its users see it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clew_protocol::incident::Incident;
use clew_protocol::report::Report;

use crate::config::Config;
use crate::counters::{Counters, SpoolCounters};
use crate::error::StartError;
use crate::opened::Opened;
use crate::queue::Sender;
use crate::sink::courier::Curfew;
use crate::teller::{Counted, Message};

/// The handle: cheap to clone. When the last one goes, what is in the queue is written; [`BlockLog::finish`] also waits
/// for it.
#[derive(Debug, Clone)]
pub struct BlockLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None once it is finished.
    queue: Mutex<Option<Arc<Sender<Message>>>>,
    refused: AtomicU64,
    counted: Arc<Counted>,
    curfew: Arc<Curfew>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl BlockLog {
    /// The handle of threads that run.
    pub(crate) fn new(
        queue: Sender<Message>,
        counted: Arc<Counted>,
        curfew: Arc<Curfew>,
        threads: Vec<JoinHandle<()>>,
    ) -> Self {
        let shared = Shared {
            queue: Mutex::new(Some(Arc::new(queue))),
            refused: AtomicU64::new(0),
            counted,
            curfew,
            threads: Mutex::new(threads),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Opens files and the spool, and reads secrets and certificates.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn open(config: Config) -> Result<Opened, StartError> {
        Opened::open(&config)
    }

    /// [`BlockLog::open`] and [`Opened::start`], for who has no rights to give up between.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::open(config)?.start()
    }

    /// Hands over what the edge says of a request. Never waits: where there is no room it is counted as refused.
    pub fn report(&self, report: Report) {
        self.offer(Message::Report(Box::new(report)));
    }

    /// Hands over a revision of an incident. Never waits.
    pub fn incident(&self, incident: Incident) {
        self.offer(Message::Incident(Box::new(incident)));
    }

    fn offer(&self, message: Message) {
        let bytes = message.bytes();
        let queue = self.shared.queue();
        if !queue.is_some_and(|it| it.offer(message, bytes)) {
            let refused = self.shared.refused.fetch_add(1, Ordering::Relaxed) + 1;
            // Said at 1, 2, 4, 8, ...
            if refused.is_power_of_two() {
                tracing::error!(
                    refused,
                    "the block log is too slow, or has ended: events are lost"
                );
            }
        }
    }

    /// What became of everything so far.
    pub fn counters(&self) -> Counters {
        let counted = &self.shared.counted;
        let spool = counted.spool.as_ref().map(|spool| {
            let (written, bytes, durable) = spool.totals();
            SpoolCounters {
                written,
                durable,
                bytes,
                dropped: counted.spool_dropped.load(Ordering::Relaxed),
            }
        });
        let sinks = counted.sinks.iter().map(|(state, reader)| {
            let mut counters = state.read();
            if let (Some(spool), Some(reader)) = (&counted.spool, reader) {
                (counters.waiting_events, counters.waiting_bytes) = spool.waiting(*reader);
            }
            counters
        });
        Counters {
            refused: self.shared.refused.load(Ordering::Relaxed),
            queue_bytes: self.shared.queue().map_or(0, |it| it.bytes() as u64),
            events: counted.events.load(Ordering::Relaxed),
            spool,
            sinks: sinks.collect(),
        }
    }

    /// Writes and sends what there is, for at most `deadline`. What a network sink has not taken by then waits on disk
    /// for the next start. What is handed over from now on, by any handle, is refused.
    pub fn finish(&self, deadline: Duration) -> Counters {
        let end = Instant::now() + deadline;
        self.shared.curfew.set(end);
        drop(self.shared.take_queue());
        let mut threads = self
            .shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // One that does not end in time (a pipe that nobody reads) is left to itself.
            while !thread.is_finished() && Instant::now() < end + Duration::from_millis(100) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("a thread of the block log panicked");
            }
        }
        drop(threads);
        self.counters()
    }
}

impl Shared {
    fn queue(&self) -> Option<Arc<Sender<Message>>> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn take_queue(&self) -> Option<Arc<Sender<Message>>> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Without [`BlockLog::finish`] nobody waits: what is not sent at once waits on disk.
impl Drop for Shared {
    fn drop(&mut self) {
        self.curfew.set(Instant::now());
    }
}
