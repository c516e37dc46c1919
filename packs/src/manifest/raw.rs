//! `pack.toml` as it is written. Unknown keys are refused, with the nearest known one.

use std::path::PathBuf;

use clew_protocol::kernel::Transport;
use ipnet::IpNet;
use serde::Deserialize;

use super::Mode;
use crate::limit::{LimitAction, LimitKey};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    /// The pack's name: lower-case letters, digits and `-`, at most 64.
    pub(super) name: String,
    /// Its version (Semantic Versioning 2).
    pub(super) version: String,
    /// The oldest Clew that it works with, for example `0.1`.
    pub(super) clew: String,
    /// What it is for, a sentence or a few; at most 4096 bytes.
    pub(super) description: String,
    /// Whether its rules stop what they match.
    pub(super) mode: Mode,
    /// Whether its rules run before those of other packs, as exceptions from them must. Default false.
    #[serde(default)]
    pub(super) first: bool,
    /// Its SecLang rules.
    #[serde(default)]
    pub(super) rules: Rules,
    /// Programs that requests may start.
    #[serde(default)]
    pub(super) exec: Vec<Exec>,
    /// Where requests may connect to.
    #[serde(default)]
    pub(super) connect: Vec<Connect>,
    /// Files that are watched.
    #[serde(default)]
    pub(super) files: Vec<Files>,
    /// What becomes of the source of an attack.
    pub(super) ban: Option<Ban>,
    /// How often something may be asked for.
    #[serde(default)]
    pub(super) limit: Vec<Limit>,
}

/// `[rules]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rules {
    /// Rule files, in the order in which they take effect: names or globs within the pack, or absolute
    /// paths of rules that are installed on the host. Default `["rules/*.conf"]`.
    pub(super) files: Vec<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            files: vec!["rules/*.conf".to_owned()],
        }
    }
}

/// `[[exec]]`: a program that may be started. All others are stopped anyway, so there is no way to forbid one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    /// The program's absolute path.
    pub(super) path: PathBuf,
    /// Its arguments, the first (its own name) among them: these and no others. Default: any.
    pub(super) arguments: Option<Vec<String>>,
    /// The service whose requests may. Default: all.
    pub(super) service: Option<String>,
}

/// `[[connect]]`: where connections may go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connect {
    /// An address or network.
    pub(super) network: IpNet,
    /// The port. Default: any.
    pub(super) port: Option<u16>,
    /// `tcp` (the default), `udp` or `raw`.
    #[serde(default = "tcp")]
    pub(super) transport: Transport,
    /// The service whose requests may. Default: all.
    pub(super) service: Option<String>,
}

/// `[[files]]`: files that are watched, as in `[service.files]` of the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    /// The service whose requests it is about. Default: all.
    pub(super) service: Option<String>,
    /// Absolute paths that requests may not open.
    #[serde(default)]
    pub(super) protect: Vec<PathBuf>,
    /// Absolute paths where what requests write is remembered.
    #[serde(default)]
    pub(super) web_root: Vec<PathBuf>,
    /// Requests may not write below `web_root`. Default false.
    #[serde(default)]
    pub(super) refuse_writes: bool,
}

/// `[ban]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ban {
    /// Whether sources are banned at all. Default: what the configuration says.
    pub(super) enabled: Option<bool>,
    /// How long the first ban of a source lasts, seconds; 1 to a year.
    pub(super) seconds: Option<u64>,
    /// Each further ban of the same source lasts so many times longer than the one before; 1 to 100. Default 1.
    pub(super) escalation: Option<u32>,
    /// The longest that bans grow to, seconds. Default: 30 days, or `seconds` if that is more.
    pub(super) most_seconds: Option<u64>,
}

/// `[[limit]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    /// What logs call it: lower-case letters, digits and `-`, at most 64.
    pub(super) name: String,
    /// Who is counted: `client` (by address; the default) or `token` (by what a header says).
    #[serde(default)]
    pub(super) key: LimitKey,
    /// With `key = "token"`, the header. Default `authorization`.
    pub(super) header: Option<String>,
    /// This path and all below it; with `*` in it, whole paths, `*` being any characters. Default `/`: all.
    pub(super) path: Option<String>,
    /// Methods that count. Default: all.
    #[serde(default)]
    pub(super) methods: Vec<String>,
    /// So many requests, 1 to 1,000,000,
    pub(super) requests: u32,
    /// in so many seconds, 1 to 86,400.
    pub(super) seconds: u64,
    /// What further ones are answered, 400 to 599. Default 429 (RFC 6585 section 4).
    pub(super) status: Option<u16>,
    /// `refuse` (the default), or `ban`: the source is banned as well.
    #[serde(default)]
    pub(super) action: LimitAction,
}

fn tcp() -> Transport {
    Transport::Tcp
}
