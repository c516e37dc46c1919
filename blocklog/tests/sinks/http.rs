//! Elasticsearch, Splunk and webhooks.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::server::{Request, Server};
use crate::stage::{PATIENCE, id_of, report, report_one, start, wait_until};
use crate::syslog::certificates;

/// What an index has: documents by id, in the order they came.
#[derive(Default)]
struct Index {
    documents: Mutex<Vec<(String, String)>>,
    ids: Mutex<HashSet<String>>,
    requests: AtomicUsize,
    /// Of each id that comes for the first time, this status is answered.
    busy_items: AtomicBool,
    seen: Mutex<HashSet<String>>,
    /// The whole server is busy.
    busy: AtomicBool,
}

impl Index {
    fn ids(&self) -> Vec<String> {
        let documents = self.documents.lock().expect("the lock");
        documents.iter().map(|it| it.0.clone()).collect()
    }

    /// `POST /INDEX/_bulk` as Elasticsearch documents it.
    fn bulk(&self, request: &Request) -> (u16, String) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if request.line != "POST /logs-clew.block-default/_bulk HTTP/1.1" {
            return (404, json!({"error": "no such index"}).to_string());
        }
        if request.header("content-type") != "application/x-ndjson" {
            return (
                406,
                json!({"error": "Content-Type header is not supported"}).to_string(),
            );
        }
        if request.header("authorization") != "ApiKey c2VjcmV0LWtleQ==" {
            return (
                401,
                json!({"error": "unable to authenticate", "got": request.header("authorization")})
                    .to_string(),
            );
        }
        if self.busy.load(Ordering::Relaxed) {
            return (429, json!({"error": "too many requests"}).to_string());
        }
        match self.items(&request.body) {
            Some(items) => {
                let errors = items.iter().any(|it| it["create"]["status"] != 201);
                (
                    200,
                    json!({"took": 1, "errors": errors, "items": items}).to_string(),
                )
            }
            None => (
                400,
                json!({"error": "illegal_argument_exception"}).to_string(),
            ),
        }
    }

    fn items(&self, body: &[u8]) -> Option<Vec<Value>> {
        let text = std::str::from_utf8(body).ok()?;
        let lines: Vec<&str> = text.strip_suffix('\n')?.split('\n').collect();
        let pairs = lines.chunks(2).map(|pair| {
            let [action, source] = pair else { return None };
            let action: Value = serde_json::from_str(action).ok()?;
            let id = action["create"]["_id"].as_str()?;
            Some(self.create(id, source))
        });
        pairs.collect()
    }

    fn create(&self, id: &str, source: &str) -> Value {
        let item = |status: u16, kind: &str| json!({"create": {"_id": id, "status": status, "error": {"type": kind, "reason": "because"}}});
        let first = self.seen.lock().expect("the lock").insert(id.to_owned());
        if first && self.busy_items.load(Ordering::Relaxed) {
            return item(429, "es_rejected_execution_exception");
        }
        if source.contains("unmappable") {
            return item(400, "document_parsing_exception");
        }
        if !self.ids.lock().expect("the lock").insert(id.to_owned()) {
            return item(409, "version_conflict_engine_exception");
        }
        let mut documents = self.documents.lock().expect("the lock");
        documents.push((id.to_owned(), source.to_owned()));
        json!({"create": {"_id": id, "status": 201}})
    }
}

/// An index, its server, and a state directory with the key in it.
fn elasticsearch() -> Result<(Arc<Index>, Server, tempfile::TempDir)> {
    let index = Arc::new(Index::default());
    let served = Arc::clone(&index);
    let server = Server::start(move |request| served.bulk(request))?;
    let state = tempfile::tempdir()?;
    std::fs::write(state.path().join("key"), "c2VjcmV0LWtleQ==\n")?;
    Ok((index, server, state))
}

