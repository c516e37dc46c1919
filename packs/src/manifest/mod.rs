//! `pack.toml`: what a pack is called, which rules it has, and what else it says.

mod raw;
mod validate;

use std::fmt;

use clew_protocol::report::PackVersion;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::limit::Limit;
use crate::located::Located;
use crate::policy::Policy;

/// The name of the file in each pack.
pub const FILE: &str = "pack.toml";

/// The largest `pack.toml`, bytes.
pub(crate) const MANIFEST_BYTES: usize = 1 << 20;

/// `pack.toml`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its name.
    pub name: PackName,
    /// Its version.
    pub version: Version,
    /// The oldest Clew that it works with.
    pub clew: Version,
    /// What it is for.
    pub description: String,
    /// Whether its rules and limits stop what they match.
    pub mode: Mode,
    /// Its rules run before those of other packs.
    pub first: bool,
    /// Where its rules are, in order.
    pub rules: Vec<RuleSource>,
    /// What it says about what requests do.
    pub policy: Policy,
    /// Its rate limits.
    pub limits: Vec<Limit>,
}

impl Manifest {
    /// Reads and checks the text of a `pack.toml`.
    ///
    /// # Errors
    ///
    /// All that is wrong with it; where it is no TOML, the first.
    pub fn parse(text: &str) -> Result<Self, Vec<ManifestError>> {
        if text.len() > MANIFEST_BYTES {
            let message = format!("it is larger than {MANIFEST_BYTES} bytes");
            return Err(vec![ManifestError { at: None, message }]);
        }
        let raw = toml::from_str(text).map_err(|error| vec![located(text, &error)])?;
        validate::manifest(raw)
    }

    /// Name and version.
    pub fn id(&self) -> PackId {
        PackId {
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }
}

/// What is wrong with a `pack.toml`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{FILE}{}: {message}", at.map_or_else(String::new, |(line, column)| format!(":{line}:{column}")))]
pub struct ManifestError {
    /// 1-based line and column, where it is known.
    pub at: Option<(usize, usize)>,
    /// What, and what to write instead.
    pub message: String,
}

/// Whether a pack stops what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Rules act as they are written.
    Block,
    /// Rules match and are logged; what they would have done to the request is left out.
    Detect,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Detect => "detect",
        })
    }
}

/// Where rules are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    /// Files in the pack: a name, or a glob.
    Inside(String),
    /// A file of the host, by its absolute path.
    Outside(std::path::PathBuf),
}

/// The name of a pack: lower-case letters, digits and `-`, which begins with a letter; at most 64. It is
/// the name of a folder, too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PackName(String);

impl PackName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PackName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match validate::is_name(&text) {
            true => Ok(Self(text)),
            false => Err(format!(
                "{text:?} is no name: write lower-case letters, digits and -, beginning with a letter, at most 64"
            )),
        }
    }
}

impl std::str::FromStr for PackName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

/// Name and version of a pack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackId {
    /// Its name.
    pub name: PackName,
    /// Its version.
    pub version: Version,
}

impl PackId {
    /// As block log and incidents name it.
    pub fn reported(&self) -> PackVersion {
        PackVersion {
            name: self.name.to_string(),
            version: self.version.to_string(),
        }
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

fn located(text: &str, error: &toml::de::Error) -> ManifestError {
    let Located {
        line,
        column,
        message,
    } = Located::of(text, error);
    ManifestError {
        at: Some((line, column)),
        message,
    }
}

#[cfg(test)]
mod tests;
