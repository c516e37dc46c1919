//! Incidents as a person reads them.

use std::fmt::Write;

use clew_protocol::RequestId;
use clew_protocol::incident::{
    ExecStep, Incident, IncidentAction, IncidentRequest, Step, StepKind, Writer,
};
use clew_protocol::kernel::{Access, Decision, LostClass};
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
            StepKind::File { path, access, .. } if step.decision != Decision::Allowed => {
                Some(format!("{} {path}", opens(*access)))
            }
            StepKind::Connect { .. } | StepKind::File { .. } => None,
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
    let mut lineage = Lineage {
        depth,
        drawn: 0,
        request: incident.request.as_ref().map(|it| it.id),
    };
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
            LostClass::File => "opened files were not reported; steps and writers may be missing",
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
    /// Whose they are.
    request: Option<RequestId>,
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
                let task = task(*pid, *tid, comm);
                let transport = format!("{transport:?}").to_lowercase();
                (format!("{task} connects to {target}/{transport}"), false)
            }
            StepKind::File {
                pid,
                tid,
                comm,
                path,
                access,
                ..
            } => {
                let task = task(*pid, *tid, comm);
                let path = shown(path, 200);
                (format!("{task} {} {path}", opens(*access)), false)
            }
        };
        let _ = writeln!(out, "{indent}└─ +{:.1} ms  {what}  {done}", step.at_ms);
        for writer in &step.written_by {
            let who = self.writer(writer, path_of(step));
            let _ = writeln!(out, "{indent}   written by {who}");
        }
        self.depth += usize::from(deeper && self.depth < 8);
        self.drawn += 1;
    }

    /// Who has written the file of a step, which is `path` there.
    fn writer(&self, writer: &Writer, path: &str) -> String {
        let mut before = format!("{} before", span(writer.before_ms));
        if writer.path != path {
            let _ = write!(before, ", as {}", shown(&writer.path, 80));
        }
        let Some(request) = &writer.request else {
            let one_of = match writer.candidates {
                0 | 1 => "a request that cannot be named".to_owned(),
                candidates => format!("one of {candidates} requests"),
            };
            return format!("{one_of}, {before}");
        };
        let is_same = self.request == Some(request.id);
        let who = if is_same { "the same request: " } else { "" };
        format!(
            "{who}{} {} from {}, request {}, {before}, proof: {}",
            request.method,
            shown(&request.target, 80),
            request.source_ip,
            request.id,
            word(writer.proof),
        )
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

/// Who did it, within a process.
fn task(pid: u32, tid: u32, comm: &str) -> String {
    let comm = shown(comm, 16);
    if pid == tid {
        format!("pid {pid} {comm}")
    } else {
        format!("pid {pid} {comm} thread {tid}")
    }
}

/// The file that a step runs or opens.
fn path_of(step: &Step) -> &str {
    match &step.what {
        StepKind::Exec(exec) => &exec.executable,
        StepKind::File { path, .. } => path,
        StepKind::Connect { .. } => "",
    }
}

fn opens(access: Access) -> &'static str {
    match access {
        Access::Read => "opens",
        Access::Write => "opens to write",
    }
}

/// A span as roughly as one speaks of it.
fn span(ms: f64) -> String {
    let seconds = ms / 1e3;
    match seconds {
        _ if seconds < 1.0 => format!("{ms:.0} ms"),
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

fn word(proof: Proof) -> &'static str {
    match proof {
        Proof::Content => "content",
        Proof::Lineage => "lineage",
        Proof::Sole => "sole",
        Proof::Candidates => "candidates",
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

    /// As the correlator writes it, and as a run before writers were known has.
    fn incident(written_by: serde_json::Value) -> Incident {
        let mut step = serde_json::json!({
            "at_ms": 1.25, "decision": "allowed", "strength": "reader",
            "kind": "file", "pid": 100, "tid": 100, "comm": "php-fpm", "path": "/srv/www/up/x.php",
            "inode": 7, "access": "read",
        });
        if !written_by.is_null() {
            step["written_by"] = written_by;
        }
        let record = serde_json::json!({
            "@timestamp": "2026-01-01T00:03:00Z", "id": uuid(3), "revision": 1, "action": "observed",
            "proof": "sole", "evidence": null, "request": request(2, "GET", "/up/x.php"), "candidates": [],
            "steps": [step], "steps_cut": 0, "ban": null,
            "timing": { "exec_to_cancel_ms": null, "exec_to_ban_ms": null },
        });
        serde_json::from_value(record).expect("a record")
    }

    fn request(sequence: u64, method: &str, target: &str) -> serde_json::Value {
        serde_json::json!({
            "id": uuid(sequence), "sequence": sequence, "source_ip": format!("10.0.0.{sequence}"),
            "source_port": 1, "method": method, "target": target, "authority": "shop", "service": "shop",
            "upstream": "127.0.0.1:80", "status": null, "relayed_body_bytes": null,
        })
    }

    fn uuid(nth: u64) -> String {
        format!("00000000-0000-7000-8000-00000000000{nth}")
    }

    #[test]
    fn a_step_tells_who_has_written_its_file() {
        let writer = |request: serde_json::Value, candidates| {
            serde_json::json!({
                "at": "2026-01-01T00:00:00Z", "before_ms": 180_000.0, "path": "/srv/www/up/x.php",
                "proof": "sole", "request": request, "candidates": candidates,
            })
        };
        let by_another = writer(request(1, "POST", "/upload"), 0);
        let itself = writer(request(2, "GET", "/up/x.php"), 0);
        let mut in_doubt = writer(serde_json::Value::Null, 3);
        in_doubt["path"] = "/srv/www/up/tmp\u{1b}".into();
        let writers = serde_json::json!([by_another, itself, in_doubt]);
        let shown = tree(&incident(writers), Style { colour: false });
        for line in [
            "+1.2 ms  pid 100 php-fpm opens /srv/www/up/x.php  allowed",
            "written by POST /upload from 10.0.0.1, request 00000000-0000-7000-8000-000000000001, \
                3 min before, proof: sole",
            "written by the same request: GET /up/x.php from 10.0.0.2,",
            "written by one of 3 requests, 3 min before, as /srv/www/up/tmp\\u{1b}",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
        let old = tree(&incident(serde_json::Value::Null), Style { colour: false });
        assert!(!old.contains("written by"), "{old}");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(shown("a\x1b[2Jb", 80), "a\\u{1b}[2Jb");
        assert_eq!(shown("abcdef", 3), "abc…");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted("--flag=/a/b"), "--flag=/a/b");
    }
}
