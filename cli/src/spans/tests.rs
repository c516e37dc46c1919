//! Spans, as a collector gets them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::slice::Iter;
use std::sync::mpsc::{Receiver, Sender, channel};

use clew_protocol::RequestId;
use clew_protocol::report::Outcome;
use clew_proxy::Span;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// What a collector was sent: the head, in lower case, and the body.
type Sent = (String, ExportTraceServiceRequest);

/// Takes what is OTLP over HTTP, and refuses what is not. It answers with `refusals` first.
fn collector(refusals: &'static [&'static str]) -> Result<(String, Receiver<Sent>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("http://{}/v1/traces", listener.local_addr()?);
    let (tell, sent) = channel();
    std::thread::spawn(move || {
        let mut refusals = refusals.iter();
        for stream in listener.incoming().flatten() {
            let _ = serve(stream, &tell, &mut refusals);
        }
    });
    Ok((url, sent))
}

fn serve(mut stream: TcpStream, tell: &Sender<Sent>, refusals: &mut Iter<'_, &str>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|it| it.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap_or_default().parse()?];
        reader.read_exact(&mut body)?;
        let is_right = head.starts_with("post /v1/traces http/1.1")
            && head.contains("content-type: application/x-protobuf");
        let request = ExportTraceServiceRequest::decode(&body[..]).ok();
        let status = match (request.filter(|_| is_right), refusals.next()) {
            (None, _) => "400 Bad Request",
            (Some(_), Some(refusal)) => refusal,
            (Some(request), None) => {
                tell.send((head, request))?;
                "200 OK"
            }
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(answer.as_bytes())?;
    }
}

fn spans(url: &str, more: &str) -> Result<Spans> {
    let table = toml::from_str(&format!("url = \"{url}\"\n{more}"))?;
    let spans = Spans::open(&SpansConfig::check(&table)?)?;
    spans.start();
    Ok(spans)
}

fn span(parent_id: Option<u64>) -> Span {
    Span {
        trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        id: 0xb7ad_6b71_6920_3331,
        parent_id,
        is_sampled: true,
    }
}

fn access(span: Span) -> Access<'static> {
    Access {
        at: Duration::from_secs(1_700_000_000),
        took: Duration::from_millis(1500),
        id: RequestId::fresh(),
        span: Some(span),
        peer: "192.0.2.1:40000".parse().expect("an address"),
        is_secure: true,
        client: "203.0.113.7".parse().expect("an address"),
        method: "GET",
        target: b"/a?token=secret",
        version: "1.1",
        authority: b"shop:8443",
        referrer: None,
        user_agent: Some(b"me"),
        status: Some(403),
        outcome: Some(Outcome::Cancelled),
        incident: None,
        body_bytes: 7,
        service: Some("shop"),
        upstream: None,
    }
}

fn texts(all: &[KeyValue]) -> HashMap<&str, String> {
    let text = |it: &Option<AnyValue>| match it.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    all.iter()
        .map(|it| (it.key.as_str(), text(&it.value)))
        .collect()
}

#[test]
fn a_collector_gets_a_request_whole() -> Result<()> {
    let (url, sent) = collector(&[])?;
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token");
    std::fs::write(&token, "S3cret\n")?;
    let spans = spans(
        &url,
        &format!("token_file = {token:?}\nservice_name = \"edge\""),
    )?;
    let told = access(span(Some(5)));
    spans.tell(&told);
    let (head, request) = sent.recv_timeout(PATIENCE)?;
    assert!(head.contains("authorization: bearer s3cret"), "{head}");
    let [group] = &request.resource_spans[..] else {
        anyhow::bail!("{request:?}");
    };
    let resource = group.resource.as_ref().map(|it| texts(&it.attributes));
    assert_eq!(resource.unwrap_or_default()["service.name"], "edge");
    let [got] = &group.scope_spans[0].spans[..] else {
        anyhow::bail!("{request:?}");
    };
    assert_eq!(
        got.trace_id,
        0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes()
    );
    assert_eq!(got.span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(got.parent_span_id, 5_u64.to_be_bytes());
    assert_eq!(
        (got.name.as_str(), got.kind),
        ("GET", SpanKind::Server as i32)
    );
    assert_eq!(got.end_time_unix_nano, 1_700_000_000_000_000_000);
    assert_eq!(
        got.end_time_unix_nano - got.start_time_unix_nano,
        1_500_000_000
    );
    let attributes = texts(&got.attributes);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/a"),
        ("url.scheme", "https"),
        ("client.address", "203.0.113.7"),
        ("network.peer.address", "192.0.2.1"),
        ("server.address", "shop"),
        ("http.response.status_code", "403"),
        ("clew.outcome", "cancelled"),
        ("clew.request.id", &told.id.to_string()),
    ] {
        assert_eq!(attributes[name], value, "{name}");
    }
    assert!(!format!("{request:?}").contains("secret"));
    Ok(())
}

#[test]
fn a_batch_is_sent_again_unless_it_is_refused_for_good() -> Result<()> {
    let (url, sent) = collector(&["503 Service Unavailable", "400 Bad Request"])?;
    let spans = spans(&url, "")?;
    spans.tell(&access(span(None)));
    let deadline = std::time::Instant::now() + PATIENCE;
    while spans.counters().failed < 1 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((spans.counters().failed, spans.counters().exported), (1, 0));
    let failed = Access {
        method: "FROB",
        status: Some(502),
        ..access(span(None))
    };
    spans.tell(&failed);
    // What waits is sent before the end.
    spans.finish(PATIENCE);
    let (_, request) = sent.recv_timeout(PATIENCE)?;
    let got = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((got.name.as_str(), got.parent_span_id.len()), ("HTTP", 0));
    let status = got.status.as_ref().map(|it| it.code);
    assert_eq!(status, Some(StatusCode::Error as i32));
    assert_eq!(
        texts(&got.attributes)["http.request.method_original"],
        "FROB"
    );
    assert_eq!((spans.counters().failed, spans.counters().exported), (1, 1));
    Ok(())
}

#[test]
fn what_is_not_recorded_is_not_sent_and_what_is_too_much_is_dropped() -> Result<()> {
    // Nobody listens there: each batch fails, after those before it.
    let spans = spans("http://127.0.0.1:1/v1/traces", "")?;
    let unsampled = Span {
        is_sampled: false,
        ..span(None)
    };
    spans.tell(&access(unsampled));
    assert_eq!(spans.0.tally.told.load(Ordering::Relaxed), 0);
    let tally = &spans.0.tally;
    tally.told.store(WAITING as u64, Ordering::Relaxed);
    spans.tell(&access(span(None)));
    assert_eq!(spans.counters().dropped, 1);
    Ok(())
}

#[test]
fn hosts_are_without_their_ports() {
    for (authority, host) in [
        ("shop:80", "shop"),
        ("shop", "shop"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]:443", "[::1]"),
        ("[::1]", "[::1]"),
        ("", ""),
        ("80", "80"),
    ] {
        assert_eq!(
            span::host(authority.as_bytes()),
            host.as_bytes(),
            "{authority}"
        );
    }
}
