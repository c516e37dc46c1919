//! The API as its document describes it: a real edge that serves nobody, a real socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clew_bans::{Measure, Policy};
use clew_proxy::{Config, Edge, ListenerConfig, ServiceConfig};
use serde_json::Value;

use super::serve::Sockets;
use super::*;
use crate::config::Overrides;
use crate::raw::OpenOrClosed;
use crate::reload::Source;
use crate::store::Store;
use crate::{audit, banning};

pub(crate) fn policy() -> Policy {
    Policy {
        measure: Measure {
            by_verdict: true,
            span: Duration::from_secs(60),
            escalation: 4,
            longest: Duration::from_secs(1000),
        },
        memory: Duration::from_secs(3600),
        ipv4_prefix: 32,
        ipv6_prefix: 64,
        never: vec!["192.0.2.0/24".parse().expect("network")],
        shared: Vec::new(),
        dry_run: false,
    }
}

/// A desk that nobody tends: without a sensor, in front of nothing.
pub(crate) fn desk(state: &Path) -> Desk {
    let listener = ListenerConfig {
        address: ([127, 0, 0, 1], 0).into(),
        tls: None,
        proxy_protocol: false,
    };
    let services = vec![ServiceConfig::new("it", vec![([127, 0, 0, 1], 9).into()])];
    let source = Source {
        path: None,
        overrides: Overrides {
            upstreams: vec![([127, 0, 0, 1], 9).into()],
            state: Some(state.to_owned()),
            no_sensor: true,
            ..Overrides::default()
        },
    };
    let mut configuration = source.load().expect("configuration");
    configuration.bans = policy();
    let edge = Edge::bind(Config {
        rules: Some(configuration.inspection.open().expect("rules")),
        shutdown_grace: Duration::ZERO,
        ..Config::new(vec![listener], services)
    });
    let handle = edge.expect("edge").handle();
    let bans = banning::open(&configuration, handle.clone()).expect("bans");
    bans.start().expect("thread");
    Desk {
        bans: bans.clone(),
        handle: handle.clone(),
        latest: Latest::default(),
        incidents: Store::open(state).expect("store").recent(),
        about: About {
            started: Moment::now(),
            mode: None,
            services: Vec::new(),
            missing: Vec::new(),
            dry_run: false,
        },
        audit: Audit::open(state, OpenOrClosed::Open).expect("audit"),
        log: Ears::default(),
        spans: None,
        reloader: Arc::new(Reloader::new(
            source,
            (handle.clone(), bans.clone()),
            None,
            &configuration,
        )),
        state: state.to_owned(),
    }
}

/// Status, media type and body of one answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: String,
}

/// What is answered to a request, as it stands, on a connection of its own.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> Option<Answer> {
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // What is cut after the answer is cut.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let kind = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type")
            .then(|| value.to_owned())
    });
    Some(Answer {
        status: head.split(' ').nth(1)?.parse().ok()?,
        kind: kind.unwrap_or_default(),
        body: body.to_owned(),
    })
}

pub(crate) fn request(method: &str, target: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: clew\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{more}\r\n{body}"
    )
}

const INCIDENT: &str = "0191d3a0-0000-7000-8000-000000000001";

/// An incident with everything that it may have.
fn incident() -> Value {
    let request = serde_json::json!({
        "id": INCIDENT, "sequence": 7, "source_ip": "203.0.113.1", "source_port": 4, "method": "GET",
        "target": "/", "authority": "a", "service": "it", "upstream": "127.0.0.1:9", "status": 403,
        "relayed_body_bytes": 0, "edge": { "score": 5, "rules": [942_100] }
    });
    serde_json::json!({
        "@timestamp": "2026-01-01T00:00:00Z", "id": INCIDENT, "revision": 1, "action": "banned",
        "proof": "content", "evidence": "touch", "request": request, "candidates": [],
        "steps": [
            { "at_ms": 1.0, "decision": "killed", "strength": "reader", "kind": "exec", "pid": 1,
              "executable": "/bin/sh", "filename": "/bin/sh", "args": ["sh"], "env_vars": [],
              "working_directory": "/", "uid": 0, "gid": 0, "inode": 5, "cgroup_id": 1, "container_id": null,
              "truncated": false,
              "ancestry": [{ "pid": 1, "comm": "java", "start_ns": 0 }] },
            { "at_ms": 1.0, "decision": "denied", "strength": "thread", "kind": "connect", "pid": 1,
              "tid": 2, "comm": "c", "target": "127.0.0.1:1", "transport": "tcp" },
            { "at_ms": 1.0, "decision": "observed", "strength": "reader", "kind": "file", "pid": 1,
              "tid": 2, "comm": "c", "path": "/srv/x", "inode": 9, "access": "write",
              "written_by": [{ "at": "2026-01-01T00:00:00Z", "before_ms": 3.0, "path": "/srv/x",
                               "proof": "sole", "request": null, "candidates": 2 }] }
        ],
        "steps_cut": 0, "ban": { "address": "203.0.113.1", "seconds": 60 },
        "timing": { "exec_to_cancel_ms": 1.0, "exec_to_ban_ms": null },
        "degraded": [{ "class": "exec", "records": 3 }]
    })
}

