//! The configuration file as it is written. Unknown keys are refused, with the nearest known one.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clew_packs::Located;
use clew_protocol::kernel::Transport;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spans;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Root {
    /// Where clients connect. Without any: `127.0.0.1:8000`, plain HTTP.
    pub(crate) listener: Vec<Listener>,
    /// Who is protected, at least one. The first without `hosts`, or else the first, takes every request whose host no
    /// other names.
    pub(crate) service: Vec<Service>,
    /// What a client may take up.
    pub(crate) limits: LimitsTable,
    /// Who is believed about whom they forward for.
    pub(crate) trust: Trust,
    /// SecLang rules that requests and responses are judged by; without files, and packs that are active, none are.
    pub(crate) rules: Rules,
    /// Whose rule packs are believed. Those that `clew packs activate` puts in force come before and after `rules.files`.
    pub(crate) packs: Packs,
    /// The kernel side: what requests do, and what is stopped of it.
    pub(crate) sensor: Sensor,
    /// What requests may do, beside the learned profile and what packs allow.
    pub(crate) allow: Allow,
    /// Who is refused, for how long, and where.
    pub(crate) ban: BanTable,
    /// The admin API on TCP, beside its socket `admin.sock` in the state directory.
    pub(crate) admin: AdminTable,
    /// Metrics and health (`/metrics`, `/live`, `/ready`) on a port of their own.
    pub(crate) observe: ObserveTable,
    /// Where Clew keeps what outlives it, and who it is.
    pub(crate) state: State,
    /// The edge itself.
    pub(crate) edge: EdgeTable,
    /// Files of pages in place of Clew's own, 64 KiB each at most. `{{request_id}}`, `{{status}}` and `{{sentence}}` are
    /// filled in.
    pub(crate) pages: Pages,
    /// What happens where a part of Clew fails: `open` goes on without it, `closed` does not.
    pub(crate) fail: Fail,
    /// Spans of requests, sent to an OpenTelemetry collector. Default: none are made, and `traceparent` passes as it
    /// comes.
    pub(crate) spans: Option<spans::Table>,
    /// The block log: one event for each request that was refused, ended or matched, and for each incident.
    pub(crate) log: Vec<clew_blocklog::RawSink>,
    /// Where events of the block log wait for network sinks.
    pub(crate) log_spool: clew_blocklog::RawSpool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// Address and port.
    pub(crate) address: SocketAddr,
    /// Certificate and key of a listener that speaks TLS, and HTTP/2 where clients ask for it. Default: plain HTTP/1.1.
    pub(crate) tls: Option<Tls>,
    /// Connections start with a PROXY header, version 1 or 2, of one of `trust.hops`.
    #[serde(default)]
    pub(crate) proxy_protocol: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    /// The certificate and its chain, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) key: PathBuf,
    /// The oldest version of TLS that is spoken.
    #[serde(default)]
    pub(crate) minimum: TlsVersion,
    /// Mutual TLS: whose certificates clients show. Default: they are not asked for any.
    pub(crate) clients: Option<ClientCertificates>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema, Serialize)]
pub(crate) enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Mutual TLS: whose certificates clients show.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientCertificates {
    /// Whose certificates are believed, PEM.
    pub(crate) authorities: PathBuf,
    /// A client without one is turned away at the handshake.
    #[serde(default = "yes")]
    pub(crate) required: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// Its name in incidents, events, profiles and metrics.
    pub(crate) name: String,
    /// Names that requests for it have in their `Host`, without port. Empty: whatever no other service names.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// Its backends, equal among each other: addresses of this machine with their ports.
    pub(crate) upstreams: Vec<SocketAddr>,
    /// TLS to the backends, whose certificates are always verified. Default: plain.
    pub(crate) tls: Option<UpstreamTls>,
    /// The version of HTTP that backends are spoken to with. `"2"` is for gRPC: one request at a time on each connection.
    #[serde(default)]
    pub(crate) http: HttpVersion,
    /// How often each backend is tried. Default: never, and each is taken to be up.
    pub(crate) health_check_seconds: Option<u64>,
    /// The path that is asked for, where 200 is healthy. Default: none, and a connection is enough.
    pub(crate) health_check_path: Option<String>,
    /// Longest wait for a connection to a backend.
    #[serde(default = "three")]
    pub(crate) connect_timeout_seconds: u64,
    /// Longest wait for the next byte of a response.
    #[serde(default = "sixty")]
    pub(crate) read_timeout_seconds: u64,
    /// Longest wait for a backend to take the next byte of a request.
    #[serde(default = "sixty")]
    pub(crate) write_timeout_seconds: u64,
    /// How long an unused connection is kept. Default: until the backend closes it.
    pub(crate) idle_timeout_seconds: Option<u64>,
    /// Files of the service's backends that are watched.
    #[serde(default)]
    pub(crate) files: Files,
}

