//! Clients that go on until they are told to stop: each keeps its connection, and takes a new one now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::client::connect_from;

/// Longest that a client waits for bytes: longer than one clew waits for another to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most bytes of a head.
const HEAD_BYTES: usize = 64 << 10;
/// Failures that are told in words.
const TOLD: usize = 8;
/// What a client waits after a failure, so that one that finds nobody does not spin.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A request, and what may be answered.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) host: &'static str,
    pub(super) target: String,
    pub(super) right: &'static [u16],
}

/// How they go about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) clients: u8,
    /// From one request of a client to its next; one that is late goes on at once. Zero: as fast as it is answered.
    pub(super) period: Duration,
    /// Requests on a connection; then it is closed, and the next one is new.
    pub(super) per_connection: u32,
    /// The answered targets of these statuses are noted. (None: [].)
    pub(super) noted: &'static [u16],
}

/// What they saw.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, or with another one than is right.
    pub(super) failed: u64,
    /// The first of them, in words.
    pub(super) failures: Vec<String>,
    pub(super) noted: BTreeSet<String>,
    pub(super) connections: u64,
    /// From the first byte sent (with a new connection: from when it was wanted) to the last received.
    pub(super) longest: Duration,
}

/// Clients at work; stopped by [`Load::stop`], or by drop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Each client has an address of its own, 127.0.`net`.1 and up. `script` makes the nth request of a client.
    pub(super) fn start(
        to: SocketAddr,
        net: u8,
        pace: Pace,
        script: impl Fn(u8, u32) -> Turn + Clone + Send + 'static,
    ) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (1..=pace.clients).map(|client| {
            let mut visitor = Visitor {
                source: Ipv4Addr::new(127, 0, net, client),
                to,
                connection: None,
                tally: Tally::default(),
            };
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let script = script.clone();
            std::thread::spawn(move || {
                let (begun, mut nth) = (Instant::now(), 0);
                while !stop.load(Ordering::Acquire) {
                    visitor.visit(&script(client, nth), pace);
                    nth += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                    let due = begun + pace.period * nth;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                visitor.tally
            })
        });
        Self {
            clients: clients.collect(),
            stop,
            answered,
        }
    }

    /// Waits until so many further requests have come to an end.
    pub(super) fn wait(&self, count: u64, patience: Duration) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + count;
        let deadline = Instant::now() + patience;
        while self.answered.load(Ordering::Relaxed) < goal {
            ensure!(
                Instant::now() < deadline,
                "{count} requests took longer than {patience:?}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(super) fn stop(mut self) -> Result<Tally> {
        self.stop.store(true, Ordering::Release);
        let mut all = Tally::default();
        for client in self.clients.drain(..) {
            let seen = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.add(seen);
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.connections += other.connections;
        self.longest = self.longest.max(other.longest);
        self.noted.extend(other.noted);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        let room = TOLD.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }

    pub(super) fn of(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// Counts what became of a request.
    pub(super) fn note(&mut self, what: &str, status: Result<u16>, right: &[u16], took: Duration) {
        self.sent += 1;
        self.longest = self.longest.max(took);
        match status {
            Ok(status) => {
                *self.statuses.entry(status).or_default() += 1;
                if !right.contains(&status) {
                    self.fail(format!("{what} got {status}"));
                }
            }
            Err(error) => self.fail(format!("{what} after {took:?}: {error:#}")),
        }
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(what);
        }
    }
}

/// One client.
struct Visitor {
    source: Ipv4Addr,
    to: SocketAddr,
    /// With the number of requests it had.
    connection: Option<(TcpStream, u32)>,
    tally: Tally,
}

impl Visitor {
    fn visit(&mut self, turn: &Turn, pace: Pace) {
        let begun = Instant::now();
        let status = self.exchange(turn, pace);
        if status.as_ref().is_ok_and(|it| pace.noted.contains(it)) {
            self.tally.noted.insert(turn.target.clone());
        }
        let is_answered = status.is_ok();
        self.tally
            .note(&turn.target, status, turn.right, begun.elapsed());
        if !is_answered {
            std::thread::sleep(AFTER_FAILURE);
        }
    }

    /// A connection that fails is not used again, and its request is not made again: what the server closes in good
    /// order is closed after an answer that says so.
    fn exchange(&mut self, turn: &Turn, pace: Pace) -> Result<u16> {
        let (mut stream, had) = match self.connection.take() {
            Some(open) => open,
            None => {
                let stream = connect_from(self.source, self.to).context("connecting")?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                self.tally.connections += 1;
                (stream, 0)
            }
        };
        let is_last = had + 1 >= pace.per_connection;
        let answer = ask(&mut stream, turn, is_last);
        let (status, closes) =
            answer.with_context(|| format!("request {} of a connection", had + 1))?;
        if !closes && !is_last {
            self.connection = Some((stream, had + 1));
        }
        Ok(status)
    }
}

/// One request on a connection of its own; its status.
pub(super) fn get(source: Ipv4Addr, to: SocketAddr, host: &str, target: &str) -> Result<u16> {
    let mut stream = connect_from(source, to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let turn = Turn {
        host: "",
        target: target.to_owned(),
        right: &[],
    };
    write(&mut stream, host, &turn.target, true)?;
    Ok(answer(&mut stream)?.0)
}

fn ask(stream: &mut TcpStream, turn: &Turn, is_last: bool) -> Result<(u16, bool)> {
    write(stream, turn.host, &turn.target, is_last)?;
    answer(stream)
}

fn write(stream: &mut impl Write, host: &str, target: &str, is_last: bool) -> Result<()> {
    let close = if is_last { "Connection: close\r\n" } else { "" };
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lab\r\n{close}\r\n");
    Ok(stream.write_all(head.as_bytes())?)
}

/// Status of an answer, read to its end, and whether the server closes the connection after it.
fn answer(stream: &mut impl Read) -> Result<(u16, bool)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        ensure!(bytes.len() < HEAD_BYTES, "a head without an end");
        match read(stream, &mut buffer)? {
            0 => bail!("closed after {} bytes of an answer", bytes.len()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length: usize = field("content-length: ").context("no length")?.parse()?;
    let mut missing = (end + length).saturating_sub(bytes.len());
    while missing > 0 {
        match read(stream, &mut buffer)? {
            0 => bail!("closed {missing} bytes before the end of an answer"),
            count => missing = missing.saturating_sub(count),
        }
    }
    Ok((status, field("connection: ") == Some("close")))
}

fn read(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return Ok(done?),
        }
    }
}
