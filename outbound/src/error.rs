//! Why a receiver cannot be spoken to.

use std::path::PathBuf;

/// Why a receiver cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The system has no certificate authorities.
    #[error(
        "this system has no certificate authorities; install ca-certificates, or set `authorities`"
    )]
    NoAuthorities,
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}
