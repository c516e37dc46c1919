//! The admin API: HTTP/1.1 with JSON, at `STATE/admin.sock` and, if told to, on TCP.
//!
//! One file for each thing that can be asked for, with its types and handlers; [`open_api_router`] names them all,
//! and from there the OpenAPI document has them: a route that is not in it does not exist. To add one: a handler
//! with `#[utoipa::path]`, a line in [`open_api_router`], and a case in the tests. What changes anything goes through [`Desk::audited`].
//!
//! [`serve`] is the sockets: who may connect, and what a connection may cost.

pub(crate) mod access;
pub(crate) mod bans;
pub(crate) mod client;
pub(crate) mod counters;
pub(crate) mod health;
pub(crate) mod incidents;
pub(crate) mod log;
pub(crate) mod problem;
pub(crate) mod rules;
pub(crate) mod serve;
pub(crate) mod status;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};

use axum::extract::DefaultBodyLimit;
use axum::{Json, Router};
use clew_bans::Keeper;
use clew_protocol::Moment;
use clew_proxy::Handle;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::audit::{Actor, Audit, Entry, now};
use crate::beat::{Latest, Pulse};
use crate::ears::Ears;
use crate::reload::Reloader;
use crate::spans::Spans;
use crate::store::Recent;
use problem::Problem;
use status::About;

/// Most bytes of a request's body.
const BODY_BYTES: usize = 16 * 1024;

/// What the API looks at, and acts on.
pub(crate) struct Desk {
    pub(crate) handle: Handle,
    pub(crate) bans: Keeper,
    pub(crate) latest: Latest,
    pub(crate) incidents: Recent,
    pub(crate) about: About,
    pub(crate) audit: Audit,
    pub(crate) reloader: Arc<Reloader>,
    /// None before it is started.
    pub(crate) log: Ears,
    /// None: no spans are made.
    pub(crate) spans: Option<Spans>,
    pub(crate) state: PathBuf,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) actor: Actor,
    /// `unix`, or an address and port.
    pub(crate) from: String,
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Clew admin API",
    description = "Steering and seeing one clew. Errors are a `Problem` with a status of 400 and above."
))]
struct Document;

fn open_api_router() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status::status))
        .routes(routes!(bans::list, bans::add, bans::remove))
        .routes(routes!(counters::counters))
        .routes(routes!(incidents::list))
        .routes(routes!(incidents::show))
        .routes(routes!(log::log))
        .routes(routes!(rules::hits))
        .routes(routes!(rules::packs))
        .routes(routes!(rules::reload))
        .routes(routes!(
            rules::shadow,
            rules::start_shadow,
            rules::end_shadow
        ))
        .routes(routes!(document))
        .merge(health::routes())
}

/// This document
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
async fn document() -> Json<&'static serde_json::Value> {
    static DOCUMENT: OnceLock<serde_json::Value> = OnceLock::new();
    let document = || serde_json::to_value(open_api_router().to_openapi()).unwrap_or_default();
    Json(DOCUMENT.get_or_init(document))
}

/// Every route there is.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    let (router, _) = open_api_router().split_for_parts();
    router
        .fallback(|| async { Problem::not_found("no such route; see /openapi.json") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(desk)
}

/// What anybody may see who can connect: metrics and health.
pub(crate) fn observing_router(desk: Arc<Desk>) -> Router {
    let (router, _) = health::routes().split_for_parts();
    router
        .fallback(|| async {
            Problem::not_found("no such route; there are /metrics, /live, /ready")
        })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(desk)
}

impl Desk {
    /// The last beat of the correlator's thread; none before the first, nor without a sensor.
    pub(crate) fn pulse(&self) -> Option<Pulse> {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn uptime(&self) -> std::time::Duration {
        Moment::now().since(self.about.started)
    }

    /// Makes a change and writes down who wanted it and what became of it, where nobody waits for a disk.
    pub(crate) async fn audited<T: Send + 'static>(
        self: Arc<Self>,
        caller: Caller,
        mut wish: Wish,
        change: impl FnOnce(&Self, &mut Details) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let changed = tokio::task::spawn_blocking(move || {
            if self.audit.refuses(&wish.entry(&caller, "asked for")) {
                return Err(Problem::unavailable(
                    "the audit log cannot be written, and fail.audit is closed: nothing is changed",
                ));
            }
            let outcome = change(&self, &mut wish.details);
            let result = match &outcome {
                Ok(_) => "done",
                Err(problem) => &problem.error,
            };
            self.audit.write(&wish.entry(&caller, result));
            outcome
        });
        changed.await.unwrap_or_else(|_| Err(Problem::broken()))
    }
}

/// What is written down of a change beside what was asked for.
pub(crate) type Details = serde_json::Map<String, serde_json::Value>;

/// What somebody wants changed.
pub(crate) struct Wish {
    pub(crate) action: &'static str,
    pub(crate) target: String,
    pub(crate) details: Details,
}

impl Wish {
    fn entry(&self, caller: &Caller, result: &str) -> Entry {
        // What is written down of a wish that makes no sense is bounded.
        let target = self.target.chars().take(128).collect();
        Entry {
            timestamp: now(),
            actor: caller.actor.clone(),
            from: caller.from.clone(),
            action: self.action.to_owned(),
            target,
            details: self.details.clone(),
            result: result.to_owned(),
        }
    }
}
