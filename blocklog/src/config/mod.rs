//! The configuration: as it is written ([`RawSink`], [`RawSpool`]), then checked ([`Config`]).

mod raw;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clew_outbound::{Place, checked};

pub use raw::{Format, RawFilter, RawSink, RawSpool, SinkKind, SyslogTransport, WebhookBody};

use crate::Observer;
use crate::event::Event;

/// Smallest size of a spool: a sixteenth of it has room for an event.
const SPOOL_LEAST_BYTES: u64 = 2 << 20;
/// Most bytes of a syslog message: an event and what is before it.
pub(crate) const MESSAGE_BYTES: usize = crate::event::LINE_BYTES + 4096;

/// The block log's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) sinks: Vec<Sink>,
    pub(crate) spool: PathBuf,
    pub(crate) spool_bytes: u64,
    pub(crate) observer: Observer,
}

/// One sink.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) filter: Filter,
    pub(crate) target: Target,
}

/// Where events go, with all that is needed.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    File {
        path: PathBuf,
        rotate_bytes: u64,
        keep: u32,
    },
    Stdout,
    Network {
        protocol: Protocol,
        authorities: Option<PathBuf>,
        timeout: Duration,
        longest_pause: Duration,
        batch_events: usize,
    },
}

/// What is spoken to a network sink.
#[derive(Debug, Clone)]
pub(crate) enum Protocol {
    Syslog(SyslogReceiver),
    Elasticsearch {
        url: String,
        token: Option<Place>,
    },
    Splunk {
        url: String,
        index: Option<String>,
        token: Place,
    },
    Webhook {
        url: String,
        token: Option<Place>,
        secret: Option<Place>,
        body: WebhookBody,
    },
}

/// A syslog receiver, and how messages to it are.
#[derive(Debug, Clone)]
pub(crate) struct SyslogReceiver {
    pub(crate) address: SocketAddr,
    pub(crate) transport: SyslogTransport,
    pub(crate) server_name: String,
    pub(crate) facility: u8,
    /// None: without structured data.
    pub(crate) enterprise: Option<u32>,
    pub(crate) message_bytes: usize,
}

/// Why a configuration cannot be used; what to do about it is said.
#[derive(Debug, thiserror::Error)]
#[error("log {name:?}: {problem}")]
pub struct ConfigError {
    name: String,
    problem: String,
}

impl Config {
    /// Checks what was written. `state` is the directory that the spool is in, unless it has one of its own.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to do.
    pub fn check(
        sinks: &[RawSink],
        spool: &RawSpool,
        state: &Path,
        observer: Observer,
    ) -> Result<Self, ConfigError> {
        let checked: Result<Vec<Sink>, _> = sinks.iter().map(sink).collect();
        let sinks = checked?;
        let mut names = HashSet::new();
        if let Some(twice) = sinks.iter().find(|it| !names.insert(it.name.as_str())) {
            let problem = "there are two of this name; give each a `name` of its own";
            return Err(error(&twice.name, problem));
        }
        if spool.bytes < SPOOL_LEAST_BYTES {
            let problem = format!(
                "bytes is {}; give it {SPOOL_LEAST_BYTES} or more",
                spool.bytes
            );
            return Err(error("spool", problem));
        }
        let directory = spool.directory.clone();
        Ok(Self {
            sinks,
            spool: directory.unwrap_or_else(|| state.join("log-spool")),
            spool_bytes: spool.bytes,
            observer,
        })
    }

    /// Whether there is no sink.
    pub fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    /// The directories that are written to while it runs: files in them are made, renamed and removed. Who gives up
    /// rights between [`crate::BlockLog::open`] and [`crate::Opened::start`] makes them, and what is in the
    /// spool's, over to the account that it goes on as. A file's directory need not be: without it the file is
    /// written, but neither rotated nor opened anew.
    pub fn paths(&self) -> Paths {
        let files = self.sinks.iter().filter_map(|it| match &it.target {
            Target::File { path, .. } => Some(path.clone()),
            _ => None,
        });
        Paths {
            files: files.collect(),
            spool: self.has_network().then(|| self.spool.clone()),
        }
    }

