//! Why the store does not do what it was asked.

use crate::compiled::CompositionError;
use crate::contents::ContentsError;
use crate::signature::SignatureError;
use crate::{PackError, PackId};

/// Why the store does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Files.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// A pack cannot be opened.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It is not signed by anybody who counts.
    #[error("{pack}: {error}")]
    Signature {
        /// Which.
        pack: String,
        /// Why.
        error: SignatureError,
    },
    /// What checking finds, or its tests.
    #[error("{pack} is not installed:\n{}", findings.join("\n"))]
    Unsound {
        /// Which.
        pack: PackId,
        /// All that is wrong.
        findings: Vec<String>,
    },
    /// What would be in force cannot be.
    #[error(
        "nothing was changed, for these packs cannot be in force together:\n{}",
        composition(errors)
    )]
    Composition {
        /// All that is wrong.
        errors: Vec<CompositionError>,
    },
    /// The state does not allow it.
    #[error("{0}")]
    Refused(String),
}

fn composition(errors: &[CompositionError]) -> String {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
