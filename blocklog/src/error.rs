//! Why a block log cannot start.

use std::io;

use crate::spool::SpoolError;

/// Why a block log cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A log file cannot be opened.
    #[error("cannot write the log {path}: {error}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A receiver cannot be spoken to.
    #[error(transparent)]
    Receiver(#[from] clew_outbound::Error),
    /// A name that no certificate can have.
    #[error("server_name {0:?} is neither a host name nor an address")]
    ServerName(String),
    /// A thread cannot be started.
    #[error("cannot start a thread of the log: {0}")]
    Thread(io::Error),
}