    /// Whether anything waits on disk.
    pub(crate) fn has_network(&self) -> bool {
        let is_network = |it: &Sink| matches!(it.target, Target::Network { .. });
        self.sinks.iter().any(is_network)
    }
}

/// What is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Log files.
    pub files: Vec<PathBuf>,
    /// The spool's directory; none where nothing waits on disk.
    pub spool: Option<PathBuf>,
}

/// Which events a sink gets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter(RawFilter);

impl Filter {
    pub(crate) fn passes(&self, event: &Event) -> bool {
        let only = &self.0;
        let has_service = || {
            event
                .service()
                .is_some_and(|it| only.services.iter().any(|one| one == it))
        };
        (only.actions.is_empty() || only.actions.contains(&event.action()))
            && only
                .minimum_severity
                .is_none_or(|least| event.severity() >= least)
            && (only.services.is_empty() || has_service())
            && (!only.incidents || event.incident.is_some())
    }
}

fn error(name: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError {
        name: name.to_owned(),
        problem: problem.into(),
    }
}

fn sink(raw: &RawSink) -> Result<Sink, ConfigError> {
    let name = raw
        .name
        .clone()
        .unwrap_or_else(|| raw.sink.name().to_owned());
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_of_name) {
        let problem = "a name is made of 1 to 64 letters, digits, `-` and `_`";
        return Err(error(&name, problem));
    }
    let target = foreign_keys(raw).and_then(|()| target(raw));
    Ok(Sink {
        format: raw.format,
        filter: Filter(raw.only.clone()),
        target: target.map_err(|problem| error(&name, problem))?,
        name,
    })
}

/// Keys that mean nothing for this kind of sink are refused: they are there by mistake.
fn foreign_keys(raw: &RawSink) -> Result<(), String> {
    use SinkKind::{Elasticsearch, File, Splunk, Syslog, Webhook};
    let http: &[SinkKind] = &[Elasticsearch, Splunk, Webhook];
    let network: &[SinkKind] = &[Syslog, Elasticsearch, Splunk, Webhook];
    let keys: [(&str, bool, &[SinkKind]); 21] = [
        ("path", raw.path.is_some(), &[File]),
        ("rotate_bytes", raw.rotate_bytes.is_some(), &[File]),
        ("keep", raw.keep.is_some(), &[File]),
        ("address", raw.address.is_some(), &[Syslog]),
        ("transport", raw.transport.is_some(), &[Syslog]),
        ("server_name", raw.server_name.is_some(), &[Syslog]),
        ("facility", raw.facility.is_some(), &[Syslog]),
        ("structured_data", raw.structured_data.is_some(), &[Syslog]),
        ("enterprise", raw.enterprise.is_some(), &[Syslog]),
        ("message_bytes", raw.message_bytes.is_some(), &[Syslog]),
        ("authorities", raw.authorities.is_some(), network),
        ("url", raw.url.is_some(), http),
        ("index", raw.index.is_some(), &[Elasticsearch, Splunk]),
        ("token_file", raw.token_file.is_some(), http),
        ("token_env", raw.token_env.is_some(), http),
        ("secret_file", raw.secret_file.is_some(), &[Webhook]),
        ("secret_env", raw.secret_env.is_some(), &[Webhook]),
        ("body", raw.body.is_some(), &[Webhook]),
        ("timeout_seconds", raw.timeout_seconds.is_some(), network),
        ("retry_seconds", raw.retry_seconds.is_some(), network),
        ("batch_events", raw.batch_events.is_some(), network),
    ];
    let foreign = keys
        .iter()
        .find(|(_, is_set, kinds)| *is_set && !kinds.contains(&raw.sink));
    match foreign {
        Some((key, _, kinds)) => {
            let kinds: Vec<&str> = kinds.iter().map(|it| it.name()).collect();
            let kinds = kinds.join(", ");
            Err(format!(
                "`{key}` is for {kinds}; leave it out, or set `sink` to one of these"
            ))
        }
        None => Ok(()),
    }
}

