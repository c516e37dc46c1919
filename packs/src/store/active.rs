//! `active.json`: which packs are in force, and what was before.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::PackId;
use crate::contents::folder::file_bytes;

pub(super) const FILE: &str = "active.json";

/// The file's largest size, bytes: far more than its bounds come to.
const BYTES: usize = 4 << 20;

/// How many earlier states are kept.
const HISTORY: usize = 32;

/// Which packs are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Active {
    /// In the order in which their rules are run (but for those that say `first`).
    pub packs: Vec<PackId>,
    /// What was in force before, the oldest first; at most 32.
    #[serde(default)]
    pub history: Vec<Vec<PackId>>,
}

impl Active {
    /// What the file says; nothing is in force where there is none.
    pub(super) fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = file_bytes(&path, BYTES)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            StoreError::Refused(format!(
                "{} cannot be read: {error}; remove it, and activate the packs again",
                path.display()
            ))
        })
    }

    /// The state after this one.
    pub(super) fn with(mut self, packs: Vec<PackId>) -> Self {
        self.history.push(std::mem::replace(&mut self.packs, packs));
        let old = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..old);
        self
    }

    /// The state before this one.
    pub(super) fn before(mut self) -> Option<Self> {
        self.packs = self.history.pop()?;
        Some(self)
    }
}
