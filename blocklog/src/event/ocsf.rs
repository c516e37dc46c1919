//! Events as the Open Cybersecurity Schema Framework 1.6 has them: HTTP Activity (4002) for what the edge says alone,
//! Detection Finding (2004) for incidents; what OCSF has no name for is under `unmapped`.
//!
//! `schema/ocsf.json` describes each attribute.

use std::net::SocketAddr;
use std::time::Duration;

use clew_protocol::incident::{ExecStep, Incident, IncidentRequest, Step, StepKind};
use clew_protocol::kernel::{Decision, Transport};
use clew_protocol::report::Report;
use clew_protocol::verdict::Proof;
use serde_json::{Value, json};

use super::ecs::host;
use super::fields::Fields;
use super::{Event, EventAction};
use crate::Observer;

const VERSION: &str = "1.6.0";
const HTTP_ACTIVITY: u64 = 4002;
const DETECTION_FINDING: u64 = 2004;

/// The event as a JSON object.
pub(crate) fn object(event: &Event, observer: &Observer) -> Value {
    let mut fields = Fields::default();
    match event.incident() {
        Some(incident) => finding(&mut fields, event, incident),
        None => activity(&mut fields, event),
    }
    fields.set("time", milliseconds(event.at()));
    fields.set("severity_id", event.severity() as u8);
    fields.set("severity", event.severity().caption());
    fields.set("message", event.title());
    metadata(&mut fields, event, observer);
    control(&mut fields, event);
    unmapped(&mut fields, event, observer);
    fields.into()
}

fn class(fields: &mut Fields, class: u64, activity: u64) {
    fields.set("category_uid", class / 1000);
    fields.set("class_uid", class);
    fields.set("activity_id", activity);
    fields.set("type_uid", class * 100 + activity);
}

fn metadata(fields: &mut Fields, event: &Event, observer: &Observer) {
    fields.set("metadata.version", VERSION);
    fields.set("metadata.uid", event.id.as_str());
    fields.set("metadata.product.name", "Clew");
    fields.set("metadata.product.vendor_name", "Clew");
    fields.set("metadata.product.version", observer.version.as_str());
    fields.set("metadata.log_name", "block");
    fields.set("metadata.logged_time", milliseconds(event.created));
    fields.set("metadata.profiles", json!(["security_control"]));
    let incident = event.incident().map(|it| it.id);
    let incident = incident.or_else(|| event.report.as_ref()?.incident);
    fields.set(
        "metadata.correlation_uid",
        incident.map(|it| it.to_string()),
    );
}

/// The profile `security_control`.
fn control(fields: &mut Fields, event: &Event) {
    let is_stop = event.action().is_stop();
    fields.set("action_id", if is_stop { 2 } else { 1 });
    fields.set("action", if is_stop { "Denied" } else { "Allowed" });
    fields.set("disposition_id", if is_stop { 2 } else { 15 });
    fields.set("disposition", if is_stop { "Blocked" } else { "Detected" });
    if let Some(found) = event.leading_match() {
        fields.text("firewall_rule.uid", found.id);
        fields.set("firewall_rule.name", found.message.as_str());
        fields.set("firewall_rule.desc", found.data.as_str());
        fields.set(
            "firewall_rule.category",
            found.tags.first().map(String::as_str),
        );
    }
}

fn activity(fields: &mut Fields, event: &Event) {
    let Some(report) = &event.report else {
        return;
    };
    class(fields, HTTP_ACTIVITY, method(&report.method));
    if method(&report.method) == 99 {
        fields.set("activity_name", report.method.as_str());
    }
    fields.set("status_id", if event.action().is_stop() { 2 } else { 1 });
    fields.set(
        "status",
        if event.action().is_stop() {
            "Failure"
        } else {
            "Success"
        },
    );
    fields.set("status_detail", event.reason());
    fields.set("start_time", milliseconds(report.at));
    fields.set(
        "end_time",
        milliseconds(report.at.saturating_add(report.timing.total)),
    );
    fields.set("duration", milliseconds(report.timing.total));
    of_report(fields, "", report);
    fields.text("dst_endpoint.ip", report.server.ip());
    fields.set("dst_endpoint.port", report.server.port());
    fields.set("connection_info.direction_id", 1);
    fields.set("connection_info.protocol_num", 6);
    fields.set("connection_info.protocol_name", "tcp");
    if let Some(trace) = &report.trace {
        fields.set("trace.uid", trace.trace_id.as_str());
        fields.set("trace.span.uid", trace.span_id.as_deref());
        fields.set("trace.span.parent_uid", trace.parent_id.as_deref());
    }
}

fn method(method: &str) -> u64 {
    const METHODS: [&str; 9] = [
        "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH",
    ];
    let place = METHODS.iter().position(|it| *it == method);
    place.map_or(99, |it| it as u64 + 1)
}

