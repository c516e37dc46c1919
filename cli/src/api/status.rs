//! `GET /v1/status`: what runs here, and how it is.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use clew_protocol::Moment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Desk;
use super::rules::PackInForce;

/// A beat of the sensor's thread comes each second; after so long without one it is not well.
const BEAT_OVERDUE: Duration = Duration::from_secs(5);

/// What does not change while Clew runs.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) started: Moment,
    /// None without a sensor.
    pub(crate) mode: Option<String>,
    pub(crate) services: Vec<ServiceStatus>,
    /// What the kernel has no provider for.
    pub(crate) missing: Vec<String>,
    pub(crate) dry_run: bool,
}

/// What runs, and how it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    /// Of Clew.
    pub(crate) version: String,
    /// Since the edge was bound.
    pub(crate) uptime_seconds: f64,
    /// What happens to what is not allowed: `enforce`, `observe` or `learn`; null without a sensor.
    pub(crate) mode: Option<String>,
    /// Where clients connect.
    pub(crate) listeners: Vec<String>,
    /// All of them take connections.
    pub(crate) accepting: bool,
    pub(crate) services: Vec<ServiceStatus>,
    /// Rules that requests are judged by; null where they are not.
    pub(crate) rules: Option<usize>,
    /// The rule packs in force, in order.
    pub(crate) packs: Vec<PackInForce>,
    /// Null where Clew runs without one.
    pub(crate) sensor: Option<SensorStatus>,
    pub(crate) bans: BansStatus,
    /// Upstream attempts in flight; zero without a sensor.
    pub(crate) in_flight: usize,
}

/// Where requests go.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ServiceStatus {
    pub(crate) name: String,
    /// Empty: what no other service's hosts name.
    pub(crate) hosts: Vec<String>,
    pub(crate) upstreams: Vec<String>,
}

/// The kernel side.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct SensorStatus {
    /// Its thread tends it.
    pub(crate) healthy: bool,
    /// Since the thread has last said so; null before the first time.
    pub(crate) beat_age_seconds: Option<f64>,
    /// What this kernel has nothing for, in words.
    pub(crate) missing: Vec<String>,
}

/// Bans in all.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct BansStatus {
    /// Those of dry runs included.
    pub(crate) in_force: usize,
    /// Sources whose bans are not yet on disk as they are.
    pub(crate) pending: usize,
    /// Why nothing can be written; null when all is well.
    pub(crate) trouble: Option<String>,
    /// Bans refuse nobody.
    pub(crate) dry_run: bool,
}

/// What runs here, and how it is
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(crate) async fn status(State(desk): State<Arc<Desk>>) -> Json<Status> {
    Json(desk.status())
}

impl Desk {
    pub(crate) fn status(&self) -> Status {
        let addresses = self.handle.addresses().iter();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.uptime().as_secs_f64(),
            mode: self.about.mode.clone(),
            listeners: addresses.map(ToString::to_string).collect(),
            accepting: self.handle.is_accepting(),
            services: self.about.services.clone(),
            rules: self.rules(),
            packs: self.packs().into_iter().map(Into::into).collect(),
            sensor: self.about.mode.is_some().then(|| self.sensor()),
            bans: BansStatus {
                in_force: self.bans.len(),
                pending: self.bans.pending(),
                trouble: self.bans.trouble(),
                dry_run: self.about.dry_run,
            },
            in_flight: self.handle.in_flight(),
        }
    }

    /// How the sensor is, where there is one.
    pub(crate) fn sensor(&self) -> SensorStatus {
        let age = self.pulse().map(|it| Moment::now().since(it.at));
        SensorStatus {
            healthy: age.is_some_and(|age| age < BEAT_OVERDUE),
            beat_age_seconds: age.map(|it| it.as_secs_f64()),
            missing: self.about.missing.clone(),
        }
    }
}