fn configured(url: &str, state: &std::path::Path) -> String {
    let key = state.join("key");
    format!(
        "[[log]]\nsink = 'elasticsearch'\nurl = '{url}'\ntoken_file = '{}'\nretry_seconds = 1\ntimeout_seconds = 5\n",
        key.display()
    )
}

pub(crate) fn elasticsearch_has_every_event_once_and_in_order() -> Result<()> {
    let (index, server, state) = elasticsearch()?;
    let log = start(state.path(), &configured(&server.url(), state.path()))?;
    let ids = report(&log, 1000);
    let counters = log.finish(PATIENCE);
    assert_eq!(index.ids(), ids);
    assert_eq!(
        (counters.sinks[0].sent, counters.sinks[0].waiting_events),
        (1000, 0)
    );
    for (id, source) in index.documents.lock().expect("the lock").iter() {
        ensure!(*id == id_of(source)?);
    }
    Ok(())
}

pub(crate) fn items_that_are_put_off_are_sent_again_and_bad_ones_are_counted() -> Result<()> {
    let (index, server, state) = elasticsearch()?;
    index.busy_items.store(true, Ordering::Relaxed);
    let log = start(state.path(), &configured(&server.url(), state.path()))?;
    let mut ids = report(&log, 20);
    let mut bad = crate::sample::report();
    bad.method = "unmappable".to_owned();
    log.report(bad);
    ids.extend(report(&log, 20));
    let counters = log.finish(PATIENCE);
    let sink = &counters.sinks[0];
    let there: HashSet<String> = index.ids().into_iter().collect();
    assert_eq!(there, ids.into_iter().collect());
    assert_eq!((sink.sent, sink.refused), (40, 1));
    assert!(sink.retried > 0 && index.ids().len() == 40);
    assert!(
        sink.last_error
            .as_ref()
            .is_some_and(|it| it.contains("document_parsing_exception"))
    );
    Ok(())
}

pub(crate) fn a_server_that_is_busy_or_down_gets_all_when_it_is_back_and_nobody_waits() -> Result<()>
{
    let (index, server, state) = elasticsearch()?;
    index.busy.store(true, Ordering::Relaxed);
    let file = state.path().join("block.json");
    let text = format!(
        "{}[[log]]\nsink = 'file'\npath = '{}'\n",
        configured(&server.url(), state.path()),
        file.display()
    );
    let log = start(state.path(), &text)?;
    let mut ids = report(&log, 100);
    let retried = || log.counters().sinks[0].retried;
    wait_until("the server has refused", || retried() > 1)?;
    let address = server.address;
    drop(server);
    let refused = retried();
    let began = Instant::now();
    ids.extend(report(&log, 400));
    assert!(began.elapsed() < Duration::from_secs(2), "callers waited");
    let lines = || std::fs::read_to_string(&file).map_or(0, |it| it.lines().count());
    wait_until("the other sink has all", || lines() == 500)?;
    wait_until("nobody is there", || retried() > refused)?;
    let counters = log.counters();
    assert_eq!(
        (counters.sinks[0].sent, counters.sinks[0].waiting_events),
        (0, 500)
    );
    assert!(counters.sinks[0].waiting_bytes > 100_000 && counters.refused == 0);

    index.busy.store(false, Ordering::Relaxed);
    let served = Arc::clone(&index);
    let _server = Server::start_at(address, None, move |request| served.bulk(request))?;
    let counters = log.finish(PATIENCE);
    assert_eq!(index.ids(), ids);
    assert_eq!(
        (counters.sinks[0].sent, counters.sinks[0].dropped),
        (500, 0)
    );
    Ok(())
}

