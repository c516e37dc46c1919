//! Requests in flight, by the name the kernel knows them by, and how one is cancelled.
//!
//! pingora's callbacks run only when something happens, so none of them can end a request whose
//! backend hangs. What can is the upstream connection: reset under the waiting task, its read
//! fails at once, and the backend gets an RST.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use clew_protocol::{IncidentId, Sequence};
use dashmap::DashMap;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::connection::Phase;

/// The upstream connection of a request, as it was when the request got it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upstream {
    pub(crate) fd: RawFd,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// One upstream attempt.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) sequence: Sequence,
    verdict: OnceLock<IncidentId>,
    /// How many verdicts may still be on it.
    holds: AtomicU32,
    /// None once the response is complete: the connection may serve others then.
    upstream: Mutex<Option<Upstream>>,
    /// The client's connection; none with HTTP/2, where others use it too.
    client: Option<Arc<Phase>>,
}

impl Flight {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.verdict.get().is_some()
    }

    /// Why it was cancelled, if it was.
    pub(crate) fn verdict(&self) -> Option<IncidentId> {
        self.verdict.get().copied()
    }

    /// A verdict that is to come may be on it; its response waits.
    pub(crate) fn hold(&self) {
        self.holds.fetch_add(1, Ordering::AcqRel);
    }

    /// One such verdict has come, and was not.
    pub(crate) fn free(&self) {
        self.holds.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holds.load(Ordering::Acquire) > 0
    }

    /// The response is complete and its connection may serve others; returns once no verdict is
    /// about to reset it. Look for a verdict after this, not before.
    pub(crate) fn let_go(&self) {
        self.upstream().take();
    }

    fn upstream(&self) -> MutexGuard<'_, Option<Upstream>> {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All attempts in flight.
#[derive(Debug)]
pub(crate) struct Flights {
    open: DashMap<u64, Arc<Flight>>,
    next: AtomicU64,
    /// This process, for duplicating its own descriptors by number without `unsafe`.
    own: OwnedFd,
}

impl Flights {
    /// # Errors
    ///
    /// No descriptor is left for one of this process (`pidfd_open(2)`).
    pub(crate) fn new(first: Sequence) -> std::io::Result<Self> {
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        Ok(Self {
            open: DashMap::new(),
            next: AtomicU64::new(first.0),
            own,
        })
    }

    /// Names a new attempt over `upstream`, whose response goes to `client`.
    pub(crate) fn begin(
        &self,
        upstream: Option<Upstream>,
        client: Option<Arc<Phase>>,
    ) -> Arc<Flight> {
        let sequence = Sequence(self.next.fetch_add(1, Ordering::Relaxed));
        let flight = Arc::new(Flight {
            sequence,
            verdict: OnceLock::new(),
            holds: AtomicU32::new(0),
            upstream: Mutex::new(upstream),
            client,
        });
        self.open.insert(sequence.0, flight.clone());
        flight
    }

    pub(crate) fn end(&self, flight: &Flight) {
        self.open.remove(&flight.sequence.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// What the next attempt will be named.
    pub(crate) fn next(&self) -> Sequence {
        Sequence(self.next.load(Ordering::Relaxed))
    }

    /// The names of all, in no order.
    pub(crate) fn sequences(&self) -> Vec<Sequence> {
        self.open.iter().map(|it| Sequence(*it.key())).collect()
    }

    /// An attempt in flight.
    pub(crate) fn get(&self, sequence: Sequence) -> Option<Arc<Flight>> {
        let entry = self.open.get(&sequence.0)?;
        Some(entry.value().clone())
    }

    /// Ends the attempt, whatever it waits for; false when it is over already.
    pub(crate) fn cancel(&self, sequence: Sequence, incident: IncidentId) -> bool {
        let Some(flight) = self.get(sequence) else {
            return false;
        };
        let first = flight.verdict.set(incident).is_ok();
        if let Some(client) = &flight.client {
            client.cut(sequence);
        }
        // Held over the reset (four system calls): the task must not return the connection to
        // the pool, where an innocent request would get it, in between.
        let mut upstream = flight.upstream();
        if let Some(upstream) = upstream.take()
            && let Err(error) = self.reset(upstream)
        {
            // The task has closed the connection itself meanwhile, or will see the verdict at
            // the backend's next byte.
            tracing::debug!(%error, "upstream connection not reset");
        }
        first
    }

    /// Resets the connection: RST to the backend, an error for the waiting reader.
    ///
    /// The number may stand for another socket by now, so the addresses are compared first.
    pub(crate) fn reset(&self, upstream: Upstream) -> std::io::Result<()> {
        let socket = pidfd_getfd(self.own.as_fd(), upstream.fd, PidfdGetfdFlags::empty())?;
        let local = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        let peer = SocketAddr::try_from(
            rustix::net::getpeername(&socket)?.ok_or(std::io::ErrorKind::NotConnected)?,
        )?;
        if (local, peer) != (upstream.local, upstream.peer) {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        // connect(2) with AF_UNSPEC dissolves the association: tcp_disconnect() sends RST.
        rustix::net::connect_unspec(&socket)?;
        Ok(())
    }
}
