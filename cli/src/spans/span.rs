//! A request as a span: names of OpenTelemetry's semantic conventions for HTTP servers, and Clew's own under `clew.`.

use std::time::SystemTime;

use clew_proxy::{Access, Span};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// Bytes of a client's text in a span.
const TEXT_BYTES: usize = 2048;
/// What conventions call a method (RFC 9110 §9.3, RFC 5789); what is none of these could be anything.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];

/// Who sends spans.
pub(super) fn resource(service_name: &str) -> Resource {
    let host = rustix::system::uname();
    Resource::builder_empty()
        .with_service_name(service_name.to_owned())
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", host.nodename().to_string_lossy().into_owned()),
        ])
        .build()
}

/// The query is left out: secrets are in it, and attacks. The block log has it, masked.
pub(super) fn span_data(access: &Access<'_>, span: Span) -> SpanData {
    let known = METHODS.iter().find(|it| **it == access.method);
    let ended = SystemTime::UNIX_EPOCH + access.at;
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(span.trace_id),
            SpanId::from(span.id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: span.parent_id.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: span.parent_id.is_some(),
        span_kind: SpanKind::Server,
        name: known.copied().unwrap_or("HTTP").into(),
        start_time: ended.checked_sub(access.took).unwrap_or(ended),
        end_time: ended,
        attributes: attributes(access, known.copied()),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match access.status {
            Some(500..) | None => Status::error(""),
            Some(_) => Status::Unset,
        },
        instrumentation_scope: InstrumentationScope::builder("clew")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn attributes(access: &Access<'_>, method: Option<&'static str>) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(20);
    let mut put = |name: &'static str, value: Value| all.push(KeyValue::new(name, value));
    put("http.request.method", method.unwrap_or("_OTHER").into());
    if method.is_none() {
        put(
            "http.request.method_original",
            text(access.method.as_bytes()),
        );
    }
    let path = access.target.split(|it| *it == b'?').next();
    put("url.path", text(path.unwrap_or_default()));
    put(
        "url.scheme",
        if access.is_secure { "https" } else { "http" }.into(),
    );
    put("network.protocol.version", text(access.version.as_bytes()));
    put("network.peer.address", access.peer.ip().to_string().into());
    put("network.peer.port", i64::from(access.peer.port()).into());
    put("client.address", access.client.to_string().into());
    put("server.address", text(host(access.authority)));
    if let Some(agent) = access.user_agent {
        put("user_agent.original", text(agent));
    }
    if let Some(status) = access.status {
        put("http.response.status_code", i64::from(status).into());
    }
    put(
        "http.response.body.size",
        i64::try_from(access.body_bytes).unwrap_or(i64::MAX).into(),
    );
    put("clew.request.id", access.id.to_string().into());
    if let Some(service) = access.service {
        put("clew.service", service.to_owned().into());
    }
    if let Some(upstream) = access.upstream {
        put("clew.upstream.address", upstream.to_string().into());
    }
    if let Some(outcome) = access.outcome {
        put("clew.outcome", outcome.name().into());
    }
    if let Some(incident) = access.incident {
        put("clew.incident.id", incident.to_string().into());
    }
    all
}

/// Without the port.
pub(super) fn host(authority: &[u8]) -> &[u8] {
    let digits = authority.iter().rev().take_while(|it| it.is_ascii_digit());
    let rest = &authority[..authority.len() - digits.count()];
    rest.strip_suffix(b":").unwrap_or(authority)
}

fn text(bytes: &[u8]) -> Value {
    let cut = &bytes[..bytes.len().min(TEXT_BYTES)];
    String::from_utf8_lossy(cut).into_owned().into()
}