pub(crate) fn what_is_not_sent_in_time_is_sent_at_the_next_start() -> Result<()> {
    let (index, server, state) = elasticsearch()?;
    index.busy.store(true, Ordering::Relaxed);
    let text = configured(&server.url(), state.path());
    let log = start(state.path(), &text)?;
    let ids = report(&log, 50);
    let began = Instant::now();
    let counters = log.finish(Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(counters.sinks[0].waiting_events, 50);
    assert_eq!(
        counters.spool.map(|it| (it.written, it.durable)),
        Some((50, 50))
    );
    report_one(&log);
    assert_eq!(log.counters().refused, 1);
    drop(log);
    index.busy.store(false, Ordering::Relaxed);
    let log = start(state.path(), &text)?;
    log.finish(PATIENCE);
    assert_eq!(index.ids(), ids);
    Ok(())
}

pub(crate) fn a_wrong_key_is_said_and_not_shown() -> Result<()> {
    let (index, server, state) = elasticsearch()?;
    std::fs::write(state.path().join("key"), "d3JvbmcgaW5kZWVk")?;
    let log = start(state.path(), &configured(&server.url(), state.path()))?;
    report(&log, 1);
    wait_until("it is refused", || log.counters().sinks[0].retried > 0)?;
    let error = log.counters().sinks[0]
        .last_error
        .clone()
        .unwrap_or_default();
    assert!(
        error.contains("401") && !error.contains("d3Jvbmcg"),
        "{error}"
    );
    log.finish(Duration::ZERO);
    assert!(index.ids().is_empty());
    Ok(())
}

/// The event collector as Splunk documents it: JSON objects one after the other.
fn collector(taken: &Mutex<Vec<Value>>, request: &Request) -> (u16, String) {
    let error = |status: u16, code: u32, text: &str| {
        (status, json!({"text": text, "code": code}).to_string())
    };
    if request.line != "POST /services/collector/event HTTP/1.1" {
        return error(404, 404, "The requested URL was not found on this server.");
    }
    if request.header("authorization") != "Splunk 11111111-2222-3333-4444-555555555555" {
        return error(403, 4, "Invalid token");
    }
    let events: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&request.body)
        .into_iter()
        .collect();
    let events = match events {
        Ok(events) if !events.is_empty() => events,
        Ok(_) => return error(400, 5, "No data"),
        Err(_) => return error(400, 6, "Invalid data format"),
    };
    if events
        .iter()
        .any(|it| it["event"].is_null() || it["event"]["http"]["request"]["method"] == "BAD")
    {
        return error(400, 6, "Invalid data format");
    }
    taken.lock().expect("the lock").extend(events);
    error(200, 0, "Success")
}

pub(crate) fn splunk_has_every_event_but_the_one_it_refuses() -> Result<()> {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let served = Arc::clone(&taken);
    let server = Server::start(move |request| collector(&served, request))?;
    let state = tempfile::tempdir()?;
    let token = state.path().join("token");
    std::fs::write(&token, "11111111-2222-3333-4444-555555555555")?;
    let text = format!(
        "[[log]]\nsink = 'splunk'\nurl = '{}'\nindex = 'waf'\ntoken_file = '{}'\n",
        server.url(),
        token.display()
    );
    let log = start(state.path(), &text)?;
    let mut ids = report(&log, 30);
    let mut bad = crate::sample::report();
    bad.method = "BAD".to_owned();
    log.report(bad);
    ids.extend(report(&log, 30));
    let counters = log.finish(PATIENCE);
    let taken = taken.lock().expect("the lock");
    let there: Vec<&str> = taken
        .iter()
        .filter_map(|it| it["event"]["event"]["id"].as_str())
        .collect();
    assert_eq!(there, ids);
    assert!(taken.iter().all(|it| it["index"] == "waf"
        && it["sourcetype"] == "clew:ecs"
        && it["time"] == "1790000000.123"));
    assert_eq!((counters.sinks[0].sent, counters.sinks[0].refused), (60, 1));
    Ok(())
}

