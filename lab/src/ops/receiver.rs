//! A webhook's receiver that is not always well.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::events::Event;

/// Most bytes of a body: a batch of events.
const BODY_BYTES: usize = 16 << 20;
/// How long a connection may say nothing before its thread looks whether it is to end.
const TURN: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// Takes events, and says 503.
    is_busy: AtomicBool,
    /// How often it did.
    busy: AtomicU64,
    /// By id, and how often each came with an answer of 200.
    taken: Mutex<HashMap<String, (Event, u64)>>,
    open: Mutex<Vec<TcpStream>>,
}

/// It listens, or is down, at one address.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<Listening>,
}

struct Listening {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Receiver {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut receiver = Self {
            address: listener.local_addr()?,
            shared: Arc::default(),
            listening: None,
        };
        receiver.listen(listener);
        Ok(receiver)
    }

    /// `[[log]]` of a clew that tells it everything.
    pub(super) fn sink(&self) -> String {
        format!(
            "[[log]]\nsink = \"webhook\"\nurl = \"http://{}/events\"\nretry_seconds = 1\n\
             timeout_seconds = 5\nbatch_events = 64\n",
            self.address
        )
    }

    /// Nobody listens, and connections are reset.
    pub(super) fn down(&mut self) {
        let Some(listening) = self.listening.take() else {
            return;
        };
        listening.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        let _ = listening.thread.join();
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn up(&mut self) -> Result<()> {
        if self.listening.is_none() {
            let listener = super::site::bind_again(self.address)?;
            self.listen(listener);
        }
        Ok(())
    }

    /// Answers 503 to whatever comes, or stops that.
    pub(super) fn busy(&self, is_busy: bool) {
        self.shared.is_busy.store(is_busy, Ordering::Release);
    }

    /// How often it said 503.
    pub(super) fn refusals(&self) -> u64 {
        self.shared.busy.load(Ordering::Relaxed)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        lock(&self.shared.taken).contains_key(id)
    }

    /// Different events.
    pub(super) fn count(&self) -> usize {
        lock(&self.shared.taken).len()
    }

    /// Each once, and how many came again.
    pub(super) fn taken(&self) -> (Vec<Event>, u64) {
        let taken = lock(&self.shared.taken);
        let repeats = taken.values().map(|(_, times)| times - 1).sum();
        (
            taken.values().map(|(event, _)| event.clone()).collect(),
            repeats,
        )
    }

    fn listen(&mut self, listener: TcpListener) {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&self.shared));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(clone) = stream.try_clone() {
                    lock(&shared.open).push(clone);
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || while_well(stream, &shared));
            }
        });
        self.listening = Some(Listening { stop, thread });
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.down();
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a connection until it ends.
fn while_well(stream: TcpStream, shared: &Shared) {
    let _ = stream.set_read_timeout(Some(TURN * 50));
    let mut reader = BufReader::new(stream);
    while !shared.is_over.load(Ordering::Acquire) {
        let Ok(body) = read(&mut reader) else {
            return;
        };
        let status = take(&body, shared);
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
        if reader.get_mut().write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

/// What it is answered. What it cannot read is not taken.
fn take(body: &str, shared: &Shared) -> u16 {
    if shared.is_busy.load(Ordering::Acquire) {
        shared.busy.fetch_add(1, Ordering::Relaxed);
        return 503;
    }
    let Ok(events) = body.lines().map(Event::parse).collect::<Result<Vec<_>>>() else {
        return 503;
    };
    let mut taken = lock(&shared.taken);
    for event in events {
        let entry = taken.entry(event.id.clone()).or_insert((event, 0));
        entry.1 += 1;
    }
    200
}

fn read(reader: &mut impl BufRead) -> Result<String> {
    let mut length = None;
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "the end");
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    let length = length.context("no content-length")?;
    ensure!(length <= BODY_BYTES, "a body of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}
