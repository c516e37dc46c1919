//! Events as the Elastic Common Schema 8 names their fields; what ECS has no name for is under `clew`.
//!
//! `schema/ecs.json` describes each field. `source` is the peer of the socket and `client` who sent the request,
//! which differ behind trusted hops; where the edge's report is not known, both are the client.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clew_protocol::incident::{ExecStep, Incident, IncidentRequest, Step, StepKind, Writer};
use clew_protocol::kernel::Transport;
use clew_protocol::report::{Report, RuleMatch};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::fields::Fields;
use super::{Event, EventAction};
use crate::Observer;

/// The version whose names these are.
const VERSION: &str = "8.17.0";

/// The event as a JSON object.
pub(crate) fn object(event: &Event, observer: &Observer) -> Value {
    let mut fields = Fields::default();
    of_event(&mut fields, event);
    fields.set("ecs.version", VERSION);
    fields.set("observer.vendor", "Clew");
    fields.set("observer.product", "Clew");
    fields.set("observer.type", "waf");
    fields.set("observer.version", observer.version.as_str());
    fields.set("observer.hostname", observer.hostname.as_str());
    if let Some(report) = &event.report {
        of_report(&mut fields, report);
    }
    if let Some(found) = event.leading_match() {
        of_leading_match(&mut fields, found);
    }
    if let Some(incident) = event.incident() {
        of_incident(&mut fields, event, incident);
    }
    related(&mut fields, event);
    fields.into()
}

fn of_event(fields: &mut Fields, event: &Event) {
    fields.set("@timestamp", event.timestamp());
    fields.set("event.id", event.id.as_str());
    fields.set("event.created", rfc3339(event.created));
    fields.set("event.module", "clew");
    fields.set("event.dataset", "clew.block");
    let has_rules = event
        .report
        .as_ref()
        .is_some_and(|it| !it.matches.is_empty());
    let is_alert = event.incident.is_some() || has_rules;
    fields.set("event.kind", if is_alert { "alert" } else { "event" });
    fields.set("event.category", categories(event, has_rules));
    let is_stop = event.action().is_stop();
    fields.set(
        "event.type",
        json!([if is_stop { "denied" } else { "allowed" }]),
    );
    fields.set("event.outcome", if is_stop { "failure" } else { "success" });
    fields.set("event.action", event.action().name());
    fields.set("event.severity", event.severity() as u8);
    fields.set("event.reason", event.reason());
    fields.set("message", event.title());
    fields.set("service.name", event.service());
    if event.cut {
        fields.set("clew.cut", true);
    }
}

fn categories(event: &Event, has_rules: bool) -> Vec<&'static str> {
    let mut categories = vec!["web"];
    let Some(incident) = event.incident() else {
        if has_rules || event.action() == EventAction::Cancelled {
            categories.push("intrusion_detection");
        }
        return categories;
    };
    categories.push("intrusion_detection");
    for step in &incident.steps {
        let category = match step.what {
            StepKind::Exec(_) => "process",
            StepKind::Connect { .. } => "network",
            StepKind::File { .. } => "file",
        };
        if !categories.contains(&category) {
            categories.push(category);
        }
    }
    categories
}

fn of_report(fields: &mut Fields, report: &Report) {
    address(fields, "source", report.peer, Some(report.client.port));
    address(fields, "client", report.client.address, None);
    if report.client.address != report.peer {
        fields.text("network.forwarded_ip", report.client.address);
    }
    fields.set("network.protocol", "http");
    fields.set("network.transport", "tcp");
    fields.set("network.type", network_type(report.peer));
    address(
        fields,
        "server",
        report.server.ip(),
        Some(report.server.port()),
    );
    if let Some(upstream) = report.upstream {
        address(fields, "destination", upstream.ip(), Some(upstream.port()));
        address(
            fields,
            "clew.upstream",
            upstream.ip(),
            Some(upstream.port()),
        );
    }
    http(fields, report);
    url(fields, &report.target, &report.authority);
    fields.set(
        "url.scheme",
        if report.tls.is_some() {
            "https"
        } else {
            "http"
        },
    );
    secure(fields, report);
    timing(fields, report);
    fields.set("clew.client.shared", report.client.shared);
    fields.set("clew.client.cross_site", report.client.cross_site);
    fields.set("clew.forwarded", report.forwarded.clone());
    fields.text(
        "clew.incident.id",
        report.incident.map(|it| it.to_string()).unwrap_or_default(),
    );
    fields.set("clew.score.inbound", report.score.0);
    fields.set("clew.score.outbound", report.score.1);
    let matches: Vec<Value> = report.matches.iter().map(of_match).collect();
    fields.set("clew.matches", matches);
    if report.matches_cut > 0 {
        fields.set("clew.matches_cut", report.matches_cut);
    }
    let packs = report
        .packs
        .iter()
        .map(|it| json!({"name": it.name, "version": it.version}));
    fields.set("clew.packs", packs.collect::<Vec<_>>());
    if let [pack] = &report.packs[..] {
        fields.set("rule.ruleset", pack.name.as_str());
        fields.set("rule.version", pack.version.as_str());
    }
}

