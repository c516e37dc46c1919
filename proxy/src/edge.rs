//! The edge at work: listeners, worker threads, and the handle that others hold.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clew_protocol::{IncidentId, Sequence};
use ipnet::IpNet;
use pingora::apps::ServerApp;
use pingora::protocols::{GetSocketDigest, SocketDigest, Ssl, Stream};
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::bans::{Ban, Bans, Barrier, canonical};
use crate::callbacks::Callbacks;
use crate::client::Neighbours;
use crate::config::{Config, Rulebook};
use crate::connection::{Connection, Phase};
use crate::counters::{Counters, Tally};
use crate::endings::{EndingTally, Endings};
use crate::exchange::Gateway;
use crate::flight::Flights;
use crate::gate::Gate;
use crate::inspection::{Inspector, ShadowReport};
use crate::listener::Listener;
use crate::proxy_protocol;
use crate::service::Services;
use crate::upload::Streams;

/// Why the edge cannot start.
#[derive(Debug, Error)]
pub enum BindError {
    /// A port is taken or may not be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A certificate or key does not load.
    #[error("cannot use {path}: {reason}")]
    Tls {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// No descriptors left, or no backend addresses.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

/// Ports taken, nothing served yet.
pub struct Edge {
    shared: Arc<Shared>,
    threads: usize,
    grace: Duration,
}

struct Shared {
    proxy: Arc<HttpProxy<Callbacks>>,
    streams: Arc<Streams>,
    gateway: Arc<Gateway>,
    connections: Arc<Semaphore>,
    listeners: Vec<Listener>,
    stop: watch::Sender<bool>,
    /// How long connections may go on after that; none: as configured.
    grace: Mutex<Option<Duration>>,
    /// Loops that accept, and how many there are to be.
    accepting: AtomicUsize,
    acceptors: usize,
}

/// How long a connection without a request is kept when the edge stops.
const LINGER: Duration = Duration::from_secs(1);
/// How often it is looked meanwhile whether any is left.
const LOOK: Duration = Duration::from_millis(5);

/// What others may ask of the edge while it serves.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    addresses: Arc<[SocketAddr]>,
}

impl Edge {
    /// Takes the ports and loads certificates and keys, while there are rights to.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let mut inherited = config.inherited;
        let listeners = config.listeners.iter();
        let listeners = listeners.map(|it| Listener::bind(it, &mut inherited));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let tally = Arc::new(Tally::default());
        let connections = Arc::new(Semaphore::new(config.limits.connections));
        let first = config.tagging.as_ref().map_or(Sequence(1), |it| it.first);
        let gateway = Arc::new(Gateway {
            services: Services::new(config.services)?,
            neighbours: Neighbours::new(config.trusted_hops, config.shared_addresses),
            gate: Gate::new(config.tagging.as_ref()),
            tagging: config.tagging,
            inspector: config.rules.map(Inspector::new),
            pages: config.pages,
            offenders: config.offenders,
            accesses: config.accesses,
            tracing: config.tracing,
            reports: config.reports,
            flights: Flights::new(first)?,
            bans: Bans::new(config.limits.bans),
            tally,
            endings: EndingTally::default(),
            limits: config.limits,
        });
        let proxy = Arc::new(proxy(gateway.clone(), config.threads));
        let shared = Shared {
            streams: Arc::new(Streams {
                proxy: proxy.clone(),
                gateway: gateway.clone(),
            }),
            proxy,
            gateway,
            connections,
            acceptors: config.threads.max(1) * listeners.len(),
            listeners,
            stop: watch::Sender::new(false),
            grace: Mutex::new(None),
            accepting: AtomicUsize::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            threads: config.threads.max(1),
            grace: config.shutdown_grace,
        })
    }

    /// The sockets it listens on.
    ///
    /// # Errors
    ///
    /// No descriptors left.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.shared.sockets()
    }

    /// A handle on this edge; any number may be held.
    pub fn handle(&self) -> Handle {
        let sockets = self.shared.sockets().unwrap_or_default();
        let addresses = sockets.iter().filter_map(|it| it.local_addr().ok());
        Handle {
            shared: self.shared.clone(),
            addresses: addresses.collect(),
        }
    }

    /// Serves until [`Handle::shutdown`], then until requests in flight are done or the grace is
    /// over. Blocks.
    ///
    /// # Errors
    ///
    /// A worker thread cannot start.
    pub fn serve(self) -> io::Result<()> {
        let workers = (0..self.threads).map(|index| {
            let (shared, grace) = (self.shared.clone(), self.grace);
            std::thread::Builder::new()
                .name(format!("clew-edge-{index}"))
                .spawn(move || work(&shared, index == 0, grace))
        });
        let workers = workers.collect::<io::Result<Vec<_>>>()?;
        for worker in workers {
            worker
                .join()
                .map_err(|_| io::Error::other("a worker thread panicked"))??;
        }
        Ok(())
    }
}

