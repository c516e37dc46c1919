//! The file of rules that matched, a line each, in ModSecurity's form.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use clew_rules::engine::Transaction;

/// Where matched rules are written: to the file, or without one to the log of Clew itself.
#[derive(Debug)]
pub(crate) struct MatchLog {
    /// Opened for appending: one write adds whole lines, whoever else writes.
    file: Option<File>,
    /// A failure is said once, not for each request.
    has_failed: AtomicBool,
}

impl MatchLog {
    pub(crate) fn new(file: Option<File>) -> Self {
        Self {
            file,
            has_failed: AtomicBool::new(false),
        }
    }

    /// Writes what has matched since the first `told` matches; returns how many are told now.
    pub(crate) fn tell(&self, transaction: &Transaction, told: usize) -> usize {
        let mut lines = String::new();
        let mut count = told;
        for matched in transaction.matches().skip(told) {
            let line = matched.log_line();
            if self.file.is_some() {
                lines.push_str(&line);
                lines.push('\n');
            } else {
                tracing::info!(target: "clew::rules", "{line}");
            }
            count += 1;
        }
        self.append(&lines);
        count
    }

    fn append(&self, lines: &str) {
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        if !lines.is_empty()
            && let Err(error) = file.write_all(lines.as_bytes())
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%error, "matched rules cannot be written to their file any more");
        }
    }
}
