//! Every event is as `schema/` says, and all that is there is in some event.

use std::collections::BTreeSet;
use std::time::Duration;

use clew_protocol::incident::{Incident, IncidentAction, StepKind};
use clew_protocol::kernel::{Decision, Transport};
use clew_protocol::report::{Outcome, Report};
use clew_protocol::verdict::Proof;
use serde_json::Value;

use super::{Event, LINE_BYTES};
use crate::Observer;
use crate::config::Format;
use crate::sample;
use crate::sink::Writer;

const OUTCOMES: [Outcome; 6] = [
    Outcome::Detected,
    Outcome::Denied,
    Outcome::Malformed,
    Outcome::Banned,
    Outcome::Limited,
    Outcome::Cancelled,
];
const ACTIONS: [IncidentAction; 4] = [
    IncidentAction::Observed,
    IncidentAction::Stopped,
    IncidentAction::Cancelled,
    IncidentAction::Banned,
];
const DECISIONS: [Decision; 4] = [
    Decision::Allowed,
    Decision::Observed,
    Decision::Killed,
    Decision::Denied,
];
const PROOFS: [Proof; 4] = [
    Proof::Content,
    Proof::Lineage,
    Proof::Sole,
    Proof::Candidates,
];
const TEXTS: [&str; 10] = [
    "",
    "\0\u{1}\u{7f}",
    "\"}],\\\r\n<110>1 - ",
    "é\u{202e}\u{10ffff}\u{feff}",
    "?",
    "[::",
    "@@@:::",
    "%00%",
    "password=hunter2hunter2",
    "not a time",
];

/// Makes choices: the same from the same seed.
struct Choice(fastrand::Rng);

impl Choice {
    fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.0.usize(..list.len())].clone()
    }

    fn flip(&mut self) -> bool {
        self.0.bool()
    }

    /// One text in three is hostile, and one of these long.
    fn spoil(&mut self, text: &mut String) {
        if self.0.u8(..3) > 0 {
            return;
        }
        *text = self.of(&TEXTS).to_owned();
        if self.0.u8(..8) == 0 {
            *text = text.repeat(self.0.usize(..300));
        }
    }

    fn report(&mut self) -> Report {
        let mut report = sample::report();
        report.outcome = self.of(&OUTCOMES);
        let texts = [
            &mut report.method,
            &mut report.target,
            &mut report.authority,
            &mut report.version,
        ];
        texts.into_iter().for_each(|it| self.spoil(it));
        let optional = [
            &mut report.user_agent,
            &mut report.referrer,
            &mut report.content_type,
            &mut report.service,
        ];
        for text in optional {
            *text = text.take().filter(|_| self.flip());
            text.iter_mut().for_each(|it| self.spoil(it));
        }
        report.tls = report.tls.filter(|_| self.flip());
        report.trace = report.trace.filter(|_| self.flip());
        report.upstream = report.upstream.filter(|_| self.flip());
        report.status = report.status.filter(|_| self.flip());
        if self.flip() {
            report.client.address = report.peer;
            report.forwarded.clear();
        }
        for found in &mut report.matches {
            self.spoil(&mut found.data);
            self.spoil(&mut found.message);
            self.spoil(&mut found.file);
            found.severity = found.severity.filter(|_| self.flip());
            found.disruptive = self.flip();
        }
        let matches = report.matches.clone();
        let count = self.of(&[0, 1, 2, 3, 70]);
        report.matches = matches.into_iter().cycle().take(count).collect();
        report.timing.total = self.of(&[Duration::ZERO, Duration::MAX, report.timing.total]);
        report.at = self.of(&[Duration::ZERO, Duration::MAX, report.at]);
        report.score = (self.0.i64(..), self.0.i64(..));
        report
    }

    fn incident(&mut self) -> Incident {
        let named = self.flip();
        let mut incident = match named {
            true => sample::incident(self.0.u32(1..9)),
            false => sample::incident_of_candidates(),
        };
        incident.action = self.of(&ACTIONS);
        incident.proof = self.of(&PROOFS);
        self.spoil(&mut incident.timestamp);
        incident.evidence = incident.evidence.filter(|_| self.flip());
        incident.ban = incident.ban.filter(|_| self.flip());
        let count = self.of(&[0, 1, 2, 3, 70]);
        let first = self.0.usize(..3);
        let steps = incident.steps.into_iter().cycle().skip(first);
        incident.steps = steps.take(count).collect();
        for step in &mut incident.steps {
            step.decision = self.of(&DECISIONS);
            step.at_ms = self.of(&[0.0, 1.5, f64::NAN, f64::INFINITY]);
            match &mut step.what {
                StepKind::Exec(exec) => {
                    self.spoil(&mut exec.executable);
                    exec.args.iter_mut().for_each(|it| self.spoil(it));
                    exec.args = exec
                        .args
                        .iter()
                        .cloned()
                        .cycle()
                        .take(self.0.usize(..300))
                        .collect();
                    exec.env_vars.iter_mut().for_each(|it| self.spoil(it));
                    exec.ancestry.truncate(self.0.usize(..3));
                }
                StepKind::Connect { transport, .. } => {
                    *transport = self.of(&[Transport::Tcp, Transport::Udp, Transport::Raw]);
                }
                StepKind::File { path, .. } => self.spoil(path),
            }
        }
        incident
    }

    fn event(&mut self) -> Event {
        let created = Duration::from_secs(1_790_000_000);
        match self.0.u8(..3) {
            0 => Event::of_report(self.report(), created),
            1 => Event::of_incident(self.incident(), None, created),
            _ => Event::of_incident(self.incident(), Some(Box::new(self.report())), created),
        }
    }
}

