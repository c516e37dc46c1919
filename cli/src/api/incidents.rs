//! `/v1/incidents`: what happened.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use clew_protocol::IncidentId;
use clew_protocol::incident::Incident;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use super::Desk;
use super::problem::Problem;
use crate::store::{self, RECENT};

/// Who looks through the files one after the other: they are long.
static SEARCH: Semaphore = Semaphore::const_new(1);

/// The latest incidents.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct IncidentList {
    /// The latest first, each in its last revision.
    pub(crate) incidents: Vec<Arc<Incident>>,
}

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// At most so many, 1 to 256; default 32.
    limit: Option<usize>,
}

/// The latest incidents
#[utoipa::path(get, path = "/v1/incidents", params(ListQuery), responses(
    (status = 200, body = IncidentList),
    (status = 400, body = Problem),
))]
pub(crate) async fn list(
    State(desk): State<Arc<Desk>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<IncidentList>, Problem> {
    let limit = query?.limit.unwrap_or(32).clamp(1, RECENT);
    let incidents = desk.incidents.list(limit);
    Ok(Json(IncidentList { incidents }))
}

/// One incident
///
/// Of all that are kept: the latest are at hand, others are looked for.
#[utoipa::path(get, path = "/v1/incidents/{id}",
    params(("id" = String, Path, description = "Its whole id (a UUID)")),
    responses(
        (status = 200, body = Incident),
        (status = 400, body = Problem),
        (status = 404, body = Problem),
    )
)]
pub(crate) async fn show(
    State(desk): State<Arc<Desk>>,
    axum::extract::Path(id): axum::extract::Path<String>,
) -> Result<Json<Arc<Incident>>, Problem> {
    let id: IncidentId = serde_json::from_value(id.into())
        .map_err(|_| Problem::bad("an incident's id is a UUID; see /v1/incidents"))?;
    if let Some(incident) = desk.incidents.find(id) {
        return Ok(Json(incident));
    }
    let _turn = SEARCH.acquire().await.map_err(|_| Problem::broken())?;
    let found = tokio::task::spawn_blocking(move || store::find(&desk.state, id)).await;
    match found {
        Ok(Ok(Some(incident))) => Ok(Json(Arc::new(incident))),
        Ok(Ok(None)) => Err(Problem::not_found("no such incident; see /v1/incidents")),
        Ok(Err(_)) | Err(_) => Err(Problem::broken()),
    }
}
