//! What is wrong with a text, where, and what to do about it.

use std::path::PathBuf;
use std::sync::Arc;

use super::ast::At;

/// A place at which a text is not SecLang that Clew can run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", file.display())]
pub struct SyntaxError {
    /// The file, as it was named by its `Include` or by the caller.
    pub file: Arc<PathBuf>,
    /// 1-based physical line.
    pub line: u32,
    /// 1-based, in bytes.
    pub column: u32,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Why a configuration cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A file that the caller named. One that an `Include` names is a [`SyntaxError`] there.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What prevents it and what to do.
        reason: String,
    },
    /// A text that is read but not understood.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
}

/// A [`SyntaxError`] whose file is still a number.
#[derive(Debug)]
struct Fault {
    at: At,
    message: String,
}

/// How many faults are kept: a text of commas only must not take a hundred times its size in memory.
const KEPT: usize = 10_000;

/// All that was wrong so far. Reading goes on after each, so that one load reports them all.
#[derive(Debug, Default)]
pub(super) struct Faults {
    kept: Vec<Fault>,
    count: usize,
}

impl Faults {
    /// Notes one.
    pub(super) fn add(&mut self, at: At, message: impl Into<String>) {
        self.count += 1;
        let message = match self.count {
            ..=KEPT => message.into(),
            count if count == KEPT + 1 => {
                "this and further errors are left out; correct the others first".into()
            }
            _ => return,
        };
        self.kept.push(Fault { at, message });
    }

    /// How many there are: who reads a part compares before and after.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// As errors in the order of the text, with the names of `files`.
    pub(super) fn located(mut self, files: &[Arc<PathBuf>]) -> Vec<SyntaxError> {
        self.kept.sort_by_key(|fault| fault.at);
        self.kept
            .into_iter()
            .map(|fault| located(fault, files))
            .collect()
    }
}

fn located(fault: Fault, files: &[Arc<PathBuf>]) -> SyntaxError {
    SyntaxError {
        file: files
            .get(fault.at.file as usize)
            .cloned()
            .unwrap_or_default(),
        line: fault.at.line,
        column: fault.at.column,
        message: fault.message,
    }
}
