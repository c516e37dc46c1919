//! A file or standard output, with a thread and a queue of its own: one that is slow makes nobody else wait.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::Writer;
use super::file::LogFile;
use crate::config::Filter;
use crate::counters::SinkState;
use crate::event::Event;
use crate::queue::{self, Receiver, Sender};

/// Most events that may wait.
const EVENTS: usize = 8192;
/// Most bytes of them.
const BYTES: usize = 32 << 20;

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Local {
    File(LogFile),
    Stdout,
}

impl Local {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(line),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line)?;
                out.write_all(b"\n")?;
                out.flush()
            }
        }
    }
}

/// The sink, from the side of who has events for it.
#[derive(Debug)]
pub(crate) struct LocalSink {
    pub(crate) filter: Filter,
    pub(crate) state: Arc<SinkState>,
    queue: Sender<Arc<Event>>,
}

impl LocalSink {
    pub(crate) fn start(
        local: Local,
        filter: Filter,
        writer: Writer,
        state: Arc<SinkState>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (queue, events) = queue::bounded(EVENTS, BYTES);
        let counted = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name(format!("clew-log-{}", state.name()))
            .spawn(move || write_all(local, &writer, &events, &counted))?;
        let sink = Self {
            filter,
            state,
            queue,
        };
        Ok((sink, thread))
    }

    /// Takes an event of so many bytes, without waiting.
    pub(crate) fn offer(&self, event: &Arc<Event>, bytes: usize) {
        if !self.filter.passes(event) {
            return;
        }
        // Before the other thread can have written it.
        self.state.wait_more(bytes);
        if !self.queue.offer(Arc::clone(event), bytes) {
            self.state.wait_less(bytes);
            self.state.drop_events(1, "it is too slow");
        }
    }
}

fn write_all(mut local: Local, writer: &Writer, events: &Receiver<Arc<Event>>, state: &SinkState) {
    while let Ok((event, bytes)) = events.take() {
        let line = writer.line(Arc::unwrap_or_clone(event));
        match local.write(&line) {
            Ok(()) => state.delivered(1),
            Err(error) => state.drop_events(1, &error.to_string()),
        }
        state.wait_less(bytes);
    }
}