fn writer(format: Format) -> Writer {
    Writer {
        format,
        observer: Observer {
            hostname: "edge-1".to_owned(),
            version: "0.1.0".to_owned(),
        },
    }
}

fn schema(format: Format) -> Value {
    let text = match format {
        Format::Ecs => include_str!("../../schema/ecs.json"),
        Format::Ocsf => include_str!("../../schema/ocsf.json"),
    };
    serde_json::from_str(text).expect("JSON")
}

/// The events that everything is tried with: the plain ones, then many made by chance.
fn events() -> Vec<Event> {
    let created = Duration::from_secs(1_790_000_000);
    let mut choice = Choice(fastrand::Rng::with_seed(7));
    let mut cancelled = sample::report();
    cancelled.outcome = Outcome::Cancelled;
    let mut events = vec![
        Event::of_report(sample::report(), created),
        Event::of_report(cancelled, created),
        Event::of_incident(sample::incident(1), None, created),
        Event::of_incident(sample::incident_of_candidates(), None, created),
        Event::of_incident(
            sample::incident(2),
            Some(Box::new(sample::report())),
            created,
        ),
    ];
    events.extend((0..150).map(|_| choice.event()));
    events
}

#[test]
fn events_of_every_kind_are_as_the_schema_says_and_the_schema_has_nothing_else() {
    let events = events();
    for format in [Format::Ecs, Format::Ocsf] {
        let schema = schema(format);
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&schema).expect("a schema");
        let writer = writer(format);
        let mut seen = BTreeSet::new();
        for event in &events {
            let line = writer.line(event.clone());
            assert!(
                line.len() <= LINE_BYTES && !line.contains(&b'\n'),
                "{}",
                line.len()
            );
            let object: Value = serde_json::from_slice(&line).expect("JSON");
            let errors: Vec<String> = validator
                .iter_errors(&object)
                .map(|error| format!("{}: {error:.300}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{format:?}: {errors:#?}");
            paths(&schema, &schema, &object, "", &mut seen);
        }
        let mut known = BTreeSet::new();
        properties(&schema, &schema, "", &mut known);
        let unused: Vec<_> = known.difference(&seen).collect();
        assert!(unused.is_empty(), "{format:?}: in no event: {unused:#?}");
    }
}

fn resolved<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    let target = node.get("$ref").and_then(Value::as_str);
    target
        .and_then(|it| root.pointer(it.trim_start_matches('#')))
        .unwrap_or(node)
}

