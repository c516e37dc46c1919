//! Events of the block log, as sinks get them: ECS, one JSON object each.

use anyhow::{Context, Result};
use serde_json::Value;

/// What the cases need of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) path: String,
    /// None: no request, or none that was answered.
    pub(super) status: Option<u64>,
    /// Of the only pack in force; empty where there is none.
    pub(super) pack: String,
    /// It tells of an incident.
    pub(super) is_incident: bool,
}

impl Event {
    pub(super) fn parse(line: &str) -> Result<Self> {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        let text = |path: &str| {
            let found = event.pointer(path).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        let id = text("/event/id");
        anyhow::ensure!(!id.is_empty(), "no id in {line}");
        Ok(Self {
            id,
            path: text("/url/path"),
            status: event
                .pointer("/http/response/status_code")
                .and_then(Value::as_u64),
            pack: text("/rule/version"),
            is_incident: text("/event/action").starts_with("incident-"),
        })
    }
}
