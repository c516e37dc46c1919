//! `GET /v1/counters`: sums since start.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Desk;

/// Sums by name.
pub(crate) type Sums = BTreeMap<String, u64>;

/// Sums since start.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct CounterSums {
    /// The edge's.
    pub(crate) edge: Sums,
    /// What became of requests.
    pub(crate) requests: Vec<RequestSum>,
    /// Of `sensor` and `correlator`; null without a sensor, and in the first second.
    pub(crate) kernel: Option<BTreeMap<String, Sums>>,
}

/// How many requests ended so.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RequestSum {
    /// `served`, `denied`, `banned`, `limited`, `malformed`, `cancelled`, `failed`, `abandoned`.
    pub(crate) outcome: String,
    /// Class of the status that the client got: `2xx` and the like, or `none`.
    pub(crate) status: String,
    pub(crate) count: u64,
}

/// Sums since start
#[utoipa::path(get, path = "/v1/counters", responses((status = 200, body = CounterSums)))]
pub(crate) async fn counters(State(desk): State<Arc<Desk>>) -> Json<CounterSums> {
    Json(desk.counters())
}

impl Desk {
    pub(crate) fn counters(&self) -> CounterSums {
        let edge = self.handle.counters();
        let endings = self.handle.endings();
        let requests = endings
            .requests()
            .map(|(outcome, status, count)| RequestSum {
                outcome: outcome.to_owned(),
                status: status.to_owned(),
                count,
            });
        CounterSums {
            edge: edge.each().map(|it| (it.0.to_owned(), it.2)).collect(),
            requests: requests.collect(),
            kernel: self.pulse().and_then(|it| {
                // All of them are numbers.
                serde_json::from_value(serde_json::to_value(it.sums).ok()?).ok()
            }),
        }
    }
}
