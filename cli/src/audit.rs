//! Who has changed what through the admin API, in `STATE/audit.jsonl`. No secrets are in it: of a token, its name.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::journal::{self, Journal};
use crate::raw::OpenOrClosed;

const FILE: &str = "audit.jsonl";
/// The file is set aside at this size; with the one before it, twice as much is kept.
const LIMIT_BYTES: u64 = 16 << 20;

/// One change, or one that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// RFC 3339, UTC.
    #[serde(rename = "@timestamp")]
    pub(crate) timestamp: String,
    pub(crate) actor: Actor,
    /// Where the request came from: `unix`, an address and port, or `SIGHUP`.
    pub(crate) from: String,
    /// What was asked for: `ban.add`, `ban.remove`.
    pub(crate) action: String,
    /// Of what, as it was written.
    pub(crate) target: String,
    /// What else was asked for, and what it has come to.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub(crate) details: serde_json::Map<String, serde_json::Value>,
    /// `done`, or why not.
    pub(crate) result: String,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Actor {
    /// A process of this host (`SO_PEERCRED`).
    Process { uid: u32, pid: Option<i32> },
    /// Whoever may send signals to Clew.
    Signal,
    /// Whoever has the token of this name.
    Token { name: String },
    /// Whoever has the key to this certificate.
    Certificate { subject: String },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { uid, .. } => write!(f, "uid {uid}"),
            Self::Signal => f.write_str("a signal"),
            Self::Token { name } => write!(f, "token {name}"),
            Self::Certificate { subject } => write!(f, "certificate {subject}"),
        }
    }
}

/// The log, open for appending.
#[derive(Debug)]
pub(crate) struct Audit {
    journal: Mutex<Journal>,
    failures: AtomicU64,
    fail: OpenOrClosed,
}

impl Audit {
    /// Opens it. Where it cannot be written later, changes are refused (`closed`) or made all the same.
    pub(crate) fn open(state: &Path, fail: OpenOrClosed) -> Result<Self> {
        let journal = Journal::open(state.join(FILE), LIMIT_BYTES)?;
        Ok(Self {
            journal: Mutex::new(journal),
            failures: AtomicU64::new(0),
            fail,
        })
    }

    /// Whether a change is to be refused because nothing can be written: the wish itself is written first then.
    pub(crate) fn refuses(&self, wish: &Entry) -> bool {
        self.fail == OpenOrClosed::Closed && !self.write(wish)
    }

    /// Writes an entry; it is on disk when this returns. Where it cannot be written, the log has it, and this is false.
    pub(crate) fn write(&self, entry: &Entry) -> bool {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let written = journal.write(entry).and_then(|()| journal.sync());
        if let Err(error) = written {
            self.failures.fetch_add(1, Ordering::Relaxed);
            let (error, entry) = (format!("{error:#}"), line(entry));
            tracing::error!(error, entry, "the audit log is not written");
            return false;
        }
        true
    }

    /// Entries that could not be written.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// The time as entries have it.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let now = now.replace_millisecond(now.millisecond()).unwrap_or(now);
    now.format(&Rfc3339).unwrap_or_default()
}

/// The last `most` entries, oldest first.
pub(crate) fn read(state: &Path, most: usize) -> Result<Vec<Entry>> {
    let mut entries = std::collections::VecDeque::new();
    journal::read(&state.join(FILE), |entry: Entry| {
        if entries.len() >= most {
            entries.pop_front();
        }
        entries.push_back(entry);
    })?;
    Ok(entries.into())
}

/// One line an entry. What clients wrote is shown without control characters.
pub(crate) fn line(entry: &Entry) -> String {
    let details = match entry.details.is_empty() {
        true => String::new(),
        false => format!("  {}", serde_json::Value::from(entry.details.clone())),
    };
    let line = format!(
        "{}  {} from {}  {} {}{details}  ->  {}",
        entry.timestamp.get(..19).unwrap_or_default(),
        entry.actor,
        entry.from,
        entry.action,
        entry.target,
        entry.result,
    );
    line.chars()
        .map(|it| if it.is_control() { '\u{fffd}' } else { it })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_are_shown_without_control_characters() {
        let directory = tempfile::tempdir().expect("directory");
        let audit = Audit::open(directory.path(), OpenOrClosed::Open).expect("log");
        for n in 0..5 {
            let entry = Entry {
                timestamp: now(),
                actor: Actor::Process { uid: 0, pid: None },
                from: "unix".to_owned(),
                action: "ban.add".to_owned(),
                target: format!("\u{1b}[2J{n}"),
                details: serde_json::Map::new(),
                result: "done".to_owned(),
            };
            assert!(audit.write(&entry));
        }
        let entries = read(directory.path(), 2).expect("read");
        assert!(entries.len() == 2 && entries[1].target.ends_with('4'));
        let line = line(&entries[1]);
        assert!(line.contains("uid 0") && !line.contains('\u{1b}'), "{line}");
    }

    /// A file that takes nothing more: `/dev/full`.
    #[test]
    fn without_a_disk_changes_are_made_or_refused() {
        let wish = || Entry {
            timestamp: now(),
            actor: Actor::Process { uid: 0, pid: None },
            from: "unix".to_owned(),
            action: "bans.add".to_owned(),
            target: "192.0.2.1".to_owned(),
            details: serde_json::Map::new(),
            result: "asked for".to_owned(),
        };
        for (fail, is_refused) in [(OpenOrClosed::Open, false), (OpenOrClosed::Closed, true)] {
            let directory = tempfile::tempdir().expect("directory");
            let full = directory.path().join(FILE);
            std::os::unix::fs::symlink("/dev/full", full).expect("link");
            let audit = Audit::open(directory.path(), fail).expect("log");
            assert_eq!(audit.refuses(&wish()), is_refused, "{fail:?}");
            assert!(!audit.write(&wish()));
            assert!(audit.failures() > 0);
        }
    }
}