/// Requests to every route, and the status that each is answered with.
fn cases() -> Vec<(&'static str, &'static str, String, &'static str, u16)> {
    let show = "/v1/incidents/{id}";
    let other = "/v1/incidents/0191d3a0-0000-7000-8000-00000000000f".to_owned();
    let ban = r#"{"source":"203.0.113.0/24","seconds":60,"reason":"why"}"#;
    let long = Box::leak(
        format!(
            r#"{{"source":"203.0.113.9","reason":"{}"}}"#,
            "x".repeat(300)
        )
        .into_boxed_str(),
    );
    let own = |text: &str| text.to_owned();
    vec![
        ("GET", "/v1/status", own("/v1/status"), "", 200),
        ("POST", "/v1/bans", own("/v1/bans"), ban, 200),
        (
            "POST",
            "/v1/bans",
            own("/v1/bans"),
            r#"{"source":"2001:db8::1"}"#,
            200,
        ),
        (
            "POST",
            "/v1/bans",
            own("/v1/bans"),
            r#"{"source":"192.0.2.1"}"#,
            409,
        ),
        (
            "POST",
            "/v1/bans",
            own("/v1/bans"),
            r#"{"source":"0.0.0.0/0"}"#,
            400,
        ),
        (
            "POST",
            "/v1/bans",
            own("/v1/bans"),
            r#"{"source":"nobody"}"#,
            400,
        ),
        (
            "POST",
            "/v1/bans",
            own("/v1/bans"),
            r#"{"source":"203.0.113.9","seconds":0}"#,
            400,
        ),
        ("POST", "/v1/bans", own("/v1/bans"), long, 400),
        ("POST", "/v1/bans", own("/v1/bans"), "{", 400),
        ("GET", "/v1/bans", own("/v1/bans"), "", 200),
        (
            "GET",
            "/v1/bans",
            own("/v1/bans?limit=1&after=10.0.0.0/8"),
            "",
            200,
        ),
        ("GET", "/v1/bans", own("/v1/bans?limit=-1"), "", 400),
        ("GET", "/v1/bans", own("/v1/bans?after=x"), "", 400),
        (
            "DELETE",
            "/v1/bans",
            own("/v1/bans?source=2001:db8::1"),
            "",
            200,
        ),
        ("DELETE", "/v1/bans", own("/v1/bans"), "", 400),
        ("GET", "/v1/counters", own("/v1/counters"), "", 200),
        ("GET", "/v1/incidents", own("/v1/incidents"), "", 200),
        (
            "GET",
            "/v1/incidents",
            own("/v1/incidents?limit=x"),
            "",
            400,
        ),
        ("GET", show, format!("/v1/incidents/{INCIDENT}"), "", 200),
        ("GET", show, other, "", 404),
        ("GET", show, own("/v1/incidents/last"), "", 400),
        ("GET", "/v1/log", own("/v1/log"), "", 200),
        ("GET", "/v1/packs", own("/v1/packs"), "", 200),
        ("GET", "/v1/rules/hits", own("/v1/rules/hits"), "", 200),
        ("POST", "/v1/reload", own("/v1/reload"), "", 200),
        ("GET", "/v1/shadow", own("/v1/shadow"), "", 404),
        (
            "POST",
            "/v1/shadow",
            own("/v1/shadow"),
            r#"{"name":"absent"}"#,
            409,
        ),
        (
            "POST",
            "/v1/shadow",
            own("/v1/shadow"),
            r#"{"name":"No name"}"#,
            400,
        ),
        (
            "POST",
            "/v1/shadow",
            own("/v1/shadow"),
            r#"{"name":"a","version":"one"}"#,
            400,
        ),
        ("DELETE", "/v1/shadow", own("/v1/shadow"), "", 200),
        ("GET", "/openapi.json", own("/openapi.json"), "", 200),
        ("GET", "/metrics", own("/metrics"), "", 200),
        ("GET", "/live", own("/live"), "", 200),
        ("GET", "/ready", own("/ready"), "", 503),
    ]
}

