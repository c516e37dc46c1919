//! The narrowest exception that lets something pass which was stopped, as a pack that a person reviews.
//!
//! What was stopped comes from whoever was stopped: nothing of it is written into a rule that could mean more there
//! than itself, and nothing is allowed that he chose.

mod folder;
mod rules;
mod runtime;

use clew_protocol::incident::Incident;
use clew_protocol::report::Report;

pub use folder::Written;
pub use rules::RuleException;

use crate::policy::{ConnectAllowance, ExecAllowance};

/// Largest record that is read, bytes: with all its bounds reached, an incident is smaller.
const RECORD_BYTES: usize = 16 << 20;

/// Why there is no exception.
#[derive(Debug, thiserror::Error)]
pub enum ExceptError {
    /// It is no record.
    #[error(
        "this is neither an incident (a line of incidents.jsonl, `clew incidents show ID --json`) nor the report of a request: {0}"
    )]
    Record(String),
    /// There is nothing that could sensibly be said.
    #[error("no exception is written:\n{}", .0.join("\n"))]
    Nothing(Vec<String>),
    /// The pack cannot be written.
    #[error("{0}")]
    Folder(String),
}

/// What was stopped.
#[derive(Debug)]
pub enum Record {
    /// By what it did.
    Incident(Box<Incident>),
    /// By what it said.
    Report(Box<Report>),
}

impl Record {
    /// Reads the JSON of an [`Incident`] or a [`Report`].
    ///
    /// # Errors
    ///
    /// It is none of them.
    pub fn parse(json: &[u8]) -> Result<Self, ExceptError> {
        let bad = |error: serde_json::Error| ExceptError::Record(error.to_string());
        if json.len() > RECORD_BYTES {
            return Err(ExceptError::Record(format!(
                "it is larger than {RECORD_BYTES} bytes"
            )));
        }
        let value: serde_json::Value = serde_json::from_slice(json).map_err(bad)?;
        match value.get("steps").is_some() {
            true => serde_json::from_value(value)
                .map(Self::Incident)
                .map_err(bad),
            false => serde_json::from_value(value).map(Self::Report).map_err(bad),
        }
    }
}

/// What is to pass from now on.
#[derive(Debug, Default)]
pub struct Exception {
    /// Where rules are to look away.
    pub rules: Vec<RuleException>,
    /// Programs that may be started.
    pub exec: Vec<ExecAllowance>,
    /// Where connections may go.
    pub connect: Vec<ConnectAllowance>,
    /// What the reviewer has to know of these.
    pub warnings: Vec<String>,
    /// What of the record is not excepted, and why.
    pub left: Vec<String>,
}

impl Exception {
    /// The narrowest exception that covers a record.
    ///
    /// # Errors
    ///
    /// Nothing in it can sensibly be excepted; why is said.
    pub fn of(record: &Record) -> Result<Self, ExceptError> {
        let exception = match record {
            Record::Incident(incident) => runtime::exception(incident),
            Record::Report(report) => rules::exception(report),
        };
        let count = exception.rules.len() + exception.exec.len() + exception.connect.len();
        match count {
            0 => Err(ExceptError::Nothing(exception.left)),
            _ => Ok(exception),
        }
    }
}

#[cfg(test)]
mod tests;