/// Files of the service's backends that are watched.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Files {
    /// Paths that requests may not open, nor anything below them in their file system; written out from `/`.
    pub(crate) protect: Vec<PathBuf>,
    /// Paths where it is remembered what requests write: who runs it later is told of with who wrote it.
    pub(crate) web_root: Vec<PathBuf>,
    /// Requests may not write in `web_root` at all.
    pub(crate) refuse_writes: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    /// The name that the certificates of backends are for, and that they are asked for (SNI).
    pub(crate) server_name: String,
    /// Whose certificates are believed, PEM. Default: this machine's authorities.
    pub(crate) authorities: Option<PathBuf>,
    /// Mutual TLS: what the edge shows of itself. Default: nothing.
    pub(crate) identity: Option<Identity>,
}

/// What the edge shows of itself to backends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The edge's certificate and its chain, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) key: PathBuf,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub(crate) enum HttpVersion {
    /// RFC 9112.
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    /// RFC 9113, by prior knowledge where there is no TLS.
    #[serde(rename = "2")]
    Http2,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsTable {
    /// Open client connections; beyond, new ones are closed.
    pub(crate) connections: usize,
    /// Bytes of a request head, 1,024 at least.
    pub(crate) head_bytes: usize,
    /// Header fields of a request.
    pub(crate) headers: usize,
    /// Bytes of a request body.
    pub(crate) body_bytes: u64,
    /// From the first byte of a head to its last.
    pub(crate) head_seconds: u64,
    /// From the end of a head to the end of the body.
    pub(crate) body_seconds: u64,
    /// How long a connection may be idle between requests.
    pub(crate) keepalive_seconds: u64,
    /// Longest wait for a client to take the next byte of its response.
    pub(crate) write_seconds: u64,
    /// Streams that an HTTP/2 connection may have open.
    pub(crate) h2_streams: u32,
    /// Bans that are kept at once.
    pub(crate) bans: usize,
}

