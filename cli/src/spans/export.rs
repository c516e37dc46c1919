//! To the collector, and what became of it.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Request, Response};
use clew_outbound::Secret;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

use super::{SpansConfig, Tally};

/// Most bytes of an answer that are read.
const ANSWER_BYTES: u64 = 64 << 10;

/// OpenTelemetry's exporter, whose successes and failures are counted.
#[derive(Debug)]
pub(super) struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    tally: Arc<Tally>,
    has_failed: AtomicBool,
}

impl Exporter {
    pub(super) fn open(config: &SpansConfig, tally: Arc<Tally>) -> Result<Self> {
        let authorities = config.authorities.as_deref();
        let agent = clew_outbound::client(&config.url, authorities, config.timeout)?;
        let token = config.token.as_ref().map(Secret::read).transpose()?;
        let inner = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Collector { agent, token })
            .with_endpoint(&config.url)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(config.timeout)
            .build()
            .context("spans cannot be sent")?;
        Ok(Self {
            inner,
            tally,
            has_failed: AtomicBool::new(false),
        })
    }

    fn count(&self, spans: usize, result: &OTelSdkResult) {
        let add = |sum: &AtomicU64| sum.fetch_add(spans as u64, Ordering::Relaxed);
        let failed = result.is_err();
        add(match failed {
            true => &self.tally.failed,
            false => &self.tally.exported,
        });
        // Once, not each second.
        let had_failed = self.has_failed.swap(failed, Ordering::Relaxed);
        match result {
            Err(error) if !had_failed => {
                tracing::warn!(%error, "the collector does not take spans; they are lost meanwhile");
            }
            Ok(()) if had_failed => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.inner.export(batch).await;
        self.count(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Blocks: whoever exports has a thread of its own.
struct Collector {
    agent: ureq::Agent,
    token: Option<Secret>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        if let Some(token) = &self.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))?;
            value.set_sensitive(true);
            head.headers.insert(AUTHORIZATION, value);
        }
        let response = self.agent.run(Request::from_parts(head, &body[..]))?;
        let (head, body) = response.into_parts();
        let mut answer = Vec::new();
        body.into_reader()
            .take(ANSWER_BYTES)
            .read_to_end(&mut answer)?;
        Ok(Response::from_parts(head, answer.into()))
    }
}
