//! What the edge is told: validated by whoever builds it, immutable from then on.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use clew_protocol::report::{PackVersion, Report};
use clew_protocol::request::ProxyRecord;
use clew_protocol::{ProxyId, Sequence, ServiceId, TokenKey};
use clew_rules::engine::RuleSet;
use ipnet::IpNet;

use crate::access::Accesses;
use crate::page::Pages;
use crate::rate::RateLimits;
use crate::trace::Tracing;

/// The whole configuration of an [`crate::Edge`].
#[derive(Debug)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// Sockets that listen already, taken over from who listened before: a listener whose address one of them
    /// has takes that.
    pub inherited: Vec<TcpListener>,
    /// Where requests go; at least one. The first without `hosts`, or else the first, takes
    /// what no other's `hosts` name.
    pub services: Vec<ServiceConfig>,
    /// Bounds on what clients may ask.
    pub limits: Limits,
    /// Who is believed about whom they forward for.
    pub trusted_hops: TrustedHops,
    /// Addresses that many people share; never banned.
    pub shared_addresses: Vec<IpNet>,
    /// Worker threads; each serves its connections alone.
    pub threads: usize,
    /// How requests are named for the kernel; none without a sensor.
    pub tagging: Option<Tagging>,
    /// What requests and responses are judged by; none: they are not looked at.
    pub rules: Option<RulesConfig>,
    /// What clients are shown instead of the edge's own pages.
    pub pages: Pages,
    /// Who is told of requests that a rule matched, that were refused, or that were ended; none: nobody.
    pub reports: Option<Reports>,
    /// Who is told of every request; none: nobody.
    pub accesses: Option<Accesses>,
    /// Whether spans are made of requests; none: traces pass as they come.
    pub tracing: Option<Tracing>,
    /// Who is told of clients that a rate limit wants banned; none: nobody.
    pub offenders: Option<Offenders>,
    /// How long requests in flight may take to finish after [`crate::Handle::shutdown`].
    pub shutdown_grace: Duration,
}

impl Config {
    /// An edge of one thread that trusts nobody, names no requests, judges none and tells of none.
    pub fn new(listeners: Vec<ListenerConfig>, services: Vec<ServiceConfig>) -> Self {
        Self {
            listeners,
            inherited: Vec::new(),
            services,
            limits: Limits::default(),
            trusted_hops: TrustedHops::default(),
            shared_addresses: Vec::new(),
            threads: 1,
            tagging: None,
            rules: None,
            pages: Pages::default(),
            reports: None,
            accesses: None,
            tracing: None,
            offenders: None,
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Peers that are believed about whom they forward for, in PROXY headers and in one HTTP header.
#[derive(Debug, Clone, Default)]
pub struct TrustedHops {
    /// Their addresses. None of these is ever banned.
    pub networks: Vec<IpNet>,
    /// What each of them appends to.
    pub header: ForwardingHeader,
}

/// The header that trusted hops own. The other is a client's own word: most balancers write one
/// of the two and pass the other on as it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`: addresses, the nearest last.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// One listening socket.
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Address and port.
    pub address: SocketAddr,
    /// Certificate and key; none for plain HTTP/1.1.
    pub tls: Option<TlsConfig>,
    /// Connections start with a PROXY header, version 1 or 2, of a trusted hop.
    pub proxy_protocol: bool,
}

/// PEM files of one TLS listener. TLS 1.2 and 1.3; HTTP/2 and HTTP/1.1 by ALPN.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// The oldest version that is spoken.
    pub minimum: TlsVersion,
    /// Whose certificates clients show; none: they are not asked for any.
    pub clients: Option<ClientCertificates>,
}

impl TlsConfig {
    /// TLS 1.2 and 1.3, for clients without certificates.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            minimum: TlsVersion::default(),
            clients: None,
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Mutual TLS: what clients show of themselves.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// PEM file of the authorities whose certificates are believed.
    pub authorities: PathBuf,
    /// A client without one is turned away at the handshake.
    pub required: bool,
}

/// A group of equal backends.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// Name in records and profiles.
    pub name: String,
    /// Host names (without port, lower case) it serves; empty: whatever no other does.
    pub hosts: Vec<String>,
    /// Backends.
    pub upstreams: Vec<SocketAddr>,
    /// TLS to them; none: plain.
    pub tls: Option<UpstreamTls>,
    /// HTTP/2 to them, by prior knowledge (RFC 9113, 3.3) where it is plain; else HTTP/1.1. A connection serves
    /// one request at a time, for what the kernel sees of it is one request's.
    pub http2: bool,
    /// How backends are checked; none: each is taken to be up.
    pub health_check: Option<HealthCheck>,
    /// Path that the check asks for with `GET`, where 200 is healthy; none: a TCP connection is
    /// enough.
    pub health_path: Option<String>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next byte of a response.
    pub read_timeout: Duration,
    /// Longest wait for a backend to take the next byte of a request.
    pub write_timeout: Duration,
    /// How long an unused connection is kept; none: until the backend closes it, or no longer answers the
    /// keep-alive probes of TCP.
    pub idle_timeout: Option<Duration>,
}

