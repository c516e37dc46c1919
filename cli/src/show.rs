//! Incidents as a person reads them.

use std::fmt::Write;

use clew_protocol::incident::{
    ExecStep, Incident, IncidentAction, IncidentRequest, Step, StepKind,
};
use clew_protocol::kernel::{Decision, LostClass};
use clew_protocol::verdict::Proof;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    /// Colours when a terminal watches and NO_COLOR (no-color.org) is not set.
    pub(crate) fn of_stdout() -> Self {
        use std::io::IsTerminal;
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// One line an incident.
pub(crate) fn line(incident: &Incident) -> String {
    let who = match &incident.request {
        Some(request) => format!(
            "{} {} {}",
            request.source_ip,
            request.method,
            shown(&request.target, 48)
        ),
        None => format!("one of {} requests", incident.candidates.len()),
    };
    let what = incident
        .steps
        .iter()
        .rev()
        .find_map(|step| match &step.what {
            StepKind::Exec(exec) => Some(command(exec)),
            StepKind::Connect { .. } => None,
        });
    format!(
        "{}  {}  {:9}  {}  ->  {}",
        incident.id,
        incident.timestamp.get(..19).unwrap_or_default(),
        action(incident.action),
        who,
        shown(&what.unwrap_or_default(), 60),
    )
}

/// The tree: client, request, processes, attempt, measure; times from the request's head.
pub(crate) fn tree(incident: &Incident, style: Style) -> String {
    let mut out = String::new();
    let title = format!("incident {}", incident.id);
    let _ = writeln!(out, "{}  {}", style.paint("1", &title), incident.timestamp);
    let _ = writeln!(out, "{}; {}", measure(incident), proof(incident));
    let depth = match &incident.request {
        Some(request) => {
            client(&mut out, request);
            2
        }
        None => {
            for candidate in &incident.candidates {
                let _ = writeln!(out, "? {} {}", candidate.source_ip, request_line(candidate));
                findings(&mut out, candidate);
            }
            1
        }
    };
    let mut lineage = Lineage { depth, drawn: 0 };
    for step in &incident.steps {
        lineage.draw(&mut out, step, style);
    }
    if incident.steps_cut > 0 {
        let _ = writeln!(out, "   ... and {} more steps", incident.steps_cut);
    }
    for loss in &incident.degraded {
        let what = match loss.class {
            LostClass::Exec => "program starts were not reported; steps may be missing",
            LostClass::Connect => "connections were not reported; steps may be missing",
            LostClass::Bound => {
                "requests were read by nobody knows whom; only the certain is named"
            }
        };
        let _ = writeln!(out, "   degraded: {} {what}", loss.records);
    }
    if let Some(request) = &incident.request {
        outcome(&mut out, incident, request);
    }
    out
}

fn client(out: &mut String, request: &IncidentRequest) {
    let _ = writeln!(out, "client {}:{}", request.source_ip, request.source_port);
    let _ = writeln!(out, "└─ {}  [{}]", request_line(request), request.id);
    findings(out, request);
}

/// What the rules had said of the request, if anything.
fn findings(out: &mut String, request: &IncidentRequest) {
    let edge = &request.edge;
    if edge.rules.is_empty() {
        return;
    }
    let rules: Vec<_> = edge.rules.iter().map(u64::to_string).collect();
    let _ = writeln!(
        out,
        "   rules had matched: {} (score {})",
        rules.join(", "),
        edge.score
    );
}

fn request_line(request: &IncidentRequest) -> String {
    format!(
        "{} {}{} -> {} {}",
        request.method,
        request.authority,
        shown(&request.target, 80),
        request.service,
        request.upstream,
    )
}

/// Where the tree of processes has got to.
struct Lineage {
    depth: usize,
    /// Steps drawn.
    drawn: usize,
}

impl Lineage {
    fn draw(&mut self, out: &mut String, step: &Step, style: Style) {
        let colour = match step.decision {
            Decision::Killed | Decision::Denied => "31",
            Decision::Observed => "33",
            Decision::Allowed => "32",
        };
        let done = style.paint(colour, decision(step.decision));
        if self.drawn == 0
            && let StepKind::Exec(exec) = &step.what
        {
            self.ancestors(out, exec);
        }
        let indent = "   ".repeat(self.depth - 1);
        let (what, deeper) = match &step.what {
            StepKind::Exec(exec) => (format!("pid {} {}", exec.pid, command(exec)), true),
            StepKind::Connect {
                pid,
                tid,
                comm,
                target,
                transport,
            } => {
                let thread = if pid == tid {
                    String::new()
                } else {
                    format!(" thread {tid}")
                };
                let transport = format!("{transport:?}").to_lowercase();
                (
                    format!("pid {pid} {comm}{thread} connects to {target}/{transport}"),
                    false,
                )
            }
        };
        let _ = writeln!(out, "{indent}└─ +{:.1} ms  {what}  {done}", step.at_ms);
        self.depth += usize::from(deeper && self.depth < 8);
        self.drawn += 1;
    }

    /// The parents, init first, that lead to the first program.
    fn ancestors(&mut self, out: &mut String, exec: &ExecStep) {
        let chain: Vec<_> = exec
            .ancestry
            .iter()
            .rev()
            .map(|parent| format!("{} ({})", shown(&parent.comm, 16), parent.pid))
            .collect();
        if !chain.is_empty() {
            let indent = "   ".repeat(self.depth - 1);
            let _ = writeln!(out, "{indent}└─ {}", chain.join(" > "));
            self.depth += 1;
        }
    }
}

fn outcome(out: &mut String, incident: &Incident, request: &IncidentRequest) {
    let ms = |at: Option<f64>| at.map_or("?".to_owned(), |at| format!("{at:.2} ms"));
    let timing = &incident.timing;
    if timing.exec_to_cancel_ms.is_some() {
        let status = request
            .status
            .map_or("cut".to_owned(), |status| format!("status {status}"));
        let bytes = request.relayed_body_bytes.unwrap_or(0);
        let after = ms(timing.exec_to_cancel_ms);
        let _ = writeln!(
            out,
            "   request cancelled after {after}: {status}, {bytes} body bytes of the backend relayed"
        );
    }
    if let Some(ban) = &incident.ban {
        let after = ms(timing.exec_to_ban_ms);
        let _ = writeln!(
            out,
            "   {} banned after {after} for {} s",
            ban.address, ban.seconds
        );
    }
}

fn command(exec: &ExecStep) -> String {
    let words: Vec<_> = exec.args.iter().map(|word| quoted(word)).collect();
    let cut = if exec.truncated { " ..." } else { "" };
    if words.is_empty() {
        exec.executable.clone()
    } else {
        shown(&words.join(" "), 200) + cut
    }
}

/// A word as a shell would need it, so that a reader sees where one ends.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// At most `limit` characters, control characters (an attacker's escape sequences) made visible.
fn shown(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == limit {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
    }
    out
}

fn measure(incident: &Incident) -> &'static str {
    match incident.action {
        IncidentAction::Observed => "observed, nothing was stopped",
        IncidentAction::Stopped => "stopped in the kernel; no single request can be named",
        IncidentAction::Cancelled => "stopped in the kernel, request cancelled",
        IncidentAction::Banned => "stopped in the kernel, request cancelled, source banned",
    }
}

fn action(action: IncidentAction) -> &'static str {
    match action {
        IncidentAction::Observed => "observed",
        IncidentAction::Stopped => "stopped",
        IncidentAction::Cancelled => "cancelled",
        IncidentAction::Banned => "banned",
    }
}

fn proof(incident: &Incident) -> String {
    let sure = "attributed by";
    match (incident.proof, &incident.evidence) {
        (Proof::Content, Some(bytes)) => format!(
            "{sure} content: {:?} is in this request only",
            shown(bytes, 80)
        ),
        (Proof::Content, None) => format!("{sure} content"),
        (Proof::Lineage, _) => format!("{sure} lineage: the thread works on one request at a time"),
        (Proof::Sole, _) => "attributed as the only request there was".to_owned(),
        (Proof::Candidates, _) => "one of the requests below".to_owned(),
    }
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Allowed => "allowed",
        Decision::Observed => "observed",
        Decision::Killed => "KILLED",
        Decision::Denied => "DENIED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(shown("a\x1b[2Jb", 80), "a\\u{1b}[2Jb");
        assert_eq!(shown("abcdef", 3), "abc…");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("--flag=/a/b"), "--flag=/a/b");
    }
}