impl Handle {
    /// Ends an upstream attempt, whatever it waits for: 403, or a cut response. False when it is
    /// over already.
    pub fn cancel(&self, sequence: Sequence, incident: IncidentId) -> bool {
        let is_first = self.shared.gateway.flights.cancel(sequence, incident);
        self.shared.gateway.gate.notify();
        is_first
    }

    /// What an upstream attempt answers waits until as many calls of [`Self::release`] have been made for
    /// it, or the attempt is cancelled.
    pub fn hold(&self, sequence: Sequence) {
        if let Some(flight) = self.shared.gateway.flights.get(sequence) {
            flight.hold();
        }
    }

    /// Takes back one [`Self::hold`].
    pub fn release(&self, sequence: Sequence) {
        if let Some(flight) = self.shared.gateway.flights.get(sequence) {
            flight.free();
            self.shared.gateway.gate.notify();
        }
    }

    /// Everything that follows from the first `stops` of [`Tagging::stops`](crate::Tagging) has been asked
    /// for: responses that came after them may go on.
    pub fn decided(&self, stops: u64) {
        self.shared.gateway.gate.decide(stops);
    }

    /// Refuses a source from now on: new connections are closed, requests answered 403. False for
    /// trusted hops, which are never refused: everybody behind them would be; and for all addresses there are.
    pub fn ban(
        &self,
        source: impl Into<IpNet>,
        span: Duration,
        incident: Option<IncidentId>,
    ) -> bool {
        let source = canonical(source.into());
        let gateway = &self.shared.gateway;
        let may_be_banned = source.prefix_len() > 0 && !gateway.neighbours.trusts_any_of(source);
        if may_be_banned {
            gateway.bans.add(source, span, incident);
        }
        may_be_banned
    }

    /// Lifts a ban; whether there was one. Of a prefix that is banned no part is let in.
    pub fn unban(&self, source: impl Into<IpNet>) -> bool {
        self.shared.gateway.bans.remove(source.into())
    }

    /// The bans in force.
    pub fn bans(&self) -> Vec<Ban> {
        self.shared.gateway.bans.list()
    }

    /// The ban of just this source.
    pub fn find_ban(&self, source: impl Into<IpNet>) -> Option<Ban> {
        self.shared.gateway.bans.find(canonical(source.into()))
    }

    /// Forgets the bans that have ended. They refuse nobody before that either.
    pub fn sweep_bans(&self) {
        self.shared.gateway.bans.sweep();
    }

    /// Has the banned refused there too, before they reach the edge. To be asked once.
    pub fn stand_behind(&self, barrier: impl Barrier + 'static) {
        self.shared.gateway.bans.stand_behind(Box::new(barrier));
    }

    /// Judges requests that begin from now on by other rules; false when the edge was started
    /// without any.
    pub fn set_rules(&self, rulebook: Rulebook) -> bool {
        let inspector = self.shared.gateway.inspector.as_ref();
        inspector.map(|it| it.replace(rulebook)).is_some()
    }

    /// What requests that begin now are judged by; none when the edge was started without rules.
    pub fn rules(&self) -> Option<Arc<Rulebook>> {
        let inspector = self.shared.gateway.inspector.as_ref();
        inspector.map(|it| it.rulebook())
    }

