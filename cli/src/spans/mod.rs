//! Spans of requests, sent to an OpenTelemetry collector: OTLP over HTTP, by OpenTelemetry's own library.

mod config;
mod export;
mod span;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Result;
use clew_proxy::{Access, Accesses};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanExporter, SpanProcessor,
};

pub(crate) use self::config::{SpansConfig, Table};
use self::export::Exporter;
use self::span::{resource, span_data};

/// Spans that may wait for the collector; more are dropped, and counted.
const WAITING: usize = 8192;
/// Spans sent at once.
const BATCH: usize = 512;
/// Longest wait of a span for others to be sent with.
const PAUSE: Duration = Duration::from_secs(1);

/// They are there before the thread that sends them: the edge is bound first.
#[derive(Clone)]
pub(crate) struct Spans(Arc<Inner>);

struct Inner {
    /// Until the thread has it.
    exporter: Mutex<Option<Exporter>>,
    processor: OnceLock<BatchSpanProcessor>,
    tally: Arc<Tally>,
}

/// What has become of spans, since start.
#[derive(Debug, Default)]
struct Tally {
    told: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SpanCounters {
    /// The collector has them.
    pub(crate) exported: u64,
    /// It could not be reached, or did not take them.
    pub(crate) failed: u64,
    /// Too many waited already.
    pub(crate) dropped: u64,
}

impl Tally {
    fn counters(&self) -> SpanCounters {
        let of = |it: &AtomicU64| it.load(Ordering::Relaxed);
        SpanCounters {
            exported: of(&self.exported),
            failed: of(&self.failed),
            dropped: of(&self.dropped),
        }
    }
}

impl Spans {
    /// Reads the token and the authorities. Nothing is sent before [`Spans::start`].
    pub(crate) fn open(config: &SpansConfig) -> Result<Self> {
        let tally = Arc::new(Tally::default());
        let mut exporter = Exporter::open(config, tally.clone())?;
        exporter.set_resource(&resource(&config.service_name));
        Ok(Self(Arc::new(Inner {
            exporter: Mutex::new(Some(exporter)),
            processor: OnceLock::new(),
            tally,
        })))
    }

    /// Who is to be told of requests.
    pub(crate) fn accesses(&self) -> Accesses {
        let spans = self.clone();
        Accesses::new(move |access| spans.tell(access))
    }

    /// Sends, on a thread of its own.
    pub(crate) fn start(&self) {
        let exporter = self.0.exporter.lock();
        let Some(exporter) = exporter.unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(WAITING)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(PAUSE)
            .build();
        let _ = self
            .0
            .processor
            .set(BatchSpanProcessor::new(exporter, config));
    }

    /// Sends what waits, for so long at most.
    pub(crate) fn finish(&self, patience: Duration) {
        if let Some(processor) = self.0.processor.get()
            && let Err(error) = processor.shutdown_with_timeout(patience)
        {
            tracing::warn!(%error, "spans that waited are lost");
        }
    }

    pub(crate) fn counters(&self) -> SpanCounters {
        self.0.tally.counters()
    }

    fn tell(&self, access: &Access<'_>) {
        let (Some(processor), Some(span)) = (self.0.processor.get(), access.span) else {
            return;
        };
        if !span.is_sampled {
            return;
        }
        let tally = &self.0.tally;
        let done = tally.counters();
        let done = done.exported + done.failed;
        if tally.told.load(Ordering::Relaxed).saturating_sub(done) >= WAITING as u64 {
            tally.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        tally.told.fetch_add(1, Ordering::Relaxed);
        processor.on_end(span_data(access, span));
    }
}

#[cfg(test)]
mod tests;