impl ServiceConfig {
    /// The kernel cannot read what goes to the backends.
    pub fn is_opaque(&self) -> bool {
        self.tls.is_some() || self.http2
    }

    /// A service with the default timeouts (connect 3 s, read and write 60 s).
    pub fn new(name: impl Into<String>, upstreams: Vec<SocketAddr>) -> Self {
        Self {
            name: name.into(),
            hosts: Vec::new(),
            upstreams,
            tls: None,
            http2: false,
            health_check: None,
            health_path: None,
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            idle_timeout: None,
        }
    }
}

/// TLS to the backends of a service: 1.2 and 1.3, certificates verified always.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// The name that their certificates are for, and that they are asked for (SNI).
    pub server_name: String,
    /// PEM file of the authorities that are believed; none: those of this machine.
    pub authorities: Option<PathBuf>,
    /// What the edge shows of itself; none: nothing.
    pub identity: Option<Identity>,
}

/// PEM files of what the edge shows of itself to backends (mutual TLS).
#[derive(Debug, Clone)]
pub struct Identity {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// An active check of each backend, by TCP connection or by [`ServiceConfig::health_path`].
#[derive(Debug, Clone, Copy)]
pub struct HealthCheck {
    /// How often.
    pub interval: Duration,
}

/// Bounds on what clients may ask. Each has a default that ordinary clients do not meet.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open client connections. Default 10,000: at about 64 KiB each, 640 MiB.
    pub connections: usize,
    /// Bytes of a request head. Default 32 KiB, four times what common servers take.
    pub head_bytes: usize,
    /// Header fields of a request. Default 100.
    pub headers: usize,
    /// Bytes of a request body. Default 10 MiB.
    pub body_bytes: u64,
    /// From the first byte of a head to its last. Default 10 s.
    pub head_deadline: Duration,
    /// From the end of the head to the end of the body. Default 60 s.
    pub body_deadline: Duration,
    /// An idle connection between requests. Default 60 s.
    pub keepalive: Duration,
    /// A client that takes no further byte of its response. Default 60 s.
    pub write_deadline: Duration,
    /// TLS and PROXY handshakes. Default 5 s.
    pub handshake_deadline: Duration,
    /// Streams that one HTTP/2 connection may have open. Default 128.
    pub h2_streams: u32,
    /// Bans remembered. Default 65,536.
    pub bans: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_bytes: 32 * 1024,
            headers: 100,
            body_bytes: 10 * 1024 * 1024,
            head_deadline: Duration::from_secs(10),
            body_deadline: Duration::from_secs(60),
            keepalive: Duration::from_secs(60),
            write_deadline: Duration::from_secs(60),
            handshake_deadline: Duration::from_secs(5),
            h2_streams: 128,
            bans: 131_072,
        }
    }
}

/// How often the kernel has stopped something so far.
#[derive(Clone)]
pub struct StopCount(Arc<dyn Fn() -> u64 + Send + Sync>);

impl StopCount {
    /// `read` is called for each piece of a response: it should cost no more than a load.
    pub fn new(read: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    pub(crate) fn read(&self) -> u64 {
        (self.0)()
    }
}

impl std::fmt::Debug for StopCount {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("StopCount")
            .field(&self.read())
            .finish()
    }
}

/// How the kernel is told which request is next on a connection that it cannot read names on.
#[derive(Clone)]
pub struct Announcer(Arc<dyn Fn(&Announcement) -> bool + Send + Sync>);

/// Which request is next on a connection.
#[derive(Debug, Clone, Copy)]
pub struct Announcement {
    /// The proxy's end.
    pub local: SocketAddr,
    /// The backend's.
    pub peer: SocketAddr,
    /// The service that the request is for.
    pub service: ServiceId,
    /// The request.
    pub sequence: Sequence,
}