fn http(fields: &mut Fields, report: &Report) {
    fields.set("http.version", report.version.as_str());
    fields.text("http.request.id", report.id);
    fields.set("http.request.method", report.method.as_str());
    fields.set("http.request.referrer", report.referrer.as_deref());
    fields.set("http.request.mime_type", report.content_type.as_deref());
    fields.set("http.request.body.bytes", report.request_body_bytes);
    fields.set("http.response.status_code", report.status);
    fields.set("http.response.body.bytes", report.response_body_bytes);
    fields.set("user_agent.original", report.user_agent.as_deref());
    if let Some(trace) = &report.trace {
        fields.set("trace.id", trace.trace_id.as_str());
        fields.set("span.id", trace.span_id.as_deref());
        fields.set("clew.parent_span.id", trace.parent_id.as_deref());
    }
}

fn secure(fields: &mut Fields, report: &Report) {
    let Some(tls) = &report.tls else {
        return;
    };
    fields.set("tls.version", tls.version.as_str());
    fields.set("tls.version_protocol", "tls");
    fields.set("tls.cipher", tls.cipher.as_str());
    fields.set("tls.client.subject", tls.client_subject.as_deref());
    fields.set("tls.client.hash.sha256", tls.client_sha256.as_deref());
}

fn timing(fields: &mut Fields, report: &Report) {
    let timing = &report.timing;
    fields.set("event.start", rfc3339(report.at));
    fields.set("event.end", rfc3339(report.at.saturating_add(timing.total)));
    fields.set("event.duration", nanoseconds(timing.total));
    fields.set("clew.timing.rules_ns", nanoseconds(timing.rules));
    fields.set("clew.timing.upstream_ns", timing.upstream.map(nanoseconds));
}

