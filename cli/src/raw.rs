//! The configuration file as it is written. Unknown keys are refused, with the nearest known one.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clew_protocol::kernel::Transport;
use ipnet::IpNet;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Root {
    pub(crate) listener: Vec<Listener>,
    pub(crate) service: Vec<Service>,
    pub(crate) limits: LimitsTable,
    pub(crate) trust: Trust,
    pub(crate) rules: Rules,
    pub(crate) packs: Packs,
    pub(crate) sensor: Sensor,
    pub(crate) allow: Allow,
    pub(crate) ban: BanTable,
    pub(crate) admin: AdminTable,
    pub(crate) observe: ObserveTable,
    pub(crate) state: State,
    pub(crate) edge: EdgeTable,
    pub(crate) pages: Pages,
    pub(crate) fail: Fail,
    pub(crate) log: Vec<clew_blocklog::RawSink>,
    pub(crate) log_spool: clew_blocklog::RawSpool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Tls>,
    #[serde(default)]
    pub(crate) proxy_protocol: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    #[serde(default)]
    pub(crate) minimum: TlsVersion,
    pub(crate) clients: Option<ClientCertificates>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Mutual TLS: whose certificates clients show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientCertificates {
    pub(crate) authorities: PathBuf,
    #[serde(default = "yes")]
    pub(crate) required: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    pub(crate) upstreams: Vec<SocketAddr>,
    pub(crate) tls: Option<UpstreamTls>,
    #[serde(default)]
    pub(crate) http: HttpVersion,
    pub(crate) health_check_seconds: Option<u64>,
    pub(crate) health_check_path: Option<String>,
    #[serde(default = "three")]
    pub(crate) connect_timeout_seconds: u64,
    #[serde(default = "sixty")]
    pub(crate) read_timeout_seconds: u64,
    #[serde(default = "sixty")]
    pub(crate) write_timeout_seconds: u64,
    pub(crate) idle_timeout_seconds: Option<u64>,
    #[serde(default)]
    pub(crate) files: Files,
}

/// Files of the service's backends that are watched.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Files {
    pub(crate) protect: Vec<PathBuf>,
    pub(crate) web_root: Vec<PathBuf>,
    pub(crate) refuse_writes: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamTls {
    pub(crate) server_name: String,
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) identity: Option<Identity>,
}

