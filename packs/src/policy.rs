//! What packs say about what requests do: programs, connections, files, bans. Plain data; the
//! sensor and the correlator carry it out.

use std::path::PathBuf;
use std::time::Duration;

use clew_protocol::kernel::Transport;
use ipnet::IpNet;
use serde::Serialize;

/// All that one pack, or all active packs together, say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Programs that may be started, beside those that the configuration and the profile allow.
    pub exec: Vec<ExecAllowance>,
    /// Where connections may go, likewise.
    pub connect: Vec<ConnectAllowance>,
    /// Files that are watched, likewise.
    pub files: Vec<WatchedFiles>,
    /// What becomes of the source of an attack; none: what the configuration says.
    pub ban: Option<BanPolicy>,
}

impl Policy {
    /// Adds what another pack says; its word on bans counts, if it has one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.exec.extend_from_slice(&other.exec);
        self.connect.extend_from_slice(&other.connect);
        self.files.extend_from_slice(&other.files);
        self.ban = other.ban.clone().or(self.ban.take());
    }

    /// Each statement on a line of its own, to be shown and compared.
    pub fn lines(&self) -> Vec<String> {
        let exec = self.exec.iter().map(ToString::to_string);
        let connect = self.connect.iter().map(ToString::to_string);
        let files = self.files.iter().map(ToString::to_string);
        let ban = self.ban.iter().map(ToString::to_string);
        exec.chain(connect).chain(files).chain(ban).collect()
    }
}

/// A program that may be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExecAllowance {
    /// Absolute.
    pub path: PathBuf,
    /// These and no others, the program's own name first; none: any.
    pub arguments: Option<Vec<String>>,
    /// Whose requests may; none: all services'.
    pub service: Option<String>,
}

impl std::fmt::Display for ExecAllowance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exec {}", self.path.display())?;
        if let Some(arguments) = &self.arguments {
            write!(f, " {arguments:?}")?;
        }
        of_service(f, self.service.as_deref())
    }
}

/// Where connections may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectAllowance {
    /// Which addresses.
    pub network: IpNet,
    /// None: any.
    pub port: Option<u16>,
    /// Over which protocol.
    pub transport: Transport,
    /// Whose requests may; none: all services'.
    pub service: Option<String>,
}

impl std::fmt::Display for ConnectAllowance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connect {}", self.network)?;
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        write!(f, " {:?}", self.transport)?;
        of_service(f, self.service.as_deref())
    }
}

/// Files that are watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WatchedFiles {
    /// Whose requests it is about; none: all services'.
    pub service: Option<String>,
    /// Absolute paths that requests may not open.
    pub protect: Vec<PathBuf>,
    /// Absolute paths where what requests write is remembered.
    pub web_root: Vec<PathBuf>,
    /// Requests may not write below `web_root`.
    pub refuse_writes: bool,
}

impl std::fmt::Display for WatchedFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "files protect {:?} web_root {:?}",
            self.protect, self.web_root
        )?;
        if self.refuse_writes {
            write!(f, " refuse_writes")?;
        }
        of_service(f, self.service.as_deref())
    }
}

/// What becomes of the source of an attack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BanPolicy {
    /// None: what the configuration says.
    pub enabled: Option<bool>,
    /// How long the first ban of a source lasts, 1 s to a year; none: what the configuration says.
    pub span: Option<Duration>,
    /// Each further ban lasts so many times longer than the one before; 1 to 100.
    pub escalation: u32,
    /// The longest that bans grow to, at most a year.
    pub most: Duration,
}

impl std::fmt::Display for BanPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ban")?;
        if let Some(enabled) = self.enabled {
            write!(f, " enabled {enabled}")?;
        }
        if let Some(span) = self.span {
            write!(f, " {} s", span.as_secs())?;
        }
        write!(
            f,
            " escalation {} most {} s",
            self.escalation,
            self.most.as_secs()
        )
    }
}

fn of_service(f: &mut std::fmt::Formatter<'_>, service: Option<&str>) -> std::fmt::Result {
    match service {
        Some(service) => write!(f, " service {service:?}"),
        None => Ok(()),
    }
}