impl Default for LimitsTable {
    fn default() -> Self {
        let limits = clew_proxy::Limits::default();
        Self {
            connections: limits.connections,
            head_bytes: limits.head_bytes,
            headers: limits.headers,
            body_bytes: limits.body_bytes,
            head_seconds: limits.head_deadline.as_secs(),
            body_seconds: limits.body_deadline.as_secs(),
            keepalive_seconds: limits.keepalive.as_secs(),
            write_seconds: limits.write_deadline.as_secs(),
            h2_streams: limits.h2_streams,
            bans: limits.bans,
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Trust {
    /// Addresses and networks of balancers whose forwarding header and PROXY headers count. None of them is ever banned.
    pub(crate) hops: Vec<String>,
    /// The header that the hops write; the other is passed over.
    pub(crate) header: HeaderChoice,
    /// Addresses and networks that many people share: their requests are blocked, and they are never banned.
    pub(crate) shared: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HeaderChoice {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl From<HeaderChoice> for clew_proxy::ForwardingHeader {
    fn from(choice: HeaderChoice) -> Self {
        match choice {
            HeaderChoice::XForwardedFor => Self::XForwardedFor,
            HeaderChoice::Forwarded => Self::Forwarded,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rules {
    /// Rule files, or folders of `*.conf`, in this order.
    pub(crate) files: Vec<PathBuf>,
    /// Whether matches block. Default: what the files say, else `detection-only`.
    pub(crate) engine: Option<EngineName>,
    /// JSON and XML are read as such, and what cannot be read is refused.
    pub(crate) body_processors: bool,
    /// Whether bodies of requests are looked at. Default: what the files say (`SecRequestBodyAccess`), else yes.
    pub(crate) request_body: Option<bool>,
    /// How much of a body is looked at before a backend is asked. Default: what the files say, else 1 MiB.
    pub(crate) request_body_bytes: Option<u64>,
    /// Whether responses of the listed types are held back until they are judged. Default: what the files say, else no.
    pub(crate) response_body: Option<bool>,
    /// How much of a response is looked at. Default: what the files say, else 512 KiB.
    pub(crate) response_body_bytes: Option<u64>,
    /// What becomes of a body that is longer. Default: what the files say, else `refuse`.
    pub(crate) beyond_limit: Option<BeyondLimit>,
    /// Processor time for one request and its response.
    pub(crate) budget_ms: u64,
    /// What becomes of a request that takes longer: 503, or it passes without the rest of the rules.
    pub(crate) over_budget: Strictness,
    /// All bodies together that wait for a verdict, counted twice; beyond it 503.
    pub(crate) kept_bodies_bytes: usize,
    /// What becomes of a body whose `Content-Encoding` cannot be undone: 415, or it passes.
    pub(crate) unknown_coding: Strictness,
    /// How many times its size a coded body may expand to; beyond it 413.
    pub(crate) expansion: u32,
    /// A file with a line for each match, as ModSecurity writes them. Default: Clew's own log.
    pub(crate) log: Option<PathBuf>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            engine: None,
            body_processors: true,
            request_body: None,
            request_body_bytes: None,
            response_body: None,
            response_body_bytes: None,
            beyond_limit: None,
            budget_ms: 100,
            over_budget: Strictness::Refuse,
            kept_bodies_bytes: 256 * 1024 * 1024,
            unknown_coding: Strictness::Refuse,
            expansion: 100,
            log: None,
        }
    }
}

/// Whose rule packs are believed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Packs {
    /// Public keys of minisign (`RW...`) whose packs are believed.
    pub(crate) trust: Vec<String>,
    /// Packs without a signature are taken.
    pub(crate) allow_unsigned: bool,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EngineName {
    /// They block.
    On,
    /// They are logged.
    DetectionOnly,
    /// Rules are not asked.
    Off,
}

/// What happens to what a body has beyond the limit.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BeyondLimit {
    /// It is refused, 413.
    Refuse,
    /// The rest goes on unseen.
    Stream,
}

/// What happens to what cannot be judged.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Strictness {
    /// It is refused.
    Refuse,
    /// It passes.
    Pass,
}

impl From<Strictness> for clew_proxy::UnknownCoding {
    fn from(strictness: Strictness) -> Self {
        match strictness {
            Strictness::Refuse => Self::Refuse,
            Strictness::Pass => Self::Pass,
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sensor {
    /// Without it the edge runs alone, and nothing of what requests do is seen.
    pub(crate) enabled: bool,
    /// What happens to what is not allowed.
    pub(crate) mode: ModeName,
    /// The mode when nobody has tended the kernel for `heartbeat_seconds`.
    pub(crate) fallback_mode: ModeName,
    /// How long the kernel may go untended.
    pub(crate) heartbeat_seconds: u64,
    /// How long a response may wait for a verdict after the kernel has stopped something.
    pub(crate) hold_ms: u64,
    /// Environment variables are recorded by name, without values.
    pub(crate) redact_environment: bool,
    /// Launchers that exec twice, besides every JDK's `jspawnhelper`, which is known.
    pub(crate) trampolines: Vec<PathBuf>,
    /// Where `learn` writes what the service does, and `enforce` reads it. Default: `profile.json` in the state directory.
    pub(crate) profile: Option<PathBuf>,
    /// The cgroup whose sockets are followed. Default: every socket.
    pub(crate) cgroup: Option<PathBuf>,
    /// What becomes of the programs in the kernel when Clew stops in good order.
    pub(crate) on_stop: OnStop,
    /// Where the kernel has neither BPF LSM nor fexit, files are watched by looking at every system call of every process,
    /// which all of them pay for.
    pub(crate) trace_opens: bool,
}

/// What becomes of the programs when Clew stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnStop {
    /// They are removed.
    #[default]
    Remove,
    /// They stay at work until Clew runs again.
    Keep,
}

impl Default for Sensor {
    fn default() -> Self {
        Self {
            enabled: true,
            mode: ModeName::Enforce,
            fallback_mode: ModeName::Enforce,
            heartbeat_seconds: 10,
            hold_ms: 1000,
            redact_environment: true,
            trampolines: Vec::new(),
            profile: None,
            cgroup: None,
            on_stop: OnStop::Remove,
            trace_opens: false,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModeName {
    /// Report, stop nothing
    Observe,
    /// Report, stop nothing, and write down what the workload does
    Learn,
    /// Stop what neither the profile nor the allow list has
    Enforce,
}

impl From<ModeName> for clew_sensor::Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Observe => Self::Observe,
            ModeName::Learn => Self::Learn,
            ModeName::Enforce => Self::Enforce,
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Allow {
    /// Programs that requests may start.
    pub(crate) exec: Vec<AllowExec>,
    /// Networks that requests may connect to.
    pub(crate) connect: Vec<AllowConnect>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllowExec {
    /// The program.
    pub(crate) path: PathBuf,
    /// Its arguments, from the name it is called by on: these and no others. Default: any.
    pub(crate) arguments: Option<Vec<String>>,
    /// The service whose requests may. Default: all.
    pub(crate) service: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllowConnect {
    /// Addresses: a network, like `10.1.0.0/16`.
    #[schemars(with = "String")]
    pub(crate) network: IpNet,
    /// The port. Default: any.
    pub(crate) port: Option<u16>,
    /// TCP, UDP, or raw sockets (with `network = "::/0"`).
    #[serde(default = "tcp")]
    #[schemars(with = "String", extend("enum" = ["tcp", "udp", "raw"]))]
    pub(crate) transport: Transport,
    /// The service whose requests may. Default: all.
    pub(crate) service: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BanTable {
    /// Whether verdicts ban. A hand may, either way.
    pub(crate) enabled: bool,
    /// How long a first offender is banned.
    pub(crate) seconds: u64,
    /// Each further offence is punished so many times longer; 1 is no escalation.
    pub(crate) escalation: u32,
    /// No ban that the escalation measures is longer.
    pub(crate) longest_seconds: u64,
    /// How long after the end of a ban an offence is a further one.
    pub(crate) memory_seconds: u64,
    /// Bits of an IPv4 address that are banned for one offender, 8 to 32.
    pub(crate) ipv4_prefix: u8,
    /// Bits of an IPv6 address, 8 to 128: an end site has 64 of them.
    pub(crate) ipv6_prefix: u8,
    /// Addresses and networks that are never banned, by nobody; beside `trust.hops`.
    pub(crate) never: Vec<String>,
    /// Bans are entered, shown and logged, and refuse nobody.
    pub(crate) dry_run: bool,
    /// Interfaces where packets of the banned are dropped (XDP), for the ports of listeners alone.
    pub(crate) interfaces: Vec<String>,
}

impl Default for BanTable {
    fn default() -> Self {
        Self {
            enabled: true,
            seconds: 3600,
            escalation: 4,
            longest_seconds: 7 * 86_400,
            memory_seconds: 7 * 86_400,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            never: Vec::new(),
            dry_run: false,
            interfaces: Vec::new(),
        }
    }
}

/// The admin API on TCP, beside its socket in the state directory.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminTable {
    /// Address and port. Other than loopback only with `tls`. Default: the socket alone.
    pub(crate) listen: Option<SocketAddr>,
    /// Who may ask, a line each: a name and a token of 32 bytes or more; readable by its owner alone. Needed without `tls`.
    /// Default: none.
    pub(crate) token_file: Option<PathBuf>,
    /// Clients show a certificate. Default: plain HTTP.
    pub(crate) tls: Option<AdminTls>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminTls {
    /// The API's certificate and its chain, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) key: PathBuf,
    /// Whose certificates clients may show, PEM.
    pub(crate) client_authorities: PathBuf,
}

/// Metrics and health on a port of their own.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ObserveTable {
    /// Address and port, for anybody who can connect. Default: none; the admin socket has them always.
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct State {
    /// The directory, of Clew's own: one that holds anything else is refused. Default: `/var/lib/clew` for root,
    /// `$XDG_STATE_HOME/clew` for others.
    pub(crate) directory: Option<PathBuf>,
    /// The account that Clew becomes when it was started as root.
    pub(crate) user: String,
}

impl Default for State {
    fn default() -> Self {
        Self {
            directory: None,
            user: "nobody".to_owned(),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EdgeTable {
    /// Worker threads, 1 to 256. Default: one a core.
    pub(crate) threads: Option<usize>,
    /// How long requests in flight may go on when Clew stops.
    pub(crate) shutdown_grace_seconds: u64,
    /// A file with a line for each request, in the combined form of web servers. Default: none.
    pub(crate) access_log: Option<PathBuf>,
}

/// What happens where a part fails: `open` goes on without it, `closed` does not.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fail {
    /// The programs cannot be loaded: `closed` does not start, `open` serves without a sensor.
    pub(crate) sensor: OpenOrClosed,
    /// The correlator's thread ends: `closed` stops the edge, `open` serves without protection.
    pub(crate) correlator: OpenOrClosed,
    /// No verdict within `sensor.hold_ms`: `open` lets the response go on, `closed` answers 503.
    pub(crate) verdict: OpenOrClosed,
    /// The correlator's queue is full: `open` serves a request that nobody could be named for, `closed`
    /// answers 503.
    pub(crate) record: OpenOrClosed,
    /// The audit log cannot be written: `open` makes the change all the same, `closed` refuses it.
    pub(crate) audit: OpenOrClosed,
}

impl Default for Fail {
    fn default() -> Self {
        Self {
            sensor: OpenOrClosed::Closed,
            correlator: OpenOrClosed::Closed,
            verdict: OpenOrClosed::Open,
            record: OpenOrClosed::Open,
            audit: OpenOrClosed::Open,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OpenOrClosed {
    /// Goes on without it.
    Open,
    /// Does not.
    Closed,
}

impl From<OpenOrClosed> for clew_proxy::OnFailure {
    fn from(it: OpenOrClosed) -> Self {
        match it {
            OpenOrClosed::Open => Self::Open,
            OpenOrClosed::Closed => Self::Closed,
        }
    }
}

/// Files of pages in place of Clew's own, at most 64 KiB each.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pages {
    /// What browsers are shown of a request that was blocked. Default: Clew's own.
    pub(crate) blocked_html: Option<PathBuf>,
    /// The same for who asks for JSON. Default: Clew's own.
    pub(crate) blocked_json: Option<PathBuf>,
    /// What browsers are shown when a request has failed. Default: Clew's own.
    pub(crate) failed_html: Option<PathBuf>,
    /// The same for who asks for JSON. Default: Clew's own.
    pub(crate) failed_json: Option<PathBuf>,
}

impl Default for EdgeTable {
    fn default() -> Self {
        Self {
            threads: None,
            shutdown_grace_seconds: 30,
            access_log: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn three() -> u64 {
    3
}

fn sixty() -> u64 {
    60
}

fn tcp() -> Transport {
    Transport::Tcp
}

/// Parses a file's text; errors say where in `name`.
pub(crate) fn parse(text: &str, name: &str) -> Result<Root> {
    toml::from_str(text).map_err(|error| {
        let Located {
            line,
            column,
            message,
        } = Located::of(text, &error);
        anyhow!("{name}:{line}:{column}: {message}")
    })
}
