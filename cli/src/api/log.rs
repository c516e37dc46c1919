//! `GET /v1/log`: the block log, sink by sink.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clew_blocklog::{Counters, SinkCounters};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Desk;

/// The block log, since start.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct LogSums {
    /// Events that were made.
    pub(crate) events: u64,
    /// What was handed over and found no room.
    pub(crate) refused: u64,
    /// Bytes handed over that are not events yet, about.
    pub(crate) queue_bytes: u64,
    /// Null where there is no network sink.
    pub(crate) spool: Option<SpoolSums>,
    /// As configured; empty where there are none.
    pub(crate) sinks: Vec<SinkSums>,
}

/// What waits on disk for network sinks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SpoolSums {
    /// Events ever written to it.
    pub(crate) written: u64,
    /// Of these, how many a loss of power would have left.
    pub(crate) durable: u64,
    /// On disk.
    pub(crate) bytes: u64,
    /// Events that could not be written.
    pub(crate) dropped: u64,
}

/// One sink.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SinkSums {
    pub(crate) name: String,
    /// Events it has.
    pub(crate) sent: u64,
    /// Events that the receiver will never take.
    pub(crate) refused: u64,
    /// Attempts made again.
    pub(crate) retried: u64,
    /// Events given up.
    pub(crate) dropped: u64,
    pub(crate) waiting_events: u64,
    pub(crate) waiting_bytes: u64,
    /// What went wrong last; null when nothing did.
    pub(crate) last_error: Option<String>,
}

/// The block log, sink by sink
#[utoipa::path(get, path = "/v1/log", responses((status = 200, body = LogSums)))]
pub(crate) async fn log(State(desk): State<Arc<Desk>>) -> Json<LogSums> {
    let counters = desk.log.log_counters();
    Json(counters.map(LogSums::from).unwrap_or_default())
}

impl From<Counters> for LogSums {
    fn from(counters: Counters) -> Self {
        Self {
            events: counters.events,
            refused: counters.refused,
            queue_bytes: counters.queue_bytes,
            spool: counters.spool.map(|it| SpoolSums {
                written: it.written,
                durable: it.durable,
                bytes: it.bytes,
                dropped: it.dropped,
            }),
            sinks: counters.sinks.into_iter().map(SinkSums::from).collect(),
        }
    }
}

impl From<SinkCounters> for SinkSums {
    fn from(sink: SinkCounters) -> Self {
        Self {
            name: sink.name,
            sent: sink.sent,
            refused: sink.refused,
            retried: sink.retried,
            dropped: sink.dropped,
            waiting_events: sink.waiting_events,
            waiting_bytes: sink.waiting_bytes,
            last_error: sink.last_error,
        }
    }
}
