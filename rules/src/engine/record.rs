//! A rule that matched, as it is told to the caller and as ModSecurity writes it.

use std::fmt::Write;

use super::ruleset::RuleInfo;

/// A rule that matched. Texts are bytes of the request: not trusted, not always UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Match<'t> {
    /// The rule; `None`: a limit of the engine itself.
    pub rule: Option<&'t RuleInfo>,
    /// `msg`, macros expanded.
    pub message: &'t [u8],
    /// `logdata`, macros expanded; at most [`shown_bytes`](super::Options::shown_bytes).
    pub data: &'t [u8],
    /// Name of the first variable that matched, for example `ARGS:id`.
    pub variable: &'t [u8],
    /// Its value, transformed; at most [`shown_bytes`](super::Options::shown_bytes).
    pub value: &'t [u8],
    /// How many values matched.
    pub matches: u32,
    /// Whether the transaction was stopped, or allowed, for it.
    pub disruptive: bool,
    /// `REQUEST_URI`.
    pub uri: &'t [u8],
    /// `SERVER_NAME`.
    pub host: &'t [u8],
    /// `UNIQUE_ID`.
    pub unique_id: &'t [u8],
}

impl Match<'_> {
    /// A line in the form that ModSecurity's logs have, so that tools that read those can read it:
    /// `ModSecurity: Warning. ... [id "942100"] [msg "..."] ...`. What is not printable ASCII is
    /// written as `\xHH`, so that no request can forge a line.
    pub fn log_line(&self) -> String {
        let mut line = String::with_capacity(512);
        let what = if self.disruptive {
            "Access denied."
        } else {
            "Warning."
        };
        let operator = self.rule.map_or("", |rule| &rule.operator);
        let _ = write!(line, "ModSecurity: {what} Matched \"");
        escape(&mut line, operator.as_bytes());
        line.push_str("\" at ");
        escape(&mut line, self.variable);
        line.push('.');
        if let Some(rule) = self.rule {
            self.write_rule(&mut line, rule);
        } else {
            field(&mut line, "msg", self.message);
        }
        field(&mut line, "hostname", self.host);
        field(&mut line, "uri", self.uri);
        field(&mut line, "unique_id", self.unique_id);
        line
    }

    fn write_rule(&self, line: &mut String, rule: &RuleInfo) {
        field(line, "file", rule.file.to_string_lossy().as_bytes());
        field(line, "line", rule.line.to_string().as_bytes());
        field(line, "id", rule.id.to_string().as_bytes());
        if let Some(revision) = &rule.revision {
            field(line, "rev", revision.as_bytes());
        }
        field(line, "msg", self.message);
        if !self.data.is_empty() {
            field(line, "data", self.data);
        }
        if let Some(severity) = rule.severity {
            field(line, "severity", severity_name(severity).as_bytes());
        }
        if let Some(version) = &rule.version {
            field(line, "ver", version.as_bytes());
        }
        if rule.maturity > 0 {
            field(line, "maturity", rule.maturity.to_string().as_bytes());
        }
        if rule.accuracy > 0 {
            field(line, "accuracy", rule.accuracy.to_string().as_bytes());
        }
        for tag in &rule.tags {
            field(line, "tag", tag.as_bytes());
        }
    }
}

/// The names of severities 0 to 7 (syslog's, RFC 5424 section 6.2.1).
pub(super) const SEVERITIES: [&str; 8] = [
    "EMERGENCY",
    "ALERT",
    "CRITICAL",
    "ERROR",
    "WARNING",
    "NOTICE",
    "INFO",
    "DEBUG",
];

/// `CRITICAL` and its kin.
fn severity_name(severity: u8) -> &'static str {
    SEVERITIES
        .get(usize::from(severity))
        .copied()
        .unwrap_or("UNKNOWN")
}

fn field(line: &mut String, name: &str, value: &[u8]) {
    let _ = write!(line, " [{name} \"");
    escape(line, value);
    line.push_str("\"]");
}

fn escape(line: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            0x20..=0x7e => line.push(char::from(*byte)),
            other => {
                let _ = write!(line, "\\x{other:02x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_can_forge_a_line() {
        let mut line = String::new();
        field(&mut line, "data", b"a\"] [id \"1\"]\n\xff");
        assert_eq!(line, " [data \"a\\\"] [id \\\"1\\\"]\\x0a\\xff\"]");
    }
}
