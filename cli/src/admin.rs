//! The admin socket: a Unix socket that only the user Clew runs as, and root, may use.
//!
//! One JSON object a line each way; a line longer than a kilobyte ends the connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clew_protocol::Moment;
use clew_proxy::Handle;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::beat::Latest;

const SOCKET: &str = "admin.sock";
const LINE_BYTES: u64 = 1024;

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The bans in force.
    Bans,
    /// Ban an address, or all of a prefix.
    Ban { source: IpNet, seconds: u64 },
    /// Lift a ban.
    Unban { source: IpNet },
    /// Sums since start.
    Counters,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Reply {
    Bans {
        bans: Vec<BanEntry>,
    },
    Done {
        changed: bool,
    },
    Counters {
        edge: serde_json::Value,
        /// None without a sensor, and in the first second.
        kernel: Option<serde_json::Value>,
    },
    Error {
        message: String,
    },
}

/// One ban.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BanEntry {
    /// An address, or a prefix with its length.
    pub(crate) source: String,
    pub(crate) seconds_left: u64,
    pub(crate) incident: Option<String>,
    /// What was refused at the interfaces of `ban.interfaces`.
    pub(crate) dropped: Option<DroppedPackets>,
}

/// Packets of a banned source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DroppedPackets {
    pub(crate) packets: u64,
    /// How long after the ban the first was dropped, milliseconds.
    pub(crate) first_after_ms: f64,
}

/// The socket, bound; its file goes on drop.
pub(crate) struct Admin {
    listener: UnixListener,
    path: PathBuf,
}

impl Admin {
    /// Binds while there are rights to; a socket that nobody serves any more is replaced.
    pub(crate) fn bind(state: &Path) -> Result<Self> {
        let path = state.join(SOCKET);
        if path.exists() {
            if UnixStream::connect(&path).is_ok() {
                bail!(
                    "another clew serves {}; give each its own --state",
                    path.display()
                );
            }
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("cannot make the admin socket {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Answers until the process ends.
    pub(crate) fn serve(&self, handle: &Handle, sums: &Latest) {
        for stream in self.listener.incoming().flatten() {
            if let Err(error) = converse(&stream, handle, sums) {
                tracing::debug!(%error, "admin connection");
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            listener: self.listener.try_clone()?,
            path: self.path.clone(),
        })
    }
}

fn converse(stream: &UnixStream, handle: &Handle, sums: &Latest) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let line = read_line(stream)?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => answer(request, handle, sums),
        Err(error) => Reply::Error {
            message: error.to_string(),
        },
    };
    write_line(stream, &reply)
}

fn answer(request: Request, handle: &Handle, sums: &Latest) -> Reply {
    match request {
        Request::Bans => Reply::Bans { bans: bans(handle) },
        Request::Ban { source, seconds } => Reply::Done {
            changed: handle.ban(source, Duration::from_secs(seconds), None),
        },
        Request::Unban { source } => Reply::Done {
            changed: handle.unban(source),
        },
        Request::Counters => Reply::Counters {
            edge: serde_json::to_value(handle.counters()).unwrap_or_default(),
            kernel: sums
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .and_then(|sums| serde_json::to_value(sums).ok()),
        },
    }
}

fn bans(handle: &Handle) -> Vec<BanEntry> {
    let now = Moment::now();
    let entry = |ban: clew_proxy::Ban| BanEntry {
        source: name_of(ban.source),
        seconds_left: ban.until.since(now).as_secs(),
        incident: ban.incident.map(|incident| incident.to_string()),
        dropped: ban.dropped.map(|it| DroppedPackets {
            packets: it.packets,
            first_after_ms: it.first.since(ban.since).as_secs_f64() * 1e3,
        }),
    };
    handle.bans().into_iter().map(entry).collect()
}

/// An address without the length that says it is one.
fn name_of(source: IpNet) -> String {
    if source.prefix_len() == source.max_prefix_len() {
        source.addr().to_string()
    } else {
        source.to_string()
    }
}

/// Asks the clew that serves `state`.
pub(crate) fn ask(state: &Path, request: &Request) -> Result<Reply> {
    let path = state.join(SOCKET);
    let stream = UnixStream::connect(&path).with_context(|| {
        format!(
            "no clew answers at {}; is it running, with this --state?",
            path.display()
        )
    })?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write_line(&stream, request)?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    match serde_json::from_str(&line)? {
        Reply::Error { message } => bail!("{message}"),
        reply => Ok(reply),
    }
}

fn read_line(stream: &UnixStream) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES)).read_line(&mut line)?;
    Ok(line)
}

fn write_line(mut stream: &UnixStream, value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(stream.write_all(&line)?)
}
