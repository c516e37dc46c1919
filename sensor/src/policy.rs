//! What a request's lineage may do, as people say it, and as the maps hold it.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clew_protocol::kernel::Transport;
use clew_sensor_abi::file::{
    NAME_BYTES, NameKey, RULE_CLOSED, RULE_NAMES, RULE_REMEMBER, RULE_SECRET, WatchKey,
};
use clew_sensor_abi::policy::{
    ARGUMENTS_ANY, ARGUMENTS_SOME, CONNECT_FIXED_BITS, ConnectKey, ExecKey, PROTOCOL_RAW,
    arguments_hash,
};
use clew_sensor_abi::settings::{MODE_ENFORCE, MODE_LEARN, MODE_OBSERVE};

use crate::file::Mounts;

/// What happens to what the policy does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing; it is reported.
    Observe,
    /// Nothing; a profile is written from the reports.
    Learn,
    /// Programs are killed, connections that a profile lacks are denied.
    Enforce,
}

impl Mode {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Mode::Observe => MODE_OBSERVE,
            Mode::Learn => MODE_LEARN,
            Mode::Enforce => MODE_ENFORCE,
        }
    }
}

/// A program that requests may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRule {
    /// Index of the service in [`crate::Config::services`], or none for all.
    pub service: Option<usize>,
    /// The program. A file that is not there (yet) is reported and left out.
    pub path: PathBuf,
    /// The exact arguments, `argv[0]` first; none for any.
    pub arguments: Option<Vec<Vec<u8>>>,
}

/// Where requests may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRule {
    /// Index of the service in [`crate::Config::services`], or none for all.
    pub service: Option<usize>,
    /// Network address.
    pub address: IpAddr,
    /// Prefix length in the address's own family.
    pub prefix_len: u8,
    /// Port; none for any.
    pub port: Option<u16>,
    /// Transport protocol.
    pub transport: Transport,
}

/// Files that a service's requests are watched at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRule {
    /// Index of the service in [`crate::Config::services`].
    pub service: usize,
    /// A file, or a directory and all that is below it in its file system.
    pub path: PathBuf,
    /// What is done there.
    pub watch: Watch,
}

/// What is done about what requests do to a file. Where the kernel has no BPF LSM it is reported, and not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// They may not open it.
    Protect,
    /// They may not write to it.
    Close,
    /// What they write to it is remembered, and told when another request runs or reads it.
    Remember,
}

impl Watch {
    const fn rule(self) -> u32 {
        match self {
            Self::Protect => RULE_SECRET,
            Self::Close => RULE_CLOSED,
            Self::Remember => RULE_REMEMBER,
        }
    }
}

/// Rules by file, and by name in a directory.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) files: HashMap<WatchKey, u32>,
    pub(crate) names: HashMap<NameKey, u32>,
}

impl Watched {
    /// Looks the files up. What is not there, and whose directory is not there either, is reported and left out.
    pub(crate) fn new(rules: &[FileRule], mounts: &Mounts) -> Self {
        let mut watched = Self::default();
        for rule in rules {
            if let Err(error) = watched.add(rule, mounts) {
                tracing::warn!(path = %rule.path.display(), %error, "file cannot be watched");
            }
        }
        watched
    }

    fn add(&mut self, rule: &FileRule, mounts: &Mounts) -> io::Result<()> {
        let path = std::fs::canonicalize(&rule.path);
        let path = path.unwrap_or_else(|_| rule.path.clone());
        let key = |path: &Path| {
            mounts.key_of(path).map(|file| WatchKey {
                file,
                service: service_number(Some(rule.service)),
                pad: 0,
            })
        };
        let own = key(&path);
        if let Ok(own) = own {
            *self.files.entry(own).or_default() |= rule.watch.rule();
        }
        // Files are replaced by others of the same name.
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return own.map(drop);
        };
        let name = name.as_encoded_bytes();
        if name.len() >= NAME_BYTES {
            return own.map(drop);
        }
        let parent = key(directory)?;
        let mut padded = [0; NAME_BYTES];
        padded[..name.len()].copy_from_slice(name);
        let name = NameKey {
            parent,
            name: padded,
        };
        *self.files.entry(parent).or_default() |= RULE_NAMES;
        *self.names.entry(name).or_default() |= rule.watch.rule();
        Ok(())
    }
}

/// Everything allowed. The default allows nothing.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Programs.
    pub exec: Vec<ExecRule>,
    /// Flows.
    pub connect: Vec<ConnectRule>,
    /// Launchers beside those found by themselves (`jspawnhelper` of every JDK on the host).
    pub trampolines: Vec<PathBuf>,
    /// Files.
    pub files: Vec<FileRule>,
    /// Indices of the services that have a profile: connections it lacks are denied.
    pub profiled: Vec<usize>,
}

/// A service's number in the kernel, as it is in tokens ([`clew_protocol::ServiceId`]): 0 stands for all.
pub(crate) fn service_number(index: Option<usize>) -> u32 {
    index.map_or(0, |index| index as u32 + 1)
}

impl ExecRule {
    /// The map keys; none, with the reason logged, when the file cannot be found.
    pub(crate) fn keys(&self, key: (u64, u64), mounts: &Mounts) -> Vec<ExecKey> {
        let file = match mounts.key_of(&self.path) {
            Ok(file) => file,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error,
                    "program on the allow list cannot be found; it is not allowed");
                return Vec::new();
            }
        };
        let hashed = self.arguments.as_ref().map(|arguments| {
            let block: Vec<u8> = arguments
                .iter()
                .flat_map(|a| [a.as_slice(), &[0]].concat())
                .collect();
            arguments_hash(key.0, key.1, &block)
        });
        let arguments = hashed.map_or(vec![ARGUMENTS_ANY], |hash| vec![hash, ARGUMENTS_SOME]);
        let key = |arguments| ExecKey {
            file,
            arguments,
            service: service_number(self.service),
            pad: 0,
        };
        arguments.into_iter().map(key).collect()
    }
}

impl ConnectRule {
    pub(crate) fn key(&self) -> ConnectKey {
        let (address, family_bits) = match self.address {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 96),
            IpAddr::V6(v6) => (v6, 0),
        };
        ConnectKey {
            prefix_bits: CONNECT_FIXED_BITS + family_bits + u32::from(self.prefix_len),
            service: service_number(self.service),
            port: self.port.unwrap_or(0),
            protocol: match self.transport {
                Transport::Tcp => 6,
                Transport::Udp => 17,
                Transport::Raw => PROTOCOL_RAW,
            },
            address: address.octets(),
        }
    }
}
