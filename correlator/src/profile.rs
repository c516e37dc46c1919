//! A profile: what a workload's requests have been seen to do, and may do from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use clew_protocol::kernel::{Connect, Exec, Transport};
use serde::{Deserialize, Serialize};

/// Most entries of each kind per service; what goes beyond is not learned.
const ENTRIES: usize = 4096;

/// Programs whose arguments decide what they do. A rule for one of these covers the exact
/// arguments only: a profile that says "sh may run" would let every injection pass.
const INTERPRETERS: [&str; 17] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "busybox", "python", "perl", "php", "ruby", "node",
    "lua", "java", "awk", "env", "xargs",
];

/// What each service's requests do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// By the service's name.
    pub services: BTreeMap<String, ServiceProfile>,
}

/// What one service's requests do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceProfile {
    /// Programs started.
    #[serde(default)]
    pub exec: BTreeSet<ExecEntry>,
    /// Flows opened.
    #[serde(default)]
    pub connect: BTreeSet<ConnectEntry>,
}

/// A program that was started.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecEntry {
    /// Path of the executable.
    pub path: String,
    /// The exact arguments, for an interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
}

/// A flow that was opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectEntry {
    /// Where to.
    pub target: SocketAddr,
    /// Transport protocol.
    pub transport: Transport,
}

impl Profile {
    /// Learns a program start; whether it was new.
    ///
    /// What cannot be said exactly is not learned: a path or argument that is not UTF-8 or was
    /// cut.
    pub fn learn_exec(&mut self, service: &str, exec: &Exec) -> bool {
        let process = &exec.process;
        let Ok(path) = String::from_utf8(process.executable.clone()) else {
            return false;
        };
        let arguments = if is_interpreter(&path) {
            let exact = process.arguments.iter().cloned().map(String::from_utf8);
            match exact.collect::<Result<Vec<_>, _>>() {
                Ok(arguments) if !process.truncated => Some(arguments),
                _ => return false,
            }
        } else {
            None
        };
        let known = &mut self.service(service).exec;
        known.len() < ENTRIES && known.insert(ExecEntry { path, arguments })
    }

    /// Learns a flow; whether it was new.
    pub fn learn_connect(&mut self, service: &str, connect: &Connect) -> bool {
        let known = &mut self.service(service).connect;
        let entry = ConnectEntry {
            target: connect.target,
            transport: connect.transport,
        };
        known.len() < ENTRIES && known.insert(entry)
    }

    fn service(&mut self, name: &str) -> &mut ServiceProfile {
        self.services.entry(name.to_owned()).or_default()
    }
}

/// By name, version numbers aside: `python3.11`, `php-cgi8.2`, `busybox`.
fn is_interpreter(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS
        .iter()
        .any(|known| stem == *known || stem.starts_with(&format!("{known}-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_by_any_version() {
        for path in [
            "/bin/sh",
            "/usr/bin/python3.11",
            "/usr/bin/php-cgi8.2",
            "/usr/bin/perl5.36",
        ] {
            assert!(is_interpreter(path), "{path}");
        }
        for path in ["/usr/bin/convert", "/usr/bin/shred", "/usr/bin/nodemon-x"] {
            assert!(!is_interpreter(path), "{path}");
        }
    }
}
