//! A report and an incident with everything in them, for tests.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clew_protocol::incident::{
    BanRecord, ExecStep, Incident, IncidentAction, IncidentRequest, Loss, Step, StepKind, Timing,
    Writer,
};
use clew_protocol::kernel::{Access, Ancestor, Decision, LostClass, Strength, Transport};
use clew_protocol::report::{Outcome, PackVersion, Report, ReportTiming, RuleMatch, Tls, Trace};
use clew_protocol::request::{Client, EdgeFindings};
use clew_protocol::verdict::Proof;
use clew_protocol::{IncidentId, RequestId, Sequence};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

fn socket(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, last), port))
}

/// A denied request behind a trusted hop.
pub(crate) fn report() -> Report {
    Report {
        at: Duration::from_millis(1_790_000_000_123),
        id: RequestId::fresh(),
        client: Client {
            address: CLIENT,
            port: 40_000,
            shared: false,
            cross_site: true,
        },
        peer: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2)),
        forwarded: vec!["198.51.100.2".to_owned(), "203.0.113.7".to_owned()],
        server: socket(1, 443),
        tls: Some(Tls {
            version: "1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            client_subject: Some("CN=client".to_owned()),
            client_sha256: Some("ab".repeat(32)),
        }),
        trace: Some(Trace {
            trace_id: "0123456789abcdef0123456789abcdef".to_owned(),
            span_id: Some("0123456789abcdef".to_owned()),
            parent_id: Some("fedcba9876543210".to_owned()),
        }),
        version: "1.1".to_owned(),
        method: "POST".to_owned(),
        target: "/search?q=%27+or+1%3D1&page=2".to_owned(),
        authority: "shop.example:443".to_owned(),
        user_agent: Some("curl/8.0".to_owned()),
        referrer: Some("https://other.example/a?b".to_owned()),
        content_type: Some("application/json".to_owned()),
        request_body_bytes: 12,
        response_body_bytes: 0,
        service: Some("shop".to_owned()),
        upstream: Some(socket(8, 8080)),
        status: Some(403),
        outcome: Outcome::Denied,
        incident: None,
        score: (10, 0),
        matches: vec![rule(942_100, true), rule(942_190, false)],
        matches_cut: 3,
        packs: [PackVersion {
            name: "owasp-crs".to_owned(),
            version: "3.3.4".to_owned(),
        }]
        .into(),
        timing: ReportTiming {
            total: Duration::from_micros(1500),
            rules: Duration::from_micros(300),
            upstream: Some(Duration::from_micros(700)),
        },
    }
}

fn rule(id: u64, disruptive: bool) -> RuleMatch {
    RuleMatch {
        id,
        message: "SQL Injection Attack Detected via libinjection".to_owned(),
        data: "Matched Data: s&1 found within ARGS:q: ' or 1=1".to_owned(),
        variable: "ARGS:q".to_owned(),
        severity: Some(2),
        tags: vec!["attack-sqli".to_owned(), "paranoia-level/1".to_owned()],
        file: "REQUEST-942-APPLICATION-ATTACK-SQLI.conf".to_owned(),
        line: 46,
        disruptive,
    }
}

fn request() -> IncidentRequest {
    IncidentRequest {
        id: RequestId::fresh(),
        sequence: Sequence(5),
        source_ip: CLIENT,
        source_port: 40_000,
        method: "GET".to_owned(),
        target: "/run?c=id".to_owned(),
        authority: "[2001:db8::1]:443".to_owned(),
        service: "shop".to_owned(),
        upstream: socket(8, 8080),
        status: Some(403),
        relayed_body_bytes: Some(0),
        edge: EdgeFindings {
            score: 5,
            rules: [932_160].into(),
        },
    }
}

fn step(what: StepKind, decision: Decision) -> Step {
    Step {
        at_ms: 1.25,
        decision,
        strength: Strength::Reader,
        what,
        written_by: Vec::new(),
    }
}

fn exec() -> StepKind {
    StepKind::Exec(Box::new(ExecStep {
        pid: 77,
        executable: "/usr/bin/dash".to_owned(),
        filename: "/bin/sh".to_owned(),
        args: vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()],
        env_vars: vec!["LANG=C".to_owned(), "API_TOKEN=hunter2".to_owned()],
        working_directory: "/srv".to_owned(),
        uid: 33,
        gid: 33,
        inode: Some(12),
        ancestry: ["java", "containerd-shim"]
            .map(|comm| Ancestor {
                pid: 70,
                comm: comm.to_owned(),
            })
            .to_vec(),
        cgroup_id: 9,
        container_id: Some("c0ffee".to_owned()),
        truncated: true,
    }))
}

fn writer(request: Option<IncidentRequest>) -> Writer {
    Writer {
        at: "2026-09-21T13:33:20.000Z".to_owned(),
        before_ms: 86_400_000.5,
        path: "/srv/www/shell.php".to_owned(),
        proof: Proof::Sole,
        candidates: if request.is_some() { 0 } else { 3 },
        request,
    }
}

/// An incident in which a shell was killed, and its sender banned.
pub(crate) fn incident(revision: u32) -> Incident {
    let connect = StepKind::Connect {
        pid: 70,
        tid: 71,
        comm: "java".to_owned(),
        target: socket(66, 4444),
        transport: Transport::Tcp,
    };
    let file = StepKind::File {
        pid: 70,
        tid: 71,
        comm: "java".to_owned(),
        path: "/etc/shadow".to_owned(),
        inode: 99,
        access: Access::Read,
    };
    let mut shell = step(exec(), Decision::Killed);
    shell.written_by = vec![writer(Some(request())), writer(None)];
    Incident {
        timestamp: "2026-09-21T14:13:20.123456Z".to_owned(),
        id: IncidentId(RequestId::fresh().0),
        revision,
        action: IncidentAction::Banned,
        proof: Proof::Content,
        evidence: Some("c=id".to_owned()),
        request: Some(request()),
        candidates: Vec::new(),
        steps: vec![
            shell,
            step(connect, Decision::Denied),
            step(file, Decision::Observed),
        ],
        steps_cut: 1,
        ban: Some(BanRecord {
            address: CLIENT,
            seconds: 3600,
        }),
        timing: Timing {
            exec_to_cancel_ms: Some(0.5),
            exec_to_ban_ms: Some(0.75),
        },
        degraded: vec![Loss {
            class: LostClass::Exec,
            records: 2,
        }],
    }
}

/// An incident that may be one of several requests'.
#[allow(dead_code, reason = "not every test that has this file needs it")]
pub(crate) fn incident_of_candidates() -> Incident {
    Incident {
        action: IncidentAction::Stopped,
        proof: Proof::Candidates,
        request: None,
        candidates: vec![request(), request()],
        ban: None,
        ..incident(1)
    }
}
