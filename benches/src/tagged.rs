//! Load whose every request carries a token of its own: one thread, lighter than any server, so
//! that the backend is what saturates. It does not sleep: to wake it would be the backend's work, more
//! of it the more often it has nothing to do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clew_protocol::{ProxyId, Sequence, ServiceId, Token, TokenKey};
use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::load::Shot;
use crate::side::Side;

/// Connections kept busy.
pub(crate) const CONNECTIONS: usize = 32;
/// Where the digits of the token are in a request.
const BEFORE: &str = "HTTP/1.1\r\nx-clew-token: ";
const AFTER: &str = "\r\nHost: bench\r\nUser-Agent: clew-bench\r\nAccept: */*\r\n\r\n";

/// Mints the tokens and knows the last one.
pub(crate) struct Mint {
    pub(crate) key: TokenKey,
    pub(crate) proxy: ProxyId,
    pub(crate) next: Arc<AtomicU64>,
}

struct Connection {
    stream: TcpStream,
    sent: Instant,
    received: usize,
}

/// A shot, and how busy the backend was.
#[derive(Clone, Copy)]
pub(crate) struct TaggedShot {
    pub(crate) shot: Shot,
    /// Share of the time that the backend was at work on its core.
    pub(crate) busy: f64,
}

impl TaggedShot {
    /// Time of the backend's core per request, nanoseconds; what the kernel does there for the
    /// backend's system calls is in it.
    pub(crate) fn core_ns(&self) -> f64 {
        self.busy / self.shot.requests_per_second * 1e9
    }
}

/// Fires at `backend` for `span`, from core 0, for `target`.
pub(crate) fn fire(
    backend: &Side,
    span: Duration,
    mint: &mut Mint,
    target: &str,
) -> Result<TaggedShot> {
    let mut text = format!("GET {target} {BEFORE}");
    let digits = text.len();
    text.extend(["0"; 32]);
    text.push_str(AFTER);
    let mut load = Load {
        request: text.into_bytes(),
        digits,
        mint,
        latencies: Vec::with_capacity(1 << 20),
    };
    let everywhere = sched_getaffinity(None)?;
    stay_off_the_backend()?;
    let done = load.run(backend, span);
    sched_setaffinity(None, &everywhere)?;
    done
}

/// Confines this thread to the core that the load comes from. All that stands for the proxy's process
/// is there.
pub(crate) fn stay_off_the_backend() -> Result<()> {
    let mut core = CpuSet::new();
    core.set(0);
    Ok(sched_setaffinity(None, &core)?)
}

struct Load<'a> {
    request: Vec<u8>,
    digits: usize,
    mint: &'a mut Mint,
    latencies: Vec<u32>,
}

impl Load<'_> {
    fn run(&mut self, backend: &Side, span: Duration) -> Result<TaggedShot> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for nth in 0..CONNECTIONS {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, backend.port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            self.send(&mut stream)?;
            let data = epoll::EventData::new_u64(nth as u64);
            epoll::add(&poll, stream.as_fd(), data, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                sent: Instant::now(),
                received: 0,
            });
        }
        let length = first_response(&mut connections[0].stream)?;
        connections[0].received = 0;
        self.send(&mut connections[0].stream)?;
        let (start, busy) = (Instant::now(), backend.busy()?);
        let mut events = Vec::with_capacity(CONNECTIONS);
        let at_once = rustix::time::Timespec::default();
        while start.elapsed() < span {
            events.clear();
            epoll::wait(
                &poll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&at_once),
            )?;
            for event in &events {
                let connection = &mut connections[event.data.u64() as usize];
                self.go_on(connection, length)?;
            }
        }
        let (span, busy) = (start.elapsed(), backend.busy()? - busy);
        // Every connection has a request open: one that is answered, or the backend has stopped.
        let patience = rustix::time::Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        events.clear();
        epoll::wait(
            &poll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&patience),
        )?;
        ensure!(!events.is_empty(), "the backend has stopped answering");
        Ok(TaggedShot {
            shot: self.shot(span),
            busy: busy.as_secs_f64() / span.as_secs_f64(),
        })
    }

    fn send(&mut self, stream: &mut TcpStream) -> Result<()> {
        let sequence = Sequence(self.mint.next.fetch_add(1, Ordering::AcqRel));
        let token = Token::mint(&self.mint.key, self.mint.proxy, ServiceId(1), sequence);
        self.request[self.digits..self.digits + 32].copy_from_slice(&token.to_hex());
        stream.write_all(&self.request).context("sending")
    }

    /// Reads what has come; the next request goes out when the response is whole.
    fn go_on(&mut self, connection: &mut Connection, length: usize) -> Result<()> {
        let mut buffer = [0; 4096];
        let got = connection.stream.read(&mut buffer).context("receiving")?;
        ensure!(got > 0, "the backend has closed a connection");
        connection.received += got;
        ensure!(
            connection.received <= length,
            "a response of another length"
        );
        if connection.received == length {
            self.latencies
                .push(connection.sent.elapsed().as_micros() as u32);
            connection.received = 0;
            connection.sent = Instant::now();
            self.send(&mut connection.stream)?;
        }
        Ok(())
    }

    fn shot(&mut self, span: Duration) -> Shot {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(index).copied().unwrap_or(0).into()
        };
        Shot {
            requests_per_second: self.latencies.len() as f64 / span.as_secs_f64(),
            p50_us: at(0.5),
            p99_us: at(0.99),
        }
    }
}

/// Length of one whole response of this server: they are all alike.
fn first_response(stream: &mut TcpStream) -> Result<usize> {
    let mut response = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let got = stream.read(&mut buffer)?;
        ensure!(got > 0, "the backend closed before it answered");
        response.extend_from_slice(&buffer[..got]);
        let text = String::from_utf8_lossy(&response);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            ensure!(head.starts_with("HTTP/1.1 200"), "the backend said {head}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .context("a response without a length")?;
            let length: usize = length.trim().parse()?;
            if body.len() == length {
                return Ok(response.len());
            }
        }
    }
}

/// Time that process `pid` has been running, from `/proc/PID/schedstat`.
pub(crate) fn time_at_work(pid: u32) -> Result<Duration> {
    let path: PathBuf = format!("/proc/{pid}/schedstat").into();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let nanos = text.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(nanos.trim().parse()?))
}
