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
    /// A token or key cannot be had.
    #[error("cannot take the secret from {place}: {problem}")]
    Secret {
        /// A file or an environment variable.
        place: String,
        /// Why.
        problem: String,
    },
    /// The certificate authorities cannot be read.
    #[error("cannot read the authorities {path}: {problem}; give a PEM file of certificates")]
    Authorities {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        problem: String,
    },
    /// The system has no certificate authorities.
    #[error(
        "this system has no certificate authorities; install ca-certificates, or set `authorities`"
    )]
    NoAuthorities,
    /// A name that no certificate can have.
    #[error("server_name {0:?} is neither a host name nor an address")]
    ServerName(String),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread of the log: {0}")]
    Thread(io::Error),
}