/// Every property that the schema has, and that each says what it is.
fn properties(root: &Value, node: &Value, path: &str, known: &mut BTreeSet<String>) {
    let described = node["description"]
        .as_str()
        .is_some_and(|it| it.ends_with('.'));
    assert!(described, "{path} has no description");
    let node = resolved(root, node);
    if let Some(children) = node["properties"].as_object() {
        assert_eq!(node["additionalProperties"], false, "{path}");
        for (name, child) in children {
            let path = format!("{path}.{name}");
            properties(root, child, &path, known);
            known.insert(path);
        }
    }
    if node["items"].get("type").is_none_or(|it| it == "object") && node.get("items").is_some() {
        properties(root, &node["items"], &format!("{path}[]"), known);
    }
}

/// Every property of the schema that an event has.
fn paths(root: &Value, schema: &Value, object: &Value, path: &str, seen: &mut BTreeSet<String>) {
    let schema = resolved(root, schema);
    match object {
        Value::Object(object) => {
            for (name, child) in object {
                let path = format!("{path}.{name}");
                paths(root, &schema["properties"][name], child, &path, seen);
                seen.insert(path);
            }
        }
        Value::Array(list) => {
            for child in list {
                paths(root, &schema["items"], child, &format!("{path}[]"), seen);
            }
        }
        _ => {}
    }
}

#[test]
fn a_line_is_short_enough_for_a_datagram_and_still_says_who_what_and_when() {
    for event in events() {
        for format in [Format::Ecs, Format::Ocsf] {
            let line = writer(format).line_within(event.clone(), 3584);
            assert!(line.len() <= 3584, "{} bytes of {format:?}", line.len());
            let text = String::from_utf8(line).expect("UTF-8");
            assert!(text.contains(&event.id));
        }
    }
}

#[test]
fn what_waits_on_disk_is_bounded_and_reads_back_the_same() {
    for event in events() {
        let record = serde_json::to_vec(&event).expect("JSON");
        assert!(record.len() <= LINE_BYTES, "{}", record.len());
        let again: Event = serde_json::from_slice(&record).expect("an event");
        let line = |event: Event| String::from_utf8(writer(Format::Ecs).line(event));
        assert_eq!(line(again), line(event));
    }
}

#[test]
fn no_secret_is_in_any_form_of_an_event() {
    const SECRET: &str = "hunter2hunter2";
    let mut report = sample::report();
    report.target = format!("/a?password={SECRET}&x=%7B%22token%22%3A%22{SECRET}%22%7D");
    report.authority = format!("user:{SECRET}@shop.example");
    report.referrer = Some(format!("https://a:{SECRET}@b/?api_key={SECRET}"));
    report.user_agent = Some(format!("Bearer {SECRET}"));
    report.matches[0].variable = "REQUEST_COOKIES:session".to_owned();
    report.matches[0].data =
        format!("Matched Data: x found within REQUEST_COOKIES:session: {SECRET}");
    report.matches[0].message = format!("cookie {SECRET}");
    report.matches[1].data = format!("{{\"user\":\"a\",\"password\":\"{SECRET}\"}}");
    let mut incident = sample::incident(1);
    incident.evidence = Some(format!("--password={SECRET}"));
    if let Some(request) = &mut incident.request {
        request.target = report.target.clone();
    }
    if let StepKind::Exec(exec) = &mut incident.steps[0].what {
        exec.args = ["mysql", &format!("-p{SECRET}"), "--password", SECRET]
            .map(str::to_owned)
            .to_vec();
        exec.env_vars = vec![format!("DB_PASSWORD={SECRET}")];
    }
    let created = Duration::from_secs(1);
    let events = [
        Event::of_report(report.clone(), created),
        Event::of_incident(incident.clone(), None, created),
        Event::of_incident(incident, Some(Box::new(report)), created),
    ];
    for event in events {
        let record = serde_json::to_string(&event).expect("JSON");
        assert!(!record.contains(SECRET), "{record}");
        for format in [Format::Ecs, Format::Ocsf] {
            let line = String::from_utf8(writer(format).line(event.clone())).expect("UTF-8");
            assert!(!line.contains(SECRET) && line.contains("***"), "{line}");
        }
    }
}
