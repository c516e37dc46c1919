//! Where a TOML file is wrong, and what may have been meant.

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// From 1.
    pub line: usize,
    /// From 1, in bytes.
    pub column: usize,
    /// In words; of an unknown key with the known one that is nearest.
    pub message: String,
}

impl Located {
    /// Of an error that reading `text` has given.
    pub fn of(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..start).unwrap_or_default();
        let hint = nearest(error.message()).unwrap_or_default();
        Self {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before.len() - before.rfind('\n').map_or(0, |at| at + 1) + 1,
            message: format!("{}{hint}", error.message()),
        }
    }
}

/// For "unknown field `x`, expected one of `a`, `b`": which of them was meant.
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let unknown = quoted.next()?;
    let known = quoted.max_by(|a, b| {
        strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown))
    })?;
    Some(format!("; did you mean `{known}`?"))
}