    /// Has `candidate` judge live requests beside the rules in force, without effect, from now on; none: ends that.
    /// False when the edge was started without rules.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub fn set_shadow(&self, candidate: Option<Rulebook>) -> io::Result<bool> {
        let inspector = self.shared.gateway.inspector.as_ref();
        let set = inspector.map(|it| it.set_shadow(candidate)).transpose()?;
        Ok(set.is_some())
    }

    /// What the candidate would have changed; none when there is none.
    pub fn shadow(&self) -> Option<ShadowReport> {
        self.shared.gateway.inspector.as_ref()?.shadow()
    }

    /// Sums since start.
    pub fn counters(&self) -> Counters {
        self.shared.gateway.tally.read()
    }

    /// What became of requests since start.
    pub fn endings(&self) -> Endings {
        self.shared.gateway.endings.read()
    }

    /// Whether all listeners take connections: not before [`Edge::serve`], nor after [`Self::shutdown`].
    pub fn is_accepting(&self) -> bool {
        let accepting = self.shared.accepting.load(Ordering::Acquire);
        accepting == self.shared.acceptors && !*self.shared.stop.borrow()
    }

    /// Upstream attempts in flight; zero without tagging.
    pub fn in_flight(&self) -> usize {
        self.shared.gateway.flights.len()
    }

    /// What the next upstream attempt will be named.
    pub fn next_attempt(&self) -> Sequence {
        self.shared.gateway.flights.next()
    }

    /// All upstream attempts in flight, in no order; none without tagging.
    pub fn attempts(&self) -> Vec<Sequence> {
        self.shared.gateway.flights.sequences()
    }

    /// Where it listens; a configured port 0 is a real one here.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Shows the certificates of TLS listeners as their files are now, to clients that connect from now on.
    ///
    /// # Errors
    ///
    /// A file cannot be used; that listener, and those after it, go on as before.
    pub fn reload_certificates(&self) -> Result<(), BindError> {
        self.shared.listeners.iter().try_for_each(Listener::reload)
    }

    /// As [`Self::shutdown`], with another grace than the configured one.
    pub fn shutdown_within(&self, grace: Duration) {
        let own = self.shared.grace.lock();
        *own.unwrap_or_else(PoisonError::into_inner) = Some(grace);
        self.shutdown();
    }

    /// The sockets it listens on, for whoever takes its place; clients that connect meanwhile wait.
    ///
    /// # Errors
    ///
    /// No descriptors left.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        self.shared.sockets()
    }

    /// Stops accepting; [`Edge::serve`] returns when requests in flight are done. Connections that wait for a
    /// request are closed only after a while: their clients may be about to send one, which is served as the last.
    pub fn shutdown(&self) {
        self.shared.stop.send_replace(true);
    }
}

fn proxy(gateway: Arc<Gateway>, threads: usize) -> HttpProxy<Callbacks> {
    let limits = gateway.limits.clone();
    let conf = ServerConf {
        threads,
        max_retries: 4,
        ..ServerConf::default()
    };
    let mut proxy = HttpProxy::new(Callbacks(gateway), Arc::new(conf));
    let mut h2 = pingora::protocols::http::v2::server::default_h2_options();
    h2.max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        // A client may reset this many streams faster than they are served (CVE-2023-44487).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(Some(256));
    proxy.h2_options = Some(h2);
    let mut options = pingora::apps::HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.keepalive);
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    proxy
}

/// One worker: a runtime of one thread. Connections stay where they were accepted; without work
/// stealing a request costs about a tenth less.
fn work(shared: &Arc<Shared>, first: bool, grace: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        if first {
            for service in shared.gateway.services.all() {
                tokio::spawn(service.clone().watch_health());
            }
        }
        let mut loops = tokio::task::JoinSet::new();
        for index in 0..shared.listeners.len() {
            loops.spawn(accept(shared.clone(), index));
        }
        while let Some(ended) = loops.join_next().await {
            ended.map_err(io::Error::other)??;
        }
        shared.listeners.iter().for_each(Listener::close);
        let grace = shared.grace().unwrap_or(grace);
        if first && !shared.are_done_within(LINGER.min(grace)).await {
            shared.proxy.cleanup().await;
        }
        if !shared.are_done_within(grace).await {
            tracing::warn!("connections still open after the shutdown grace are cut");
        }
        Ok(())
    })
}

async fn accept(shared: Arc<Shared>, index: usize) -> io::Result<()> {
    let Some(socket) = shared.listeners[index].socket()? else {
        return Ok(());
    };
    let listener = tokio::net::TcpListener::from_std(socket)?;
    let mut stop = shared.stop.subscribe();
    shared.accepting.fetch_add(1, Ordering::AcqRel);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come back.
                tracing::error!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(permit) = shared.admit(peer) else {
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let listener = &shared.listeners[index];
            shared.serve(listener, socket, peer, permit).await;
        });
    }
}

