//! `/v1/reload`, `/v1/packs`, `/v1/shadow`: what requests are judged by, and what would be otherwise with a candidate.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use clew_packs::PackName;
use clew_protocol::report::PackVersion;
use clew_proxy::{ShadowExample, ShadowReport};
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use utoipa::ToSchema;

use super::problem::Problem;
use super::{Caller, Desk, Wish};
use crate::reload::Reloaded;

/// A pack, by name and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PackInForce {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl From<PackVersion> for PackInForce {
    fn from(pack: PackVersion) -> Self {
        Self {
            name: pack.name,
            version: pack.version,
        }
    }
}

/// What requests are judged by.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RulesInForce {
    /// Rules in all; null when requests are not judged by rules.
    pub(crate) rules: Option<usize>,
    /// The packs in force, in order.
    pub(crate) packs: Vec<PackInForce>,
}

/// What came of reading the configuration anew.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ReloadDone {
    /// Rules in all; null when requests are not judged by rules.
    pub(crate) rules: Option<usize>,
    /// The packs in force, in order.
    pub(crate) packs: Vec<PackInForce>,
    /// What is suspicious about the rules.
    pub(crate) warnings: Vec<String>,
    /// Tables of the configuration that have changed since the start, and take a restart.
    pub(crate) restart: Vec<String>,
    pub(crate) took_ms: f64,
}

/// Rules that are told of.
const HOTTEST: usize = 20;

/// How often a rule has matched.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RuleHits {
    pub(crate) id: u64,
    /// Requests that it has matched.
    pub(crate) matches: u64,
    /// Of these, those that were stopped for it.
    pub(crate) stops: u64,
    /// What it says of itself, of the first match.
    pub(crate) message: String,
}

/// A pack that is to be tried.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShadowWish {
    /// Its name.
    pub(crate) name: String,
    /// Its version; without it the highest that is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

/// What a candidate would have changed so far.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShadowFindings {
    /// All packs that would be in force.
    pub(crate) packs: Vec<PackInForce>,
    /// Requests that the candidate has judged.
    pub(crate) judged: u64,
    /// Requests that were passed over, because it was not done with others.
    pub(crate) skipped: u64,
    /// Requests that both refuse.
    pub(crate) both_block: u64,
    /// Requests that it refuses alone.
    pub(crate) new_blocks: u64,
    /// Requests that the rules in force refuse alone.
    pub(crate) lost_blocks: u64,
    /// Requests of which the rules in force had not let all be read.
    pub(crate) undecided: u64,
    /// Processor time for each of these requests, microseconds: of the rules in force.
    pub(crate) active_us: f64,
    /// The same of the candidate.
    pub(crate) candidate_us: f64,
    /// The most the candidate took for one, microseconds.
    pub(crate) longest_us: f64,
    /// How often each rule has matched in one of the two alone, by id.
    pub(crate) rules: BTreeMap<String, RuleDifference>,
    /// The first of the new and of the lost blocks, at most 20 of each.
    pub(crate) examples: Vec<ShadowRequest>,
}

/// How often a rule has matched in one of the two alone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct RuleDifference {
    pub(crate) candidate: u64,
    pub(crate) active: u64,
}

/// A request that would be treated otherwise.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShadowRequest {
    /// `new`: the candidate alone refuses it; `lost`: the rules in force alone do.
    pub(crate) block: String,
    /// The request's id.
    pub(crate) id: String,
    pub(crate) method: String,
    /// At most 256 bytes.
    pub(crate) target: String,
    /// Ids of the rules that have matched in one of the two alone; at most 16.
    pub(crate) rules: Vec<u64>,
}

/// Whether there was something to end.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShadowEnded {
    pub(crate) changed: bool,
}

/// What requests are judged by
#[utoipa::path(get, path = "/v1/packs", responses((status = 200, body = RulesInForce)))]
pub(crate) async fn packs(State(desk): State<Arc<Desk>>) -> Json<RulesInForce> {
    Json(RulesInForce {
        rules: desk.rules(),
        packs: desk.packs().into_iter().map(Into::into).collect(),
    })
}

/// The rules that have matched most, since start
#[utoipa::path(get, path = "/v1/rules/hits", responses((status = 200, body = Vec<RuleHits>)))]
pub(crate) async fn hits(State(desk): State<Arc<Desk>>) -> Json<Vec<RuleHits>> {
    let hottest = desk.log.hottest(HOTTEST).into_iter();
    let hits = hottest.map(|(id, hits)| RuleHits {
        id,
        matches: hits.matches,
        stops: hits.stops,
        message: hits.message,
    });
    Json(hits.collect())
}

/// Read the configuration anew: rules, packs, limits, policy, certificates
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, body = ReloadDone),
    (status = 409, description = "It cannot be used; nothing has changed", body = Problem),
))]
pub(crate) async fn reload(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ReloadDone>, Problem> {
    desk.reload(caller).await.map(Json)
}

/// What a candidate would have changed
#[utoipa::path(get, path = "/v1/shadow", responses(
    (status = 200, body = ShadowFindings),
    (status = 404, body = Problem),
))]
pub(crate) async fn shadow(State(desk): State<Arc<Desk>>) -> Result<Json<ShadowFindings>, Problem> {
    let report = desk.handle.shadow();
    let report = report.ok_or_else(|| Problem::not_found("no candidate is being tried"))?;
    Ok(Json(report.into()))
}

