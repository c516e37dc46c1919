//! Clew's own log, on standard error.

use std::io::{IsTerminal, Stderr, Write};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait for whoever reads the log; more are lost, and counted.
const LINES: usize = 16_384;

static QUEUE: OnceLock<NonBlocking> = OnceLock::new();

/// Begins to log what `CLEW_LOG` asks for, as text or JSON lines.
pub(crate) fn open(json: bool) {
    let filter = EnvFilter::try_from_env("CLEW_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,pingora_proxy=off,pingora_core=error"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    if json {
        log.json().init();
    } else {
        log.with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
    }
}

/// From now on a thread writes the log: neither requests nor verdicts wait for who reads it.
///
/// What is in the queue is written when the guard goes.
pub(crate) fn queue() -> Option<WorkerGuard> {
    let builder = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .lossy(true)
        .thread_name("clew-log");
    let (queue, guard) = builder.finish(std::io::stderr());
    QUEUE.set(queue).is_ok().then_some(guard)
}

/// Lines that found no room.
pub(crate) fn lost() -> u64 {
    QUEUE
        .get()
        .map_or(0, |it| it.error_counter().dropped_lines() as u64)
}

fn writer() -> Writer {
    match QUEUE.get() {
        Some(queue) => Writer::Queue(queue.clone()),
        None => Writer::Direct(std::io::stderr()),
    }
}

enum Writer {
    Direct(Stderr),
    Queue(NonBlocking),
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Direct(stderr) => stderr.write(line),
            Self::Queue(queue) => queue.write(line),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Direct(stderr) => stderr.flush(),
            Self::Queue(queue) => queue.flush(),
        }
    }
}