/// What the edge shows of itself to backends.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum HttpVersion {
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsTable {
    pub(crate) connections: Option<usize>,
    pub(crate) head_bytes: Option<usize>,
    pub(crate) headers: Option<usize>,
    pub(crate) body_bytes: Option<u64>,
    pub(crate) head_seconds: Option<u64>,
    pub(crate) body_seconds: Option<u64>,
    pub(crate) keepalive_seconds: Option<u64>,
    pub(crate) write_seconds: Option<u64>,
    pub(crate) h2_streams: Option<u32>,
    pub(crate) bans: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Trust {
    pub(crate) hops: Vec<String>,
    pub(crate) header: HeaderChoice,
    pub(crate) shared: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HeaderChoice {
    #[default]
    XForwardedFor,
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

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rules {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) engine: Option<EngineName>,
    pub(crate) body_processors: bool,
    pub(crate) request_body: Option<bool>,
    pub(crate) request_body_bytes: Option<u64>,
    pub(crate) response_body: Option<bool>,
    pub(crate) response_body_bytes: Option<u64>,
    pub(crate) beyond_limit: Option<BeyondLimit>,
    pub(crate) budget_ms: u64,
    pub(crate) over_budget: Strictness,
    pub(crate) kept_bodies_bytes: usize,
    pub(crate) unknown_coding: Strictness,
    pub(crate) expansion: u32,
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
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Packs {
    pub(crate) trust: Vec<String>,
    pub(crate) allow_unsigned: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EngineName {
    On,
    DetectionOnly,
    Off,
}

/// What happens to what a body has beyond the limit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BeyondLimit {
    Refuse,
    Stream,
}

/// What happens to what cannot be judged.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Strictness {
    Refuse,
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

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sensor {
    pub(crate) enabled: bool,
    pub(crate) mode: ModeName,
    pub(crate) fallback_mode: ModeName,
    pub(crate) heartbeat_seconds: u64,
    pub(crate) hold_ms: u64,
    pub(crate) redact_environment: bool,
    pub(crate) trampolines: Vec<PathBuf>,
    pub(crate) profile: Option<PathBuf>,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) on_stop: OnStop,
    pub(crate) trace_opens: bool,
}

/// What becomes of the programs when Clew stops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnStop {
    #[default]
    Remove,
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

#[derive(Debug, Clone, Copy, Deserialize, clap::ValueEnum)]
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

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Allow {
    pub(crate) exec: Vec<AllowExec>,
    pub(crate) connect: Vec<AllowConnect>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllowExec {
    pub(crate) path: PathBuf,
    pub(crate) arguments: Option<Vec<String>>,
    pub(crate) service: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllowConnect {
    pub(crate) network: IpNet,
    pub(crate) port: Option<u16>,
    #[serde(default = "tcp")]
    pub(crate) transport: Transport,
    pub(crate) service: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BanTable {
    /// Whether verdicts ban; default yes. A hand may, either way.
    pub(crate) enabled: bool,
    /// Of a first offence, seconds; default an hour.
    pub(crate) seconds: u64,
    /// Each further offence is punished so many times longer; default 4, and 1 is no escalation.
    pub(crate) escalation: u32,
    /// No ban that the escalation measures is longer, seconds; default a week.
    pub(crate) longest_seconds: u64,
    /// How long after the end of a ban an offence is a further one, seconds; default a week.
    pub(crate) memory_seconds: u64,
    /// Bits of an IPv4 address that are banned for one offender; default 32.
    pub(crate) ipv4_prefix: u8,
    /// Bits of an IPv6 address; default 64, for an end site has as many addresses.
    pub(crate) ipv6_prefix: u8,
    /// Networks and addresses that are never banned, by nobody; default none, beside `trust.hops`.
    pub(crate) never: Vec<String>,
    /// Bans are entered, shown and logged, and refuse nobody; default no.
    pub(crate) dry_run: bool,
    /// Interfaces that banned sources are refused at; default none.
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
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdminTable {
    /// Where, beside the socket; default nowhere. Other than loopback only with `tls`.
    pub(crate) listen: Option<SocketAddr>,
    /// Who may ask, a line each: a name and a token. Default nobody; needed without `tls`.
    pub(crate) token_file: Option<PathBuf>,
    /// Clients show a certificate; default plain HTTP.
    pub(crate) tls: Option<AdminTls>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminTls {
    /// The API's own chain, PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, PEM.
    pub(crate) key: PathBuf,
    /// Whose certificates clients may show, PEM.
    pub(crate) client_authorities: PathBuf,
}

/// Metrics and health on a port of their own.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ObserveTable {
    /// Where, for anybody who can connect; default nowhere: the admin socket has them too.
    pub(crate) listen: Option<SocketAddr>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct State {
    pub(crate) directory: Option<PathBuf>,
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

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EdgeTable {
    pub(crate) threads: Option<usize>,
    pub(crate) shutdown_grace_seconds: u64,
    pub(crate) access_log: Option<PathBuf>,
}

/// What happens where a part fails: `open` goes on without it, `closed` does not.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fail {
    /// The programs cannot be loaded: `closed` (the default) does not start, `open` serves without a sensor.
    pub(crate) sensor: OpenOrClosed,
    /// The correlator's thread ends: `closed` (the default) stops the edge, `open` serves without protection.
    pub(crate) correlator: OpenOrClosed,
    /// No verdict within `sensor.hold_ms`: `open` (the default) lets the response go on, `closed` answers 503.
    pub(crate) verdict: OpenOrClosed,
    /// The correlator's queue is full: `open` (the default) serves a request that nobody could be named for, `closed`
    /// answers 503.
    pub(crate) record: OpenOrClosed,
    /// The audit log cannot be written: `open` (the default) makes the change all the same, `closed` refuses it.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pages {
    pub(crate) blocked_html: Option<PathBuf>,
    pub(crate) blocked_json: Option<PathBuf>,
    pub(crate) failed_html: Option<PathBuf>,
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
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1;
        let hint = nearest(error.message()).unwrap_or_default();
        anyhow!("{name}:{line}:{column}: {}{hint}", error.message())
    })
}

/// For "unknown field `x`, expected one of `a`, `b`": which of them was meant.
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let unknown = quoted.next()?;
    let known = quoted.max_by(|a, b| {
        strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown))
    })?;
    Some(format!("; did you mean `{known}`?"))
}
