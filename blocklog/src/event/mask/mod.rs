//! Secrets are taken out before an event is written anywhere.
//!
//! Covered: what follows a name that is a secret's (`password`, `token`, `api_key`, ...: `name.rs`) in query
//! strings, forms, JSON, XML, multipart and header lines; cookies and `Authorization`; user info of URLs; bearer
//! and basic credentials; card numbers (`card.rs`); options of commands (`command.rs`); values of environment
//! variables with such names. A value of a query that is percent-encoded is looked into once decoded.
//!
//! Not covered: a secret without a name (in a path, `/reset/7f3a`, or as the whole of a text), one that is encoded
//! twice, in base64 or in JSON escapes (`pass\u0077ord`), and the rest of a decoded form value behind a space.
//!
//! All of it takes linear time.

mod assignment;
mod card;
mod command;
mod name;
mod target;

use std::ops::Range;

use clew_protocol::incident::{ExecStep, Incident, IncidentRequest, Step, StepKind};
use clew_protocol::report::{Report, RuleMatch};

use assignment::Ends;
use command::CommandLine;

/// What stands where a secret was.
pub const MASK: &str = "***";

/// Masks all of a report that a client could have put a secret in.
pub(crate) fn report(report: &mut Report) {
    report.target = target::target(&report.target);
    report.authority = authority(&report.authority);
    report.method = text(&report.method);
    for optional in [&mut report.user_agent, &mut report.content_type] {
        *optional = optional.as_deref().map(text);
    }
    report.referrer = report.referrer.as_deref().map(target::target);
    for hop in &mut report.forwarded {
        *hop = text(hop);
    }
    for found in &mut report.matches {
        rule_match(found);
    }
}

/// Masks all of an incident that a client or a program could have put a secret in.
pub(crate) fn incident(incident: &mut Incident) {
    if let Some(evidence) = &mut incident.evidence {
        *evidence = CommandLine::default().mask(&text(evidence));
    }
    for one in incident.request.iter_mut().chain(&mut incident.candidates) {
        request(one);
    }
    for one in &mut incident.steps {
        step(one);
    }
}

fn request(request: &mut IncidentRequest) {
    request.method = text(&request.method);
    request.target = target::target(&request.target);
    request.authority = authority(&request.authority);
}

fn step(step: &mut Step) {
    match &mut step.what {
        StepKind::Exec(exec) => program(exec),
        StepKind::Connect { comm, .. } => *comm = text(comm),
        StepKind::File { comm, path, .. } => {
            *comm = text(comm);
            *path = text(path);
        }
    }
    for writer in &mut step.written_by {
        writer.path = text(&writer.path);
        if let Some(one) = &mut writer.request {
            request(one);
        }
    }
}

fn program(exec: &mut ExecStep) {
    for path in [
        &mut exec.executable,
        &mut exec.filename,
        &mut exec.working_directory,
    ] {
        *path = text(path);
    }
    let mut line = CommandLine::default();
    for argument in &mut exec.args {
        *argument = line.mask(argument);
    }
    for variable in &mut exec.env_vars {
        *variable = environment(variable);
    }
}

/// `NAME=value`: of a secret the name is kept.
fn environment(variable: &str) -> String {
    match variable.split_once('=') {
        // The working directory, and the one before.
        Some(("PWD" | "OLDPWD", _)) => variable.to_owned(),
        Some((name, _)) if name::is_secret(name) => format!("{name}={MASK}"),
        Some((name, value)) => format!("{name}={}", CommandLine::default().mask(value)),
        None => text(variable),
    }
}

/// `user:password@host`.
fn authority(authority: &str) -> String {
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{}", text(host)),
        None => text(authority),
    }
}

/// What a rule has matched. Where the variable is a secret, nothing of its data is kept, and no word of it in the
/// message.
fn rule_match(found: &mut RuleMatch) {
    let within = found.data.rsplit_once("found within ");
    let framed = within.is_some_and(|(_, rest)| {
        let variable = rest.split_once(": ").map_or(rest, |(variable, _)| variable);
        name::is_secret_variable(variable)
    });
    if framed || name::is_secret_variable(&found.variable) {
        found.message = without_words_of(&found.data, &found.message);
        found.data = match found.data.is_empty() {
            true => String::new(),
            false => MASK.to_owned(),
        };
    }
    found.message = text(&found.message);
    found.data = text(&found.data);
    found.variable = text(&found.variable);
    for tag in &mut found.tags {
        *tag = text(tag);
    }
}

fn without_words_of(data: &str, message: &str) -> String {
    const FRAME: [&str; 5] = ["Matched", "Data:", "found", "within", MASK];
    let words: std::collections::HashSet<&str> = data
        .split_whitespace()
        .filter(|word| !FRAME.contains(word))
        .collect();
    let kept = message.split_inclusive(char::is_whitespace).map(|word| {
        let bare = word.trim_end();
        match words.contains(bare) {
            true => word.replacen(bare, MASK, 1),
            false => word.to_owned(),
        }
    });
    kept.collect()
}

/// Masks what is a secret in any text.
pub(crate) fn text(text: &str) -> String {
    masked(text, text_spans(text, Ends::OfText))
}

fn text_spans(text: &str, ends: Ends) -> Vec<Range<usize>> {
    let mut spans = assignment::spans(text, ends);
    spans.extend(user_info(text));
    spans.extend(card::spans(text));
    spans
}

/// The user info of each URL (RFC 3986 §3.2.1): `user:password` of `scheme://user:password@host`.
fn user_info(text: &str) -> Vec<Range<usize>> {
    let ends = |c: char| c.is_whitespace() || "/?#\"'<>\\".contains(c);
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(found) = text[from..].find("://") {
        let start = from + found + 3;
        let end = text[start..].find(ends).map_or(text.len(), |it| start + it);
        if let Some(at) = text[start..end].rfind('@') {
            spans.push(start..start + at);
        }
        from = end;
    }
    spans
}

/// `text` with each span, or row of spans that touch, replaced by [`MASK`].
fn masked(text: &str, mut spans: Vec<Range<usize>>) -> String {
    spans.retain(|it| !it.is_empty());
    if spans.is_empty() {
        return text.to_owned();
    }
    spans.sort_unstable_by_key(|it| it.start);
    let mut kept = String::with_capacity(text.len());
    let mut copied = 0;
    for span in spans {
        if span.start > copied || copied == 0 {
            kept.push_str(&text[copied..span.start]);
            kept.push_str(MASK);
        }
        copied = copied.max(span.end);
    }
    kept.push_str(&text[copied..]);
    kept
}

#[cfg(test)]
mod tests;