pub(crate) fn webhooks_are_signed_and_have_lines_or_an_array() -> Result<()> {
    for body in ["lines", "array"] {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let served = Arc::clone(&taken);
        let server = Server::start(move |request| {
            let signed = [
                request.header("x-clew-timestamp").as_bytes(),
                b".",
                &request.body,
            ]
            .concat();
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"the-signing-key");
            let hex = request
                .header("x-clew-signature")
                .trim_start_matches("sha256=");
            let tag: Vec<u8> = hex
                .as_bytes()
                .chunks(2)
                .filter_map(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok())
                .collect();
            if ring::hmac::verify(&key, &signed, &tag).is_err()
                || request.header("authorization") != "Bearer the-token"
            {
                return (401, "{}".to_owned());
            }
            let events: Result<Vec<Value>, _> = match body {
                "array" => serde_json::from_slice(&request.body),
                _ => request
                    .body
                    .trim_ascii_end()
                    .split(|it| *it == b'\n')
                    .map(serde_json::from_slice)
                    .collect(),
            };
            match events {
                Ok(events) => {
                    served.lock().expect("the lock").extend(events);
                    (204, String::new())
                }
                Err(_) => (400, "{}".to_owned()),
            }
        })?;
        let state = tempfile::tempdir()?;
        let path = |name: &str| state.path().join(name);
        std::fs::write(path("token"), "the-token")?;
        std::fs::write(path("secret"), "the-signing-key")?;
        let text = format!(
            "[[log]]\nsink = 'webhook'\nformat = 'ocsf'\nbody = '{body}'\nurl = '{}/hook'\ntoken_file = '{}'\nsecret_file = '{}'\n",
            server.url(),
            path("token").display(),
            path("secret").display(),
        );
        let log = start(state.path(), &text)?;
        let ids = report(&log, 40);
        log.finish(PATIENCE);
        let taken = taken.lock().expect("the lock");
        let there: Vec<&str> = taken
            .iter()
            .filter_map(|it| it["metadata"]["uid"].as_str())
            .collect();
        assert_eq!(there, ids, "{body}");
    }
    Ok(())
}

/// A server of 127.0.0.1, over TLS, with the certificates of `directory`.
fn secure(directory: &std::path::Path) -> Result<(Server, Arc<AtomicUsize>)> {
    let path = |name: &str| directory.join(name);
    let certificate = CertificateDer::from_pem_file(path("cert.pem"))?;
    let key = PrivateKeyDer::from_pem_file(path("key.pem"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    let tls = builder.with_single_cert(vec![certificate], key)?;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let server = Server::start_at(
        "127.0.0.1:0".parse()?,
        Some(Arc::new(tls)),
        move |request| {
            let lines = request.body.iter().filter(|it| **it == b'\n').count();
            count.fetch_add(lines, Ordering::Relaxed);
            (200, "{}".to_owned())
        },
    )?;
    Ok((server, taken))
}

pub(crate) fn https_goes_to_who_has_a_certificate_of_the_authority() -> Result<()> {
    let (state, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    certificates(state.path())?;
    certificates(other.path())?;
    let (server, taken) = secure(state.path())?;
    let sink = |name: &str, authorities: &std::path::Path| {
        let ca = authorities.join("ca.pem");
        let (url, ca) = (
            server.url().replace("http:", "https:"),
            ca.display().to_string(),
        );
        format!("[[log]]\nsink = 'webhook'\nname = '{name}'\nurl = '{url}'\nauthorities = '{ca}'\n")
    };
    let text = sink("right", state.path()) + &sink("wrong", other.path());
    let log = start(state.path(), &text)?;
    report(&log, 100);
    wait_until("one has all", || log.counters().sinks[0].sent == 100)?;
    wait_until("the other is refused", || {
        log.counters().sinks[1].retried > 1
    })?;
    let counters = log.finish(Duration::from_millis(200));
    assert_eq!(
        (counters.sinks[1].sent, counters.sinks[1].waiting_events),
        (0, 100)
    );
    let error = counters.sinks[1].last_error.clone().unwrap_or_default();
    ensure!(error.contains("certificate"), "{error}");
    assert_eq!(taken.load(Ordering::Relaxed), 100);
    Ok(())
}