/// `src_endpoint`, `http_request`, `http_response` and `tls`, below `prefix`.
fn of_report(fields: &mut Fields, prefix: &str, report: &Report) {
    let mut set = |path: &str, value: Value| fields.set(&format!("{prefix}{path}"), value);
    set("src_endpoint.ip", json!(report.client.address));
    set("src_endpoint.port", json!(report.client.port));
    if report.client.address != report.peer {
        set("src_endpoint.intermediate_ips", json!([report.peer]));
    }
    set("http_request.uid", json!(report.id));
    set("http_request.http_method", json!(report.method));
    set("http_request.version", json!(report.version));
    set("http_request.user_agent", json!(report.user_agent));
    set("http_request.referrer", json!(report.referrer));
    set("http_request.body_length", json!(report.request_body_bytes));
    set("http_request.x_forwarded_for", json!(report.forwarded));
    let scheme = if report.tls.is_some() {
        "https"
    } else {
        "http"
    };
    set(
        "http_request.url",
        url(&report.target, &report.authority, Some(scheme)),
    );
    if let Some(status) = report.status {
        set("http_response.code", json!(status));
        set(
            "http_response.body_length",
            json!(report.response_body_bytes),
        );
    }
    if let Some(tls) = &report.tls {
        set("tls.version", json!(tls.version));
        set("tls.cipher", json!(tls.cipher));
        set("tls.certificate", certificate(tls));
    }
}

fn certificate(tls: &clew_protocol::report::Tls) -> Value {
    let mut fields = Fields::default();
    fields.set("subject", tls.client_subject.as_deref());
    if let Some(sha256) = &tls.client_sha256 {
        // algorithm_id 3: SHA-256.
        fields.set(
            "fingerprints",
            json!([{"algorithm_id": 3, "value": sha256}]),
        );
    }
    fields.into()
}

fn url(target: &str, authority: &str, scheme: Option<&str>) -> Value {
    let mut fields = Fields::default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    fields.set("url_string", target);
    fields.set("path", path);
    fields.set("query_string", query);
    fields.set("hostname", host(authority));
    fields.set("scheme", scheme);
    fields.into()
}

fn finding(fields: &mut Fields, event: &Event, incident: &Incident) {
    // 1: Create, 2: Update. A first revision need not be 1: of those that waited, the last is told.
    class(
        fields,
        DETECTION_FINDING,
        if incident.revision <= 1 { 1 } else { 2 },
    );
    fields.set("is_alert", true);
    fields.set("status_id", if incident.revision <= 1 { 1 } else { 2 });
    fields.text("finding_info.uid", incident.id);
    fields.set("finding_info.title", event.title());
    fields.set("finding_info.created_time", milliseconds(event.at()));
    fields.set("finding_info.modified_time", milliseconds(event.created));
    // type_id 2: Behavioral.
    fields.set("finding_info.analytic.type_id", 2);
    fields.set("finding_info.analytic.name", "request lineage");
    let attacks = event.techniques().into_iter().map(|it| {
        json!({
            "tactic": {"uid": it.tactic_id, "name": it.tactic_name},
            "technique": {"uid": it.id, "name": it.name},
        })
    });
    fields.set("finding_info.attacks", attacks.collect::<Vec<_>>());
    fields.set("confidence_id", confidence(incident.proof));
    let mut evidences = vec![of_request(event, incident)];
    evidences.extend(incident.steps.iter().map(evidence));
    evidences.retain(|it| it.as_object().is_some_and(|it| !it.is_empty()));
    fields.set("evidences", evidences);
}

/// 1: low, 2: medium, 3: high.
fn confidence(proof: Proof) -> u8 {
    match proof {
        Proof::Content | Proof::Lineage => 3,
        Proof::Sole => 2,
        Proof::Candidates => 1,
    }
}

/// The evidence that is the request.
fn of_request(event: &Event, incident: &Incident) -> Value {
    let mut fields = Fields::default();
    fields.set("data.evidence", incident.evidence.as_deref());
    if let Some(report) = &event.report {
        of_report(&mut fields, "", report);
        fields.text("dst_endpoint.ip", report.server.ip());
        fields.set("dst_endpoint.port", report.server.port());
    } else if let Some(request) = &incident.request {
        request_alone(&mut fields, request);
    }
    fields.into()
}

fn request_alone(fields: &mut Fields, request: &IncidentRequest) {
    fields.text("src_endpoint.ip", request.source_ip);
    fields.set("src_endpoint.port", request.source_port);
    fields.text("http_request.uid", request.id);
    fields.set("http_request.http_method", request.method.as_str());
    fields.set(
        "http_request.url",
        url(&request.target, &request.authority, None),
    );
    if let Some(status) = request.status {
        fields.set("http_response.code", status);
        fields.set("http_response.body_length", request.relayed_body_bytes);
    }
}

