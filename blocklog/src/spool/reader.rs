//! A sink's side of the spool.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::segment::Records;

/// Reads on from the sink's place.
#[derive(Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    index: usize,
    /// Number of the next record to be read.
    next: u64,
    /// The segment being read: the number of its first record, and the number of the record that comes next in it.
    open: Option<(u64, u64, Records)>,
}

/// Records that follow one another.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Their bytes, in order.
    pub(crate) payloads: Vec<Vec<u8>>,
    /// Records before them, or between them, that are not there any more.
    pub(crate) missed: u64,
}

impl Reader {
    /// The reader of the sink that is the `index`th of those the spool was opened for.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let next = shared.state().cursors.get(index).map_or(1, |it| it.next);
        Self {
            shared,
            index,
            next,
            open: None,
        }
    }

    /// Waits for at most `timeout`, then takes what is there: at most `events`, and about `bytes`. None: nothing is
    /// there, and nothing will come any more.
    pub(crate) fn batch(
        &mut self,
        events: usize,
        bytes: usize,
        timeout: Duration,
    ) -> Option<Batch> {
        if !self.shared.wait_for(self.next, timeout) && self.shared.is_closed() {
            return None;
        }
        let mut batch = Batch::default();
        let mut taken = 0;
        while batch.payloads.len() < events && taken < bytes && self.is_there(&mut batch) {
            // A record that could not be written whole was cut off and written anew: what was read ahead of it is
            // stale.
            let record = self.record().or_else(|| {
                self.open = None;
                self.record()
            });
            if let Some(payload) = record {
                taken += payload.len();
                batch.payloads.push(payload);
            } else {
                self.skip_segment(&mut batch);
            }
        }
        Some(batch)
    }

    /// Whether there is a record to be read. What was dropped is passed over.
    fn is_there(&mut self, batch: &mut Batch) -> bool {
        let state = self.shared.state();
        let first = state.first();
        if self.next < first {
            batch.missed += first - self.next;
            self.next = first;
        }
        self.next < state.next
    }

    fn record(&mut self) -> Option<Vec<u8>> {
        loop {
            let segment = self.shared.state().segment_of(self.next)?.first;
            if self
                .open
                .as_ref()
                .is_none_or(|(first, ..)| *first != segment)
            {
                let directory = &self.shared.directory;
                let records = Records::open(directory, segment).ok()?;
                self.open = Some((segment, segment, records));
            }
            let (_, number, records) = self.open.as_mut()?;
            let record = records.next().filter(|it| it.number == *number)?;
            *number += 1;
            if record.number == self.next {
                self.next += 1;
                return Some(record.payload);
            }
        }
    }

    /// The rest of a segment cannot be read.
    fn skip_segment(&mut self, batch: &mut Batch) {
        let state = self.shared.state();
        let after = state.segments.iter().find(|it| it.first > self.next);
        let after = after.map_or(state.next, |it| it.first);
        batch.missed += after - self.next;
        self.next = after;
        drop(state);
        self.open = None;
    }

    /// All that was read has been taken, and need not be kept for this sink.
    pub(crate) fn taken(&mut self) {
        let mut state = self.shared.state();
        let Some(cursor) = state.cursors.get_mut(self.index) else {
            return;
        };
        cursor.next = self.next;
        if let Some((segment, _, records)) = &self.open {
            (cursor.segment, cursor.offset) = (*segment, records.offset);
        }
        if let Err(error) = cursor.save(&self.shared.directory) {
            tracing::debug!(%error, "the place of a log sink is not written down: some events may come twice");
        }
        state.drop_read(&self.shared.directory);
    }
}