impl Announcer {
    /// `tell` is called before a byte of the request is sent; whether the kernel knows of it.
    pub fn new(tell: impl Fn(&Announcement) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(crate) fn tell(&self, announcement: &Announcement) -> bool {
        (self.0)(announcement)
    }
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Announcer")
    }
}

/// What happens to requests where a part fails that judges them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They are served.
    #[default]
    Open,
    /// They are answered 503.
    Closed,
}

/// How requests are named for the kernel, and how their responses wait for its verdicts.
#[derive(Debug, Clone)]
pub struct Tagging {
    /// Key of the tokens' MAC.
    pub key: TokenKey,
    /// This proxy.
    pub proxy: ProxyId,
    /// The name of the first request: higher than any that a proxy before this one has given, for some of those may
    /// still be at work.
    pub first: Sequence,
    /// Where request records go. Never waited for: what does not fit is counted.
    pub records: SyncSender<ProxyRecord>,
    /// How requests are named on connections whose bytes the kernel cannot read (TLS, HTTP/2).
    pub announcer: Announcer,
    /// What the kernel has stopped; a response that comes after a stop waits for [`crate::Handle::decided`].
    pub stops: StopCount,
    /// How long it waits at most.
    pub hold_span: Duration,
    /// What becomes of a response that has waited for so long.
    pub overdue: OnFailure,
    /// What becomes of a request whose record finds no room: nobody could be named for what it does.
    pub unrecorded: OnFailure,
}

/// Who is told of requests that are worth it.
#[derive(Clone)]
pub struct Reports(Arc<dyn Fn(Report) + Send + Sync>);

impl Reports {
    /// `tell` is called by the thread that serves the request, when it is over: it must not wait.
    pub fn new(tell: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(crate) fn tell(&self, report: Report) {
        (self.0)(report);
    }
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Reports")
    }
}

/// Who is told of clients that are to be banned.
#[derive(Clone)]
pub struct Offenders(Arc<Offended>);

type Offended = dyn Fn(IpAddr, &str) + Send + Sync;

impl Offenders {
    /// `tell` is called with the client and the name of the limit, by the thread that serves the request: it must
    /// not wait.
    pub fn new(tell: impl Fn(IpAddr, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(crate) fn tell(&self, client: IpAddr, limit: &str) {
        (self.0)(client, limit);
    }
}

impl std::fmt::Debug for Offenders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Offenders")
    }
}

/// What a request is judged by: one of these, from its head to the end of its response. Replaced as a whole.
#[derive(Debug, Clone)]
pub struct Rulebook {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// The packs that they are from, as each report names them.
    pub packs: Arc<[PackVersion]>,
    /// How often somebody may ask.
    pub limits: RateLimits,
}

impl Rulebook {
    /// Rules that are from no pack.
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self {
            rules,
            packs: Arc::new([]),
            limits: RateLimits::default(),
        }
    }
}

/// What requests and responses are judged by, and what that may cost.
#[derive(Debug)]
pub struct RulesConfig {
    /// The rules at start; others may take their place, see [`crate::Handle::set_rules`]. Whether bodies
    /// are looked at, how far, and what happens to what is longer, is theirs to say.
    pub rulebook: Rulebook,
    /// Processor time that rules may take for one request and its response. Default 100 ms, a
    /// thousand times what an ordinary one takes.
    pub budget: Duration,
    /// Bytes of bodies that wait for a verdict, of all requests together; beyond it, 503. A body
    /// counts twice: for who gets it, and as the rules see it. Default 256 MiB.
    pub kept_bodies_bytes: usize,
    /// What happens to a request body whose content coding cannot be undone.
    pub unknown_coding: UnknownCoding,
    /// How many times its size a coded body may expand to; beyond it, 413. Default 100; what a
    /// server compresses shrinks to a tenth. The first 64 KiB are free.
    pub expansion: u32,
    /// Where each rule that matches is written, a line in ModSecurity's form; opened for
    /// appending.
    pub log: Option<File>,
}

impl RulesConfig {
    /// These rules, with the default limits.
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self {
            rulebook: Rulebook::new(rules),
            budget: Duration::from_millis(100),
            kept_bodies_bytes: 256 * 1024 * 1024,
            unknown_coding: UnknownCoding::default(),
            expansion: 100,
            log: None,
        }
    }
}

/// What happens to a request body whose content coding cannot be undone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnknownCoding {
    /// It is answered with 415.
    #[default]
    Refuse,
    /// Rules look at it as it is.
    Pass,
}