/// The evidence that is a step.
fn evidence(step: &Step) -> Value {
    let mut fields = Fields::default();
    fields.set("data.decision", json!(step.decision));
    fields.set("data.at_ms", step.at_ms);
    // verdict_id 2: true positive; 4: suspicious; 5: benign.
    let verdict = match step.decision {
        Decision::Killed | Decision::Denied => 2,
        Decision::Observed => 4,
        Decision::Allowed => 5,
    };
    fields.set("verdict_id", verdict);
    match &step.what {
        StepKind::Exec(exec) => program(&mut fields, exec),
        StepKind::Connect {
            pid,
            tid,
            comm,
            target,
            transport,
        } => {
            caller(&mut fields, *pid, *tid, comm);
            destination(&mut fields, *target);
            // 2: outbound.
            fields.set("connection_info.direction_id", 2);
            fields.set("connection_info.protocol_name", json!(transport));
            fields.set("connection_info.protocol_num", number(*transport));
        }
        StepKind::File {
            pid,
            tid,
            comm,
            path,
            inode,
            access,
        } => {
            caller(&mut fields, *pid, *tid, comm);
            fields.set("file.path", path.as_str());
            fields.set("file.name", path.rsplit('/').next());
            fields.text("file.uid", inode);
            // 1: a regular file.
            fields.set("file.type_id", 1);
            fields.set("data.access", json!(access));
        }
    }
    let writers = step.written_by.iter().map(|it| {
        json!({"path": it.path, "at": it.at,
        "request_uid": it.request.as_ref().map(|it| it.id.to_string()).unwrap_or_default(),
        "source_ip": it.request.as_ref().map(|it| it.source_ip.to_string()).unwrap_or_default()})
    });
    fields.set("data.written_by", writers.collect::<Vec<_>>());
    fields.into()
}

/// IANA's number of the protocol; none for a raw socket, which may speak any.
fn number(transport: Transport) -> Option<u8> {
    match transport {
        Transport::Tcp => Some(6),
        Transport::Udp => Some(17),
        Transport::Raw => None,
    }
}

fn destination(fields: &mut Fields, target: SocketAddr) {
    fields.text("dst_endpoint.ip", target.ip());
    fields.set("dst_endpoint.port", target.port());
}

fn caller(fields: &mut Fields, pid: u32, tid: u32, comm: &str) {
    fields.set("process.pid", pid);
    fields.set("process.tid", tid);
    fields.set("process.name", comm);
}

fn program(fields: &mut Fields, exec: &ExecStep) {
    let name = exec.executable.rsplit('/').next();
    fields.set("process.pid", exec.pid);
    fields.set("process.name", name);
    fields.set("process.file.path", exec.executable.as_str());
    fields.set("process.file.name", name);
    fields.set("process.file.uid", exec.inode.map(|it| it.to_string()));
    fields.set("process.file.type_id", 1);
    fields.set("process.cmd_line", exec.args.join(" "));
    fields.set("process.working_directory", exec.working_directory.as_str());
    fields.set("process.environment_variables", variables(exec));
    fields.text("process.user.uid", exec.uid);
    fields.text("process.group.uid", exec.gid);
    if let Some((parent, others)) = exec.ancestry.split_first() {
        fields.set("process.parent_process.pid", parent.pid);
        fields.set("process.parent_process.name", parent.comm.as_str());
        let others = others
            .iter()
            .map(|it| json!({"pid": it.pid, "name": it.comm}));
        fields.set("process.ancestry", others.collect::<Vec<_>>());
    }
    fields.set("container.uid", exec.container_id.as_deref());
}

fn variables(exec: &ExecStep) -> Vec<Value> {
    let pair = |it: &String| {
        let (name, value) = it.split_once('=').unwrap_or((it, ""));
        json!({"name": name, "value": value})
    };
    exec.env_vars.iter().map(pair).collect()
}

/// What OCSF has no attribute for: `clew` of the ECS form, but for the steps, which are evidence.
fn unmapped(fields: &mut Fields, event: &Event, observer: &Observer) {
    let mut own = super::ecs::object(event, observer);
    let Some(mut clew) = own.get_mut("clew").map(Value::take) else {
        return;
    };
    if let Some(clew) = clew.as_object_mut() {
        clew.remove("steps");
        clew.remove("forwarded");
    }
    fields.set("unmapped.clew", clew);
    fields.set("unmapped.action", event.action().name());
    fields.set("unmapped.service", event.service());
    fields.set("unmapped.observer", observer.hostname.as_str());
    if event.action() == EventAction::Cancelled {
        fields.set("unmapped.incident_unknown", true);
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