/// Have an installed pack judge live requests, without effect
#[utoipa::path(post, path = "/v1/shadow", request_body = ShadowWish, responses(
    (status = 200, body = RulesInForce),
    (status = 400, body = Problem),
    (status = 409, description = "It is not installed, or cannot be in force", body = Problem),
))]
pub(crate) async fn start_shadow(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<ShadowWish>, JsonRejection>,
) -> Result<Json<RulesInForce>, Problem> {
    let Json(asked) = body?;
    let name: PackName = asked.name.parse().map_err(Problem::bad)?;
    let version = asked.version.as_deref().map(Version::parse).transpose();
    let version = version.map_err(|error| Problem::bad(format!("no version: {error}")))?;
    let wish = wish("shadow.start", &asked.name);
    let packs = desk.audited(caller, wish, |desk, _| {
        desk.reloader
            .shadow(name, version)
            .map_err(|error| Problem::conflict(format!("{error:#}")))
    });
    Ok(Json(RulesInForce {
        rules: None,
        packs: packs.await?.into_iter().map(Into::into).collect(),
    }))
}

/// End the trial of a candidate
#[utoipa::path(delete, path = "/v1/shadow", responses((status = 200, body = ShadowEnded)))]
pub(crate) async fn end_shadow(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ShadowEnded>, Problem> {
    let ended = desk.audited(caller, wish("shadow.end", ""), |desk, _| {
        let changed = desk.handle.shadow().is_some();
        desk.handle
            .set_shadow(None)
            .map_err(|_| Problem::broken())?;
        Ok(ShadowEnded { changed })
    });
    Ok(Json(ended.await?))
}

fn wish(action: &'static str, target: &str) -> Wish {
    Wish {
        action,
        target: target.to_owned(),
        details: Map::new(),
    }
}

impl Desk {
    /// Reads everything anew; what is in force then is written down, and what takes a restart.
    pub(crate) async fn reload(self: Arc<Self>, caller: Caller) -> Result<ReloadDone, Problem> {
        let done = self.audited(caller, wish("rules.reload", ""), |desk, details| {
            let done = desk.reloader.reload();
            let done = done.map_err(|error| Problem::conflict(format!("{error:#}")))?;
            let packs = done.packs.iter();
            let packs: Vec<_> = packs
                .map(|it| format!("{}@{}", it.name, it.version))
                .collect();
            details.insert("packs".to_owned(), packs.into());
            if !done.restart.is_empty() {
                details.insert("restart".to_owned(), done.restart.clone().into());
            }
            Ok(ReloadDone::from(done))
        });
        done.await
    }

    /// The packs in force, in order.
    pub(crate) fn packs(&self) -> Vec<PackVersion> {
        let rulebook = self.handle.rules();
        rulebook.map_or_else(Vec::new, |it| it.packs.to_vec())
    }

    /// Rules that requests are judged by; none where they are not.
    pub(crate) fn rules(&self) -> Option<usize> {
        let rulebook = self.handle.rules()?;
        let rules = rulebook.rules.rules().len();
        let is_off = rulebook.rules.settings().engine == clew_rules::seclang::ast::RuleEngine::Off;
        (rules > 0 || !is_off).then_some(rules)
    }
}

impl From<Reloaded> for ReloadDone {
    fn from(done: Reloaded) -> Self {
        Self {
            rules: done.rules,
            packs: done.packs.into_iter().map(Into::into).collect(),
            warnings: done.warnings,
            restart: done.restart.into_iter().map(str::to_owned).collect(),
            took_ms: done.took.as_secs_f64() * 1e3,
        }
    }
}

impl From<ShadowReport> for ShadowFindings {
    fn from(report: ShadowReport) -> Self {
        let each =
            |span: std::time::Duration| span.as_secs_f64() * 1e6 / report.judged.max(1) as f64;
        let rules = report.rules.iter().map(|(id, (candidate, active))| {
            let (candidate, active) = (*candidate, *active);
            (id.to_string(), RuleDifference { candidate, active })
        });
        Self {
            judged: report.judged,
            skipped: report.skipped,
            both_block: report.both_block,
            new_blocks: report.new_blocks,
            lost_blocks: report.lost_blocks,
            undecided: report.undecided,
            active_us: each(report.active_time),
            candidate_us: each(report.candidate_time),
            longest_us: report.longest.as_secs_f64() * 1e6,
            rules: rules.collect(),
            packs: report.packs.into_iter().map(Into::into).collect(),
            examples: report.examples.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ShadowExample> for ShadowRequest {
    fn from(example: ShadowExample) -> Self {
        Self {
            block: if example.is_new { "new" } else { "lost" }.to_owned(),
            id: example.id,
            method: example.method,
            target: example.target,
            rules: example.rules,
        }
    }
}