fn target(raw: &RawSink) -> Result<Target, String> {
    let protocol = match raw.sink {
        SinkKind::Stdout => return Ok(Target::Stdout),
        SinkKind::File => return file(raw),
        SinkKind::Syslog => syslog(raw)?,
        SinkKind::Elasticsearch => elasticsearch(raw)?,
        SinkKind::Splunk => splunk(raw)?,
        SinkKind::Webhook => webhook(raw)?,
    };
    Ok(Target::Network {
        protocol,
        authorities: raw.authorities.clone(),
        timeout: Duration::from_secs(within("timeout_seconds", raw.timeout_seconds, 10, 1, 300)?),
        longest_pause: Duration::from_secs(within(
            "retry_seconds",
            raw.retry_seconds,
            30,
            1,
            3600,
        )?),
        batch_events: within("batch_events", raw.batch_events, 512, 1, 10_000)?,
    })
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: Option<T>,
    default: T,
    least: T,
    most: T,
) -> Result<T, String> {
    let value = value.unwrap_or(default);
    match value >= least && value <= most {
        true => Ok(value),
        false => Err(format!("`{key}` is {value}; give it {least} to {most}")),
    }
}

fn file(raw: &RawSink) -> Result<Target, String> {
    let rotate_bytes = raw.rotate_bytes.unwrap_or(100 << 20);
    if (1..crate::event::LINE_BYTES as u64).contains(&rotate_bytes) {
        let least = crate::event::LINE_BYTES;
        return Err(format!(
            "`rotate_bytes` is {rotate_bytes}; give it {least} or more, or 0 for never"
        ));
    }
    Ok(Target::File {
        path: raw
            .path
            .clone()
            .ok_or("`path` is missing; say which file")?,
        rotate_bytes,
        keep: within("keep", raw.keep, 5, 1, 1000)?,
    })
}

fn syslog(raw: &RawSink) -> Result<Protocol, String> {
    let transport = raw.transport.unwrap_or(SyslogTransport::Tls);
    let is_tls = transport == SyslogTransport::Tls;
    if !is_tls && (raw.server_name.is_some() || raw.authorities.is_some()) {
        return Err("`server_name` and `authorities` need `transport = \"tls\"`".to_owned());
    }
    let address = raw
        .address
        .ok_or("`address` is missing; say where the receiver listens")?;
    let most = match transport {
        // What a datagram of IPv4 has room for.
        SyslogTransport::Udp => 65_507,
        _ => MESSAGE_BYTES,
    };
    let default = match transport {
        SyslogTransport::Udp => 8192,
        _ => MESSAGE_BYTES,
    };
    let structured = raw.structured_data.unwrap_or(false);
    Ok(Protocol::Syslog(SyslogReceiver {
        address,
        transport,
        server_name: raw
            .server_name
            .clone()
            .unwrap_or_else(|| address.ip().to_string()),
        facility: within("facility", raw.facility, 13, 0, 23)?,
        enterprise: structured.then(|| raw.enterprise.unwrap_or(32_473)),
        message_bytes: within("message_bytes", raw.message_bytes, default, 4096, most)?,
    }))
}

fn elasticsearch(raw: &RawSink) -> Result<Protocol, String> {
    let token = Place::of("token", &raw.token_file, &raw.token_env)?;
    let index = raw.index.as_deref().unwrap_or("logs-clew.block-default");
    let is_of_index = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if index.is_empty() || !index.chars().all(is_of_index) {
        return Err("`index` is made of lower-case letters, digits, `-`, `_` and `.`".to_owned());
    }
    let url = url(raw, token.is_some())?;
    Ok(Protocol::Elasticsearch {
        url: format!("{url}/{index}/_bulk"),
        token,
    })
}