#[test]
fn every_route_answers_as_the_document_says() {
    let state = tempfile::tempdir().expect("directory");
    let line = format!("{}\n", incident());
    std::fs::write(state.path().join("incidents.jsonl"), line).expect("file");
    let desk = desk(state.path());
    let sockets = Sockets::bind(state.path(), None, None).expect("sockets");
    let socket = sockets.serve(desk.into()).expect("thread");
    let ask = |request: &str| {
        let stream = UnixStream::connect(&socket).expect("connection");
        exchange(stream, request).expect("answer")
    };
    let document = ask(&request("GET", "/openapi.json", "", ""));
    let document: Value = serde_json::from_str(&document.body).expect("document");
    assert_eq!(document["openapi"], "3.1.0");
    let mut untried = operations(&document);
    for (method, path, target, body, status) in cases() {
        let answer = ask(&request(method, &target, "", body));
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.body);
        untried.retain(|it| *it != (method.to_lowercase(), path.to_owned()));
        let operation = &document["paths"][path][method.to_lowercase()];
        check(&document, operation, &answer);
    }
    assert!(untried.is_empty(), "not tried: {untried:?}");
}

fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods");
        methods.keys().map(|it| (it.clone(), path.clone()))
    });
    operations.collect()
}

/// The answer has a status and a body that the operation is said to have.
fn check(document: &Value, operation: &Value, answer: &Answer) {
    let response = &operation["responses"][answer.status.to_string()];
    let content = response["content"]
        .as_object()
        .expect("a documented status");
    let kind = answer.kind.split(';').next().unwrap_or_default();
    let schema = &content
        .get(kind)
        .unwrap_or_else(|| panic!("{kind} is documented"))["schema"];
    if kind != "application/json" {
        return;
    }
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("schema");
    let mut body: Value = serde_json::from_str(&answer.body).expect("JSON");
    let errors: Vec<String> = validator
        .iter_errors(&body)
        .map(|it| it.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}\n{body:#}");
    if schema["$ref"].is_null() {
        return;
    }
    // The schema says something: with a field of another type the body is none.
    let (_, first) = body
        .as_object_mut()
        .and_then(|it| it.iter_mut().find(|it| !it.1.is_null()))
        .expect("a field");
    *first = serde_json::json!({ "another": "type" });
    assert!(!validator.is_valid(&body), "{body:#}");
}

#[test]
fn what_is_no_route_is_a_problem() {
    let state = tempfile::tempdir().expect("directory");
    let sockets = Sockets::bind(state.path(), None, None).expect("sockets");
    let socket = sockets.serve(desk(state.path()).into()).expect("thread");
    for (method, target, status) in [
        ("GET", "/", 404),
        ("GET", "/v1/bans/", 404),
        ("PUT", "/v1/bans", 405),
        ("POST", "/v1/status", 405),
    ] {
        let stream = UnixStream::connect(&socket).expect("connection");
        let answer = exchange(stream, &request(method, target, "", "")).expect("answer");
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(answer.body.contains("openapi.json"), "{}", answer.body);
    }
}

#[test]
fn changes_are_audited_and_refusals_too() {
    let state = tempfile::tempdir().expect("directory");
    let sockets = Sockets::bind(state.path(), None, None).expect("sockets");
    let socket = sockets.serve(desk(state.path()).into()).expect("thread");
    for (method, target, body) in [
        (
            "POST",
            "/v1/bans",
            r#"{"source":"203.0.113.1","reason":"why"}"#,
        ),
        ("POST", "/v1/bans", r#"{"source":"192.0.2.1"}"#),
        ("DELETE", "/v1/bans?source=203.0.113.1", ""),
        ("GET", "/v1/bans", ""),
    ] {
        let stream = UnixStream::connect(&socket).expect("connection");
        exchange(stream, &request(method, target, "", body)).expect("answer");
    }
    let entries = audit::read(state.path(), 10).expect("log");
    let told: Vec<_> = entries
        .iter()
        .map(|it| (it.action.as_str(), it.target.as_str(), it.result == "done"))
        .collect();
    assert_eq!(
        told,
        [
            ("ban.add", "203.0.113.1", true),
            ("ban.add", "192.0.2.1", false),
            ("ban.remove", "203.0.113.1", true),
        ]
    );
    let uid = rustix::process::getuid().as_raw();
    let pid = Some(rustix::process::getpid().as_raw_nonzero().get());
    assert_eq!(entries[0].actor, Actor::Process { uid, pid });
    assert_eq!(entries[0].details["reason"], "why");
}
