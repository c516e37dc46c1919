//! Once a second: the kernel is told that somebody is here, what was lost is said aloud, and what
//! the correlator may have missed of the proxy is made up for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use clew_correlator::{Correlator, Input};
use clew_protocol::request::{InFlight, ProxyRecord};
use clew_protocol::verdict::Action;
use clew_protocol::{Moment, Sequence};
use clew_proxy::Handle;
use clew_sensor::Sensor;
use serde::Serialize;

/// How often the kernel is told that somebody is here.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Heartbeats between two lists of all that is in flight, when no record was lost.
const LIST: u32 = 10;

/// What the kernel side has counted by the last beat.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Sums {
    pub(crate) sensor: clew_sensor::Counters,
    pub(crate) correlator: clew_correlator::Counters,
}

/// A beat: what it has counted, and when.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pulse {
    pub(crate) at: Moment,
    pub(crate) sums: Sums,
    /// Most records of the proxy that were found waiting at one look, since the beat before.
    pub(crate) queued_records: usize,
}

/// The latest of them; none yet before the first beat, nor where there is no sensor.
pub(crate) type Latest = Arc<Mutex<Option<Pulse>>>;

/// What has been seen, beat by beat.
pub(crate) struct Beat {
    latest: Latest,
    last: Moment,
    /// The next attempt's sequence at the last beat.
    next: Sequence,
    until_list: u32,
    lost_records: u64,
    lost_inputs: u64,
    queued_records: usize,
    told: Vec<(&'static str, u64)>,
}

impl Beat {
    pub(crate) fn new(latest: Latest) -> Self {
        Self {
            latest,
            last: Moment(0),
            next: Sequence(0),
            until_list: LIST,
            lost_records: 0,
            lost_inputs: 0,
            queued_records: 0,
            told: Vec::new(),
        }
    }

    /// So many records of the proxy were waiting.
    pub(crate) fn note_queue(&mut self, records: usize) {
        self.queued_records = self.queued_records.max(records);
    }

    /// Whether a beat is due.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        now.since(self.last) >= HEARTBEAT
    }

    /// # Errors
    ///
    /// The kernel cannot be told.
    pub(crate) fn beat(
        &mut self,
        now: Moment,
        handle: &Handle,
        sensor: &mut Sensor,
        correlator: &mut Correlator,
        actions: &mut Vec<Action>,
    ) -> Result<()> {
        self.last = now;
        sensor.heartbeat()?;
        if let Some(list) = self.list(now, handle) {
            sensor.in_flight(&list)?;
            correlator.handle(Input::Proxy(ProxyRecord::InFlight(list)), actions);
        }
        self.tell(handle, sensor, correlator);
        let sums = Sums {
            sensor: sensor.counters(),
            correlator: correlator.counters(),
        };
        let pulse = Pulse {
            at: now,
            sums,
            queued_records: std::mem::take(&mut self.queued_records),
        };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(pulse);
        Ok(())
    }

    /// All that is in flight, when it is time or a record was lost.
    fn list(&mut self, now: Moment, handle: &Handle) -> Option<InFlight> {
        let counters = handle.counters();
        let inputs_lost = counters.lost_inputs > self.lost_inputs;
        let lost = inputs_lost || counters.lost_records > self.lost_records;
        (self.lost_records, self.lost_inputs) = (counters.lost_records, counters.lost_inputs);
        let below = std::mem::replace(&mut self.next, handle.next_attempt());
        self.until_list -= 1;
        if !lost && self.until_list > 0 {
            return None;
        }
        self.until_list = LIST;
        Some(InFlight {
            at: now,
            below,
            open: handle.attempts().into(),
            inputs_lost,
        })
    }

    /// Warns of each kind of loss when it has grown: protection goes on, knowing less.
    fn tell(&mut self, handle: &Handle, sensor: &Sensor, correlator: &Correlator) {
        let sums = losses(handle, sensor, correlator);
        for (nth, &(what, total)) in sums.iter().enumerate() {
            let before = self.told.get(nth).map_or(0, |&(_, before)| before);
            if total > before {
                tracing::warn!(what, new = total - before, total, "degraded");
            }
        }
        self.told = sums;
    }
}

/// Everything that is counted because it should not happen.
fn losses(handle: &Handle, sensor: &Sensor, correlator: &Correlator) -> Vec<(&'static str, u64)> {
    let (edge, kernel) = (handle.counters(), sensor.counters());
    vec![
        (
            "lines of this log lost: nobody reads it fast enough",
            crate::log::lost(),
        ),
        (
            "request records lost: the correlator's queue was full",
            edge.lost_records,
        ),
        (
            "request inputs lost: the correlator's queue was full",
            edge.lost_inputs,
        ),
        (
            "requests of which nobody can tell who read them",
            kernel.lost_reads,
        ),
        (
            "program starts not reported: the ring buffer was full",
            kernel.lost_exec,
        ),
        (
            "connections not reported: the ring buffer was full",
            kernel.lost_connect,
        ),
        (
            "files not reported: the ring buffer was full",
            kernel.lost_file,
        ),
        (
            "requests not followed: too many unread on one connection",
            kernel.queue_full,
        ),
        (
            "requests not followed: no memory in the kernel",
            kernel.no_storage,
        ),
        (
            "responses that went on without a verdict: it took too long",
            edge.unjudged_responses,
        ),
        (
            "requests forgotten before their time",
            correlator.counters().evicted,
        ),
    ]
}
