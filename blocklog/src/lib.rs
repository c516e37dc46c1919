//! The block log (work in progress).
#![forbid(unsafe_code)]

pub mod event;
#[cfg(test)]
mod sample;

/// Who tells.
#[derive(Debug, Clone)]
pub struct Observer {
    /// Name of this host.
    pub hostname: String,
    /// Version of Clew.
    pub version: String,
}
