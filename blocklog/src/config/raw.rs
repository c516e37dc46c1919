//! `[[log]]` and `[log_spool]` of the configuration file, as they are written.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{EventAction, Severity};

/// One sink of the block log. Which keys it may have besides `sink`, `name`, `format` and `only`, depends on `sink`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSink {
    /// Where events go.
    pub sink: SinkKind,
    /// Its name in counters and in the spool: letters, digits, `-` and `_`, at most 64. Default: that of `sink`.
    pub name: Option<String>,
    /// How events are written.
    #[serde(default)]
    pub format: Format,
    /// Which events it gets. Default: all.
    #[serde(default)]
    pub only: RawFilter,
    /// For `file`: the file that lines are appended to. A symbolic link is refused. Default: none, and it is needed.
    pub path: Option<PathBuf>,
    /// For `file`: it is set aside before it is larger than this, bytes. Default: 100 MiB. 0: never.
    pub rotate_bytes: Option<u64>,
    /// For `file`: how many files that were set aside are kept, as `PATH.1` (the latest) and so on; 1 to 1,000.
    /// Default: 5.
    pub keep: Option<u32>,
    /// For `syslog`: address and port of the receiver. Default: none, and it is needed.
    pub address: Option<SocketAddr>,
    /// For `syslog`: what carries messages. Default: `tls`.
    pub transport: Option<SyslogTransport>,
    /// For `syslog` over TLS: the name that the receiver's certificate must have. Default: its address.
    pub server_name: Option<String>,
    /// For TLS of any kind: a PEM file of the certificate authorities that are trusted. Default: the system's.
    pub authorities: Option<PathBuf>,
    /// For `syslog`: the facility, 0 to 23 (RFC 5424 table 1); 13 is log audit. Default: 13.
    pub facility: Option<u8>,
    /// For `syslog`: the main fields are given as structured data too (RFC 5424 §6.3). Default: false.
    pub structured_data: Option<bool>,
    /// For `syslog`: private enterprise number in the name of the structured data; that of examples. Default: 32473.
    pub enterprise: Option<u32>,
    /// For `syslog`: most bytes of a message; events are cut to it. 4,096 to 69,632 (UDP: 65,507). Default: 8,192
    /// over UDP, else 69,632.
    pub message_bytes: Option<usize>,
    /// For `elasticsearch`, `splunk` and `webhook`: `https://HOST:PORT` and the path before that of the API. `http://`
    /// with a token or a secret is refused, except to this host. Default: none, and it is needed.
    pub url: Option<String>,
    /// For `elasticsearch`: the index or data stream; for `splunk`: the index. Default: `logs-clew.block-default`; that
    /// of the token.
    pub index: Option<String>,
    /// For HTTP sinks: a file with the token (`elasticsearch`: an API key as it is given out, base64; `splunk`: the
    /// HEC token; `webhook`: a bearer token). Default: none.
    pub token_file: Option<PathBuf>,
    /// For HTTP sinks: the environment variable that has the token. Default: none.
    pub token_env: Option<String>,
    /// For `webhook`: a file with the secret that bodies are signed with (HMAC-SHA256). Default: none.
    pub secret_file: Option<PathBuf>,
    /// For `webhook`: the environment variable that has that secret. Default: none.
    pub secret_env: Option<String>,
    /// For `webhook`: what a body is. Default: `lines`.
    pub body: Option<WebhookBody>,
    /// For network sinks: most seconds that one attempt takes, 1 to 300. Default: 10.
    pub timeout_seconds: Option<u64>,
    /// For network sinks: most seconds between two attempts, 1 to 3,600; the first pause is a tenth of a second, and
    /// each is twice as long as the one before. Default: 30.
    pub retry_seconds: Option<u64>,
    /// For network sinks: most events sent at once, 1 to 10,000. Default: 512.
    pub batch_events: Option<usize>,
}

/// Which events a sink gets. What is not given lets all pass.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawFilter {
    /// What became of that which they tell of. Default: all.
    pub actions: Vec<EventAction>,
    /// Of this severity or graver. Default: all.
    pub minimum_severity: Option<Severity>,
    /// Of requests for these services. Default: all, and those for none.
    pub services: Vec<String>,
    /// Of the correlator alone.
    pub incidents: bool,
}

/// `[log_spool]`: where events wait for network sinks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSpool {
    /// The directory. Default: `log-spool` in the state directory.
    pub directory: Option<PathBuf>,
    /// Most bytes that wait; beyond, the oldest sixteenth is dropped. At least 2 MiB.
    pub bytes: u64,
}

impl Default for RawSpool {
    fn default() -> Self {
        Self {
            directory: None,
            bytes: 256 << 20,
        }
    }
}

/// Where events go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// A file, rotated by size.
    File,
    /// Standard output.
    #[default]
    Stdout,
    /// A syslog receiver (RFC 5424).
    Syslog,
    /// The bulk API of Elasticsearch, or OpenSearch.
    Elasticsearch,
    /// Splunk's HTTP Event Collector.
    Splunk,
    /// Any HTTP endpoint.
    Webhook,
}

impl SinkKind {
    /// As it is written.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Stdout => "stdout",
            Self::Syslog => "syslog",
            Self::Elasticsearch => "elasticsearch",
            Self::Splunk => "splunk",
            Self::Webhook => "webhook",
        }
    }

    /// Whether events wait for it on disk.
    pub const fn is_network(self) -> bool {
        !matches!(self, Self::File | Self::Stdout)
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Elastic Common Schema 8.
    #[default]
    Ecs,
    /// Open Cybersecurity Schema Framework 1.6.
    Ocsf,
}

/// What carries syslog messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogTransport {
    /// A datagram each (RFC 5426).
    Udp,
    /// Octet counting (RFC 6587 §3.4.1).
    Tcp,
    /// The same over TLS (RFC 5425).
    Tls,
}

/// The body of what a webhook is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookBody {
    /// An event a line (`application/x-ndjson`).
    #[default]
    Lines,
    /// One JSON array (`application/json`).
    Array,
}