fn splunk(raw: &RawSink) -> Result<Protocol, String> {
    let token = Place::of("token", &raw.token_file, &raw.token_env)?;
    let url = url(raw, token.is_some())?;
    Ok(Protocol::Splunk {
        url: format!("{url}/services/collector/event"),
        index: raw.index.clone(),
        token: token.ok_or(
            "`token_file` or `token_env` is missing: the collector takes nothing without its token",
        )?,
    })
}

fn webhook(raw: &RawSink) -> Result<Protocol, String> {
    let token = Place::of("token", &raw.token_file, &raw.token_env)?;
    let secret = Place::of("secret", &raw.secret_file, &raw.secret_env)?;
    let url = url(raw, token.is_some())?;
    Ok(Protocol::Webhook {
        url,
        token,
        secret,
        body: raw.body.unwrap_or_default(),
    })
}

/// The URL without the slash at its end.
fn url(raw: &RawSink, has_token: bool) -> Result<String, String> {
    let url = raw
        .url
        .as_deref()
        .ok_or("`url` is missing; say where events go")?;
    checked(url, has_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, ConfigError> {
        #[derive(serde::Deserialize)]
        struct Root {
            log: Vec<RawSink>,
            #[serde(default)]
            log_spool: RawSpool,
        }
        let root: Root = toml::from_str(text).expect("TOML");
        let observer = Observer {
            hostname: "edge-1".to_owned(),
            version: "0.1.0".to_owned(),
        };
        Config::check(&root.log, &root.log_spool, Path::new("/state"), observer)
    }

    #[test]
    fn errors_say_what_to_do() {
        let cases = [
            ("sink = 'file'", "`path` is missing"),
            (
                "sink = 'file'\npath = 'a'\nrotate_bytes = 5",
                "65536 or more",
            ),
            (
                "sink = 'file'\npath = 'a'\nurl = 'https://a'",
                "`url` is for elasticsearch, splunk, webhook",
            ),
            ("sink = 'syslog'", "`address` is missing"),
            (
                "sink = 'syslog'\naddress = '127.0.0.1:1'\nfacility = 24",
                "0 to 23",
            ),
            (
                "sink = 'syslog'\naddress = '127.0.0.1:1'\ntransport = 'udp'\nserver_name = 'a'",
                "transport = \"tls\"",
            ),
            ("sink = 'splunk'\nurl = 'https://a'", "without its token"),
            ("sink = 'webhook'\nurl = 'https://a:b@c'", "`token_file`"),
            (
                "sink = 'webhook'\nurl = 'http://192.0.2.1'\ntoken_env = 'A'",
                "use https://",
            ),
            (
                "sink = 'webhook'\nurl = 'https://a'\ntoken_env = 'A'\ntoken_file = 'b'",
                "not both",
            ),
            ("sink = 'webhook'\nurl = 'ftp://a'", "https:// or http://"),
            ("sink = 'stdout'\nname = '../a'", "1 to 64 letters"),
            (
                "sink = 'stdout'\n[[log]]\nsink = 'stdout'",
                "`name` of its own",
            ),
            ("sink = 'stdout'\n[log_spool]\nbytes = 5", "2097152 or more"),
        ];
        for (text, expected) in cases {
            let error = check(&format!("[[log]]\n{text}")).expect_err(text);
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn paths_are_those_that_are_written() {
        let config = check(
            "[[log]]\nsink = 'file'\npath = '/a/b'\n[[log]]\nsink = 'webhook'\nurl = 'https://c'",
        );
        let paths = config.expect("a configuration").paths();
        assert_eq!(paths.files, [PathBuf::from("/a/b")]);
        assert_eq!(paths.spool, Some(PathBuf::from("/state/log-spool")));
    }
}