/// `target` as it came, and its parts.
fn url(fields: &mut Fields, target: &str, authority: &str) {
    fields.set("url.original", target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    fields.set("url.path", path);
    fields.set("url.query", query);
    fields.set("url.domain", host(authority));
}

/// The host of an authority (RFC 3986 §3.2): without port, and without the brackets of an IPv6 address.
pub(super) fn host(authority: &str) -> &str {
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

fn of_leading_match(fields: &mut Fields, found: &RuleMatch) {
    fields.text("rule.id", found.id);
    fields.set("rule.name", found.message.as_str());
    fields.set("rule.description", found.data.as_str());
    fields.set("rule.category", found.tags.first().map(String::as_str));
    fields.set("rule.reference", place(found));
}

fn place(found: &RuleMatch) -> String {
    match found.file.is_empty() {
        true => String::new(),
        false => format!("{}:{}", found.file, found.line),
    }
}

fn of_match(found: &RuleMatch) -> Value {
    let mut fields = Fields::default();
    fields.text("id", found.id);
    fields.set("message", found.message.as_str());
    fields.set("data", found.data.as_str());
    fields.set("variable", found.variable.as_str());
    fields.set("severity", found.severity);
    fields.set("tags", found.tags.clone());
    fields.set("file", found.file.as_str());
    fields.set("line", found.line);
    fields.set("disruptive", found.disruptive);
    fields.into()
}

fn of_incident(fields: &mut Fields, event: &Event, incident: &Incident) {
    fields.text("clew.incident.id", incident.id);
    fields.set("clew.incident.revision", incident.revision);
    fields.set("clew.incident.proof", json!(incident.proof));
    fields.set("clew.incident.evidence", incident.evidence.as_deref());
    if let (Some(request), None) = (&incident.request, &event.report) {
        request_alone(fields, request);
    }
    let candidates: Vec<Value> = incident.candidates.iter().map(candidate).collect();
    fields.set("clew.candidates", candidates);
    let steps: Vec<Value> = incident.steps.iter().map(of_step).collect();
    fields.set("clew.steps", steps);
    if incident.steps_cut > 0 {
        fields.set("clew.steps_cut", incident.steps_cut);
    }
    if let Some(ban) = &incident.ban {
        fields.text("clew.ban.ip", ban.address);
        fields.set("clew.ban.seconds", ban.seconds);
    }
    fields.set(
        "clew.timing.exec_to_cancel_ms",
        incident.timing.exec_to_cancel_ms,
    );
    fields.set("clew.timing.exec_to_ban_ms", incident.timing.exec_to_ban_ms);
    let degraded = incident
        .degraded
        .iter()
        .map(|it| json!({"class": it.class, "records": it.records}));
    fields.set("clew.degraded", degraded.collect::<Vec<_>>());
    if let Some(step) = event.leading_step() {
        leading_step(fields, step);
    }
    threat(fields, event);
}

/// What the incident says of its request, where the edge has not reported it.
fn request_alone(fields: &mut Fields, request: &IncidentRequest) {
    address(
        fields,
        "source",
        request.source_ip,
        Some(request.source_port),
    );
    address(fields, "client", request.source_ip, None);
    fields.set("network.protocol", "http");
    fields.set("network.transport", "tcp");
    fields.set("network.type", network_type(request.source_ip));
    address(
        fields,
        "destination",
        request.upstream.ip(),
        Some(request.upstream.port()),
    );
    address(
        fields,
        "clew.upstream",
        request.upstream.ip(),
        Some(request.upstream.port()),
    );
    fields.text("http.request.id", request.id);
    fields.set("http.request.method", request.method.as_str());
    fields.set("http.response.status_code", request.status);
    fields.set("http.response.body.bytes", request.relayed_body_bytes);
    url(fields, &request.target, &request.authority);
    fields.set("clew.score.inbound", request.edge.score);
    let matches = request
        .edge
        .rules
        .iter()
        .map(|id| json!({"id": id.to_string()}));
    fields.set("clew.matches", matches.collect::<Vec<_>>());
}

fn candidate(request: &IncidentRequest) -> Value {
    let mut fields = Fields::default();
    fields.text("request_id", request.id);
    address(
        &mut fields,
        "source",
        request.source_ip,
        Some(request.source_port),
    );
    fields.set("method", request.method.as_str());
    fields.set("target", request.target.as_str());
    fields.set("authority", request.authority.as_str());
    fields.set("service", request.service.as_str());
    fields.set("status", request.status);
    fields.set("score", request.edge.score);
    let rules = request.edge.rules.iter().map(u64::to_string);
    fields.set("rules", rules.collect::<Vec<_>>());
    fields.into()
}

fn of_step(step: &Step) -> Value {
    let mut fields = Fields::default();
    fields.set("at_ms", step.at_ms);
    fields.set("decision", json!(step.decision));
    fields.set("strength", json!(step.strength));
    acted(&mut fields, &step.what);
    let kind = match &step.what {
        StepKind::Exec(exec) => {
            let parents = exec
                .ancestry
                .iter()
                .map(|it| json!({"pid": it.pid, "name": it.comm}));
            fields.set("process.ancestry", parents.collect::<Vec<_>>());
            fields.set("process.cgroup_id", exec.cgroup_id.to_string());
            fields.set("process.inode", exec.inode.map(|it| it.to_string()));
            fields.set("process.requested", exec.filename.as_str());
            fields.set("process.truncated", exec.truncated);
            "exec"
        }
        StepKind::Connect { .. } => "connect",
        StepKind::File { access, .. } => {
            fields.set("access", json!(access));
            "file"
        }
    };
    fields.set("kind", kind);
    let writers: Vec<Value> = step.written_by.iter().map(writer).collect();
    fields.set("written_by", writers);
    fields.into()
}

fn writer(writer: &Writer) -> Value {
    let mut fields = Fields::default();
    fields.set("at", writer.at.as_str());
    fields.set("before_ms", writer.before_ms);
    fields.set("path", writer.path.as_str());
    fields.set("proof", json!(writer.proof));
    fields.set("request", writer.request.as_ref().map(candidate));
    if writer.candidates > 0 {
        fields.set("candidates", writer.candidates);
    }
    fields.into()
}

/// `process`, `container`, `file` and `destination` of a step.
fn acted(fields: &mut Fields, what: &StepKind) {
    match what {
        StepKind::Exec(exec) => program(fields, exec),
        StepKind::Connect {
            pid,
            tid,
            comm,
            target,
            transport,
        } => {
            caller(fields, *pid, *tid, comm);
            if *transport != Transport::Raw {
                address(fields, "destination", target.ip(), Some(target.port()));
            }
            fields.set("network.transport", json!(transport));
        }
        StepKind::File {
            pid,
            tid,
            comm,
            path,
            inode,
            ..
        } => {
            caller(fields, *pid, *tid, comm);
            fields.set("file.path", path.as_str());
            fields.set("file.name", path.rsplit('/').next());
            fields.text("file.inode", inode);
        }
    }
}

fn caller(fields: &mut Fields, pid: u32, tid: u32, comm: &str) {
    fields.set("process.pid", pid);
    fields.set("process.thread.id", tid);
    fields.set("process.name", comm);
}

fn program(fields: &mut Fields, exec: &ExecStep) {
    fields.set("process.pid", exec.pid);
    fields.set("process.name", exec.executable.rsplit('/').next());
    fields.set("process.executable", exec.executable.as_str());
    fields.set("process.args", exec.args.clone());
    fields.set("process.args_count", exec.args.len());
    fields.set("process.env_vars", exec.env_vars.clone());
    fields.set("process.working_directory", exec.working_directory.as_str());
    fields.text("process.real_user.id", exec.uid);
    fields.text("process.real_group.id", exec.gid);
    if let Some(parent) = exec.ancestry.first() {
        fields.set("process.parent.pid", parent.pid);
        fields.set("process.parent.name", parent.comm.as_str());
    }
    fields.set("container.id", exec.container_id.as_deref());
}

/// The step that the incident is about, where ECS has the names for it.
fn leading_step(fields: &mut Fields, step: &Step) {
    acted(fields, &step.what);
    if let StepKind::Exec(exec) = &step.what {
        fields.set("process.command_line", exec.args.join(" "));
    }
}

fn threat(fields: &mut Fields, event: &Event) {
    let techniques = event.techniques();
    let list = |of: fn(&super::story::Technique) -> &'static str| -> Vec<&'static str> {
        techniques.iter().map(of).collect()
    };
    fields.set("threat.framework", "MITRE ATT&CK");
    fields.set("threat.technique.id", list(|it| it.id));
    fields.set("threat.technique.name", list(|it| it.name));
    fields.set("threat.tactic.id", list(|it| it.tactic_id));
    fields.set("threat.tactic.name", list(|it| it.tactic_name));
}

/// Every address, to search for one whatever its part was.
fn related(fields: &mut Fields, event: &Event) {
    let mut addresses: Vec<IpAddr> = Vec::new();
    if let Some(report) = &event.report {
        addresses.extend([report.client.address, report.peer]);
    }
    if let Some(incident) = event.incident() {
        let requests = incident.request.iter().chain(&incident.candidates);
        addresses.extend(requests.map(|it| it.source_ip));
        let target = |it: &Step| match it.what {
            StepKind::Connect { target, .. } => Some(SocketAddr::ip(&target)),
            _ => None,
        };
        addresses.extend(incident.steps.iter().filter_map(target));
    }
    addresses.sort_unstable();
    addresses.dedup();
    let texts = addresses
        .iter()
        .filter(|it| !it.is_unspecified())
        .map(IpAddr::to_string);
    fields.set("related.ip", texts.collect::<Vec<_>>());
}

fn address(fields: &mut Fields, path: &str, ip: IpAddr, port: Option<u16>) {
    fields.text(&format!("{path}.ip"), ip);
    fields.set(&format!("{path}.port"), port);
}

fn network_type(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "ipv4" } else { "ipv6" }
}

impl Event {
    /// RFC 3339, UTC, of [`Event::at`].
    pub(crate) fn timestamp(&self) -> String {
        rfc3339(self.at())
    }

    /// The kernel's first decision, else when the request's head had been read; since the Unix epoch.
    pub(crate) fn at(&self) -> Duration {
        let own = self.incident().map(|it| it.timestamp.as_str());
        let parsed = own.and_then(|it| time::OffsetDateTime::parse(it, &Rfc3339).ok());
        parsed
            .map(since_epoch)
            .unwrap_or_else(|| self.report.as_ref().map_or(self.created, |it| it.at))
    }
}

/// Times before the epoch are taken for it.
fn since_epoch(at: time::OffsetDateTime) -> Duration {
    Duration::try_from(at - time::OffsetDateTime::UNIX_EPOCH).unwrap_or_default()
}

/// RFC 3339, UTC, to the millisecond. Times after the year 9999 are taken for its end.
pub(crate) fn rfc3339(since_epoch: Duration) -> String {
    const LAST_SECOND: u64 = 253_402_300_799;
    let seconds = since_epoch.as_secs().min(LAST_SECOND);
    let at = time::OffsetDateTime::from_unix_timestamp(seconds.cast_signed())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        since_epoch.subsec_millis(),
    )
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