impl Shared {
    fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        let sockets = self.listeners.iter().map(Listener::socket);
        sockets.filter_map(io::Result::transpose).collect()
    }

    /// How long connections may go on, where that was said with the stop.
    fn grace(&self) -> Option<Duration> {
        let grace = self.grace.lock();
        *grace.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no connection is left; false when some are after `span`.
    async fn are_done_within(&self, span: Duration) -> bool {
        // Whoever waited for all permits would have them: none would be left for a client that another worker, which
        // has not stopped yet, lets in meanwhile.
        let all_are_over = async {
            while self.connections.available_permits() < self.gateway.limits.connections {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(span, all_are_over).await.is_ok()
    }

    /// Room for one more connection, unless its source is banned.
    fn admit(&self, peer: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let tally = &self.gateway.tally;
        tally.connections.add_one();
        if self.gateway.bans.contains(peer.ip()) {
            tally.banned_connections.add_one();
            return None;
        }
        let permit = self.connections.clone().try_acquire_owned().ok();
        if permit.is_none() {
            tally.refused_connections.add_one();
        }
        permit
    }

    async fn serve(
        &self,
        listener: &Listener,
        socket: TcpStream,
        peer: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        let deadline = self.gateway.limits.handshake_deadline;
        let stream = tokio::time::timeout(deadline, self.shake_hands(listener, socket, peer)).await;
        match stream {
            Ok(Ok((stream, phase))) => self.converse(stream, phase).await,
            Ok(Err(error)) => {
                self.gateway.tally.failed_handshakes.add_one();
                tracing::info!(%peer, %error, "connection refused");
            }
            Err(_) => {
                self.gateway.tally.failed_handshakes.add_one();
                tracing::info!(%peer, "handshake overdue");
            }
        }
    }

    /// Serves the connection's requests, over HTTP/1 going on where pingora would have closed it.
    async fn converse(&self, stream: Stream, phase: Option<Arc<Phase>>) {
        let stop = self.stop.subscribe();
        let Some(phase) = phase else {
            self.streams.process_new(stream, &stop).await;
            return;
        };
        let mut next = Some(stream);
        while let Some(stream) = next.take() {
            self.proxy.process_new(stream, &stop).await;
            next = phase.take_spared();
        }
    }

    /// PROXY header and TLS, where the listener has them.
    async fn shake_hands(
        &self,
        listener: &Listener,
        mut socket: TcpStream,
        peer: SocketAddr,
    ) -> Result<(Stream, Option<Arc<Phase>>), Box<dyn std::error::Error + Send + Sync>> {
        let mut client = peer;
        let mut rest = Vec::new();
        if listener.proxy_protocol {
            if !self.gateway.neighbours.trusts(peer.ip()) {
                return Err("PROXY header from a peer that is no trusted hop".into());
            }
            let preface = proxy_protocol::read(&mut socket).await?;
            client = preface.client.unwrap_or(peer);
            rest = preface.rest;
        }
        if self.gateway.bans.contains(client.ip()) {
            self.gateway.tally.banned_connections.add_one();
            return Err("banned source".into());
        }
        socket.set_nodelay(true)?;
        let digest = SocketDigest::from_raw_fd(std::os::fd::AsRawFd::as_raw_fd(&socket));
        let _ = digest.peer_addr.set(Some(client.into()));
        let mut stream = pingora::protocols::l4::stream::Stream::from(socket);
        stream.set_socket_digest(digest);
        stream.rewind(&rest);
        let (limits, tally) = (&self.gateway.limits, self.gateway.tally.clone());
        let Some(acceptor) = listener.acceptor() else {
            let connection = Connection::http1(stream, limits, tally)?;
            let phase = connection.phase();
            return Ok((Box::new(connection), Some(phase)));
        };
        let stream = acceptor.tls_handshake(stream).await?;
        let h2 = |alpn: pingora::protocols::ALPN| alpn.get_min_http_version() == 2;
        if stream.selected_alpn_proto().is_some_and(h2) {
            let connection = Connection::http2(stream, limits, tally);
            return Ok((Box::new(connection), None));
        }
        let connection = Connection::http1(stream, limits, tally)?;
        let phase = connection.phase();
        Ok((Box::new(connection), Some(phase)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ListenerConfig, ServiceConfig};

    /// Workers see a stop one after another.
    #[test]
    fn a_worker_that_has_not_stopped_yet_lets_in_while_another_waits() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = ListenerConfig {
            address: any,
            tls: None,
            proxy_protocol: false,
        };
        let service = ServiceConfig::new("it", vec![SocketAddr::from(([127, 0, 0, 1], 1))]);
        let edge = Edge::bind(Config::new(vec![listener], vec![service])).expect("edge");
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("runtime");
        runtime.block_on(async {
            let first = edge.shared.admit(any).expect("room");
            let waiting = edge.shared.are_done_within(Duration::from_secs(20));
            let mut waiting = std::pin::pin!(waiting);
            tokio::select! {
                biased;
                done = &mut waiting => panic!("one is left: {done}"),
                () = tokio::task::yield_now() => {}
            }
            let second = edge.shared.admit(any).expect("room for another");
            drop((first, second));
            assert!(waiting.await);
        });
    }
}
