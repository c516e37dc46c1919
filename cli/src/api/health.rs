//! `/metrics`, `/live`, `/ready`: what others watch.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Desk;
use super::problem::Problem;
use crate::metrics::{OPEN_METRICS, Snapshot, TEXT};

/// Whether Clew is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Health {
    /// All of the checks.
    pub(crate) ok: bool,
    pub(crate) checks: Vec<Check>,
}

/// One thing that has to be well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Check {
    /// `process`, `listeners`, `rules`, `sensor`.
    pub(crate) name: String,
    pub(crate) ok: bool,
    /// Why, or why not.
    pub(crate) reason: String,
}

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(live))
        .routes(routes!(ready))
}

/// Metrics
///
/// As Prometheus' text format, or as OpenMetrics for whoever accepts that.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, content_type = "text/plain", body = String),
    (status = 500, body = Problem),
))]
async fn metrics(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    let accepted = headers.get(ACCEPT).and_then(|it| it.to_str().ok());
    let open_metrics = accepted.is_some_and(|it| it.contains("application/openmetrics-text"));
    let text = Snapshot::take(&desk).text(open_metrics);
    let text = text.map_err(|_| Problem::broken())?;
    let kind = if open_metrics { OPEN_METRICS } else { TEXT };
    Ok(([(CONTENT_TYPE, kind)], text))
}

/// Whether the process works
///
/// Who answers at all does; the edge may still have come to an end.
#[utoipa::path(get, path = "/live", responses((status = 200, body = Health)))]
async fn live() -> Json<Health> {
    let check = Check::of("process", true, "this was answered");
    Json(Health::of(vec![check]))
}

/// Whether requests are served, and protected
#[utoipa::path(get, path = "/ready", responses(
    (status = 200, body = Health),
    (status = 503, body = Health),
))]
async fn ready(State(desk): State<Arc<Desk>>) -> (StatusCode, Json<Health>) {
    let health = desk.health();
    let status = match health.ok {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

impl Desk {
    fn health(&self) -> Health {
        let listeners = match self.handle.is_accepting() {
            true => Check::of("listeners", true, "all take connections"),
            false => Check::of("listeners", false, "not yet, or not any more"),
        };
        let rules = match self.rules() {
            Some(rules) => Check::of("rules", true, format!("{rules} in force")),
            None => Check::of("rules", true, "none are configured"),
        };
        let sensor = match self.about.mode.is_some() {
            false => Check::of("sensor", true, "Clew is to run without"),
            true => self.sensor_check(),
        };
        Health::of(vec![listeners, rules, sensor])
    }

    fn sensor_check(&self) -> Check {
        let sensor = self.sensor();
        match (sensor.healthy, sensor.beat_age_seconds) {
            (true, _) => Check::of("sensor", true, "it is tended"),
            (false, Some(age)) => {
                Check::of("sensor", false, format!("not tended for {age:.0} seconds"))
            }
            (false, None) => Check::of("sensor", false, "not tended yet"),
        }
    }
}

impl Health {
    fn of(checks: Vec<Check>) -> Self {
        Self {
            ok: checks.iter().all(|it| it.ok),
            checks,
        }
    }
}

impl Check {
    fn of(name: &str, ok: bool, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            ok,
            reason: reason.into(),
        }
    }
}
