//! Carries events from the spool to a network sink, until they are there.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Failure, Message, Transport};
use crate::config::Filter;
use crate::counters::SinkState;
use crate::event::Event;
use crate::spool::{Batch, Reader};

/// About so many bytes are sent at once.
const BATCH_BYTES: usize = 1 << 20;
/// How often it is looked whether it is time to stop.
const LOOK: Duration = Duration::from_millis(500);
/// The first pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// When all couriers are to stop, sent or not.
#[derive(Debug, Default)]
pub(crate) struct Curfew {
    at: Mutex<Option<Instant>>,
    changed: Condvar,
}

impl Curfew {
    pub(crate) fn set(&self, at: Instant) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| Instant::now() >= at)
    }

    /// Waits for `pause`, or until it is time to stop; whether it is.
    fn pause(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let until = at.map_or(end, |at| at.min(end));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return at.is_some_and(|at| Instant::now() >= at);
            }
            let waited = self.changed.wait_timeout(at, left);
            at = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One sink's carrier.
pub(crate) struct Courier {
    pub(crate) reader: Reader,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) filter: Filter,
    pub(crate) state: Arc<SinkState>,
    pub(crate) curfew: Arc<Curfew>,
    pub(crate) batch_events: usize,
    pub(crate) longest_pause: Duration,
}

/// It is time to stop, and something is not sent.
struct Stopped;

impl Courier {
    pub(crate) fn start(mut self) -> io::Result<JoinHandle<()>> {
        let name = format!("clew-log-{}", self.state.name());
        std::thread::Builder::new()
            .name(name)
            .spawn(move || self.carry_all())
    }

    fn carry_all(&mut self) {
        while !self.curfew.is_over() {
            let Some(batch) = self.reader.batch(self.batch_events, BATCH_BYTES, LOOK) else {
                return;
            };
            if batch.missed > 0 {
                let problem =
                    "they were dropped from the spool, which was full, or could not be read there";
                self.state.drop_events(batch.missed, problem);
            }
            let is_empty = batch.payloads.is_empty() && batch.missed == 0;
            let messages = self.messages(batch);
            if self.deliver(messages).is_err() {
                return;
            }
            if !is_empty {
                self.reader.taken();
            }
        }
    }

    fn messages(&self, batch: Batch) -> Vec<Message> {
        let mut messages = Vec::with_capacity(batch.payloads.len());
        for payload in batch.payloads {
            match serde_json::from_slice::<Event>(&payload) {
                Ok(event) if self.filter.passes(&event) => {
                    messages.push(self.transport.write(event));
                }
                Ok(_) => {}
                // Of another version of Clew.
                Err(error) => self.state.drop_events(1, &format!("not readable: {error}")),
            }
        }
        messages
    }

    /// Returns when each message has been taken, or refused for good.
    fn deliver(&mut self, mut messages: Vec<Message>) -> Result<(), Stopped> {
        let mut pause = FIRST_PAUSE;
        while !messages.is_empty() {
            let problem = match self.transport.send(&messages) {
                Ok(answer) if answer.again.is_empty() => {
                    self.count(&messages, &answer.refused, 0);
                    return Ok(());
                }
                Ok(answer) => {
                    self.count(&messages, &answer.refused, answer.again.len());
                    let mut again = answer.again.iter();
                    let problem = answer.again.first().map(|it| it.1.clone());
                    let mut next = again.next();
                    let mut place = 0;
                    messages.retain(|_| {
                        let stays = next.is_some_and(|it| it.0 == place);
                        if stays {
                            next = again.next();
                        }
                        place += 1;
                        stays
                    });
                    problem.unwrap_or_default()
                }
                Err(Failure::Content(problem)) => return self.divide(messages, &problem),
                Err(Failure::Later(problem)) => problem,
            };
            self.state.failed(&problem);
            // Senders that failed together do not come back together.
            if self
                .curfew
                .pause(pause.mul_f64(0.5 + fastrand::f64() / 2.0))
            {
                return Err(Stopped);
            }
            pause = (pause * 2).min(self.longest_pause);
        }
        Ok(())
    }

    fn count(&self, messages: &[Message], refused: &[(usize, String)], again: usize) {
        for (place, problem) in refused {
            if let Some(message) = messages.get(*place) {
                self.state.refuse(&message.id, problem);
            }
        }
        let taken = messages.len() - refused.len() - again;
        if taken > 0 {
            self.state.delivered(taken as u64);
        }
    }

    /// Finds the messages that are at fault: by halves, so that one among a thousand takes ten attempts more.
    fn divide(&mut self, mut messages: Vec<Message>, problem: &str) -> Result<(), Stopped> {
        if let [message] = &messages[..] {
            self.state.refuse(&message.id, problem);
            return Ok(());
        }
        let second = messages.split_off(messages.len() / 2);
        self.deliver(messages)?;
        self.deliver(second)
    }
}
