//! What the filter knows, for people.

use std::fmt::Write;

use super::bytes::ByteSet;
use super::plan::Plan;
use super::requirement::Requirement;

impl Plan {
    /// What a rule requires of a value, on one line. `None`: it is always run.
    pub(in super::super) fn explain(&self, phase: usize, index: usize) -> Option<String> {
        let place = self.offsets[phase] + index;
        let spec = self
            .specs
            .iter()
            .position(|spec| spec.place as usize == place)?;
        Some(shown(&self.requirements[spec]))
    }
}

fn shown(requirement: &Requirement) -> String {
    let mut text = format!("{} bytes or more", requirement.min_len);
    if let Some(most) = requirement.max_len {
        let _ = write!(text, ", at most {most}");
    }
    if requirement.sql {
        text.push_str(", words or signs that libinjection could take for SQL");
    }
    for clause in &requirement.clauses {
        let first: Vec<String> = clause
            .iter()
            .take(8)
            .map(|s| s.escape_ascii().to_string())
            .collect();
        let more = clause.len().saturating_sub(8);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        let _ = write!(text, ", one of the strings {}{more}", first.join(" "));
    }
    for set in &requirement.sets {
        let _ = write!(text, ", one of the bytes {}", bytes(set));
    }
    text
}

fn bytes(set: &ByteSet) -> String {
    let all: Vec<u8> = set
        .iter()
        .filter(|byte| !byte.is_ascii_uppercase())
        .collect();
    if all.len() > 40 {
        format!("({} bytes)", all.len())
    } else {
        all.escape_ascii().to_string()
    }
}
