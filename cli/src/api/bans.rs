//! `/v1/bans`: who is refused.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use clew_bans::{Ban, Cause, Durability, Order, Refusal, Span, Stamp, Wall};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use super::{Caller, Desk, Wish};

/// Most bans in one answer.
const PAGE: usize = 1000;
/// How long an answer waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bans in force, in the order of their sources.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct BanList {
    pub(crate) bans: Vec<BanEntry>,
    /// How many there are in all.
    pub(crate) total: usize,
    /// Ask for what comes `after` this; null when that is all.
    pub(crate) next: Option<String>,
}

/// One ban.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct BanEntry {
    /// An address, or a prefix with its length.
    pub(crate) source: String,
    /// RFC 3339, UTC.
    pub(crate) since: String,
    /// RFC 3339, UTC.
    pub(crate) until: String,
    pub(crate) seconds_left: u64,
    /// In words; may be empty.
    pub(crate) reason: String,
    /// The incident it is for; null where a hand has banned.
    pub(crate) incident: Option<String>,
    /// Which offence of this source it is for, 1 being the first; 0 where a hand has banned for so long.
    pub(crate) offence: u32,
    /// It refuses nobody.
    pub(crate) dry_run: bool,
    /// What was refused at the interfaces of `ban.interfaces`; null before anything was.
    pub(crate) dropped: Option<DroppedPackets>,
}

/// Packets of a banned source.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct DroppedPackets {
    pub(crate) packets: u64,
    /// How long after the ban the first was dropped, milliseconds.
    pub(crate) first_after_ms: f64,
}

/// Whom to ban.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BanWish {
    /// An address, of which the prefix that the configuration names is banned, or a prefix with its length.
    pub(crate) source: String,
    /// For just so long, 1 to 315360000; without it as the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<u64>,
    /// In words, at most 256 bytes without control characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
}

/// A ban that is in force.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct BanDone {
    pub(crate) ban: BanEntry,
    /// Why it will not outlive this process; null when it is on disk.
    pub(crate) not_durable: Option<String>,
}

/// A ban that was lifted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct BanLifted {
    /// There was one.
    pub(crate) changed: bool,
    /// Why it may be back after a restart; null when it is gone from the disk.
    pub(crate) not_durable: Option<String>,
}

/// Which bans.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Those that come after this source.
    after: Option<String>,
    /// At most so many, 1 to 1000; default 1000.
    limit: Option<usize>,
}

/// Which ban.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct RemoveQuery {
    /// An address, or a prefix with its length.
    source: String,
}

/// Bans in force
#[utoipa::path(get, path = "/v1/bans", params(ListQuery), responses(
    (status = 200, body = BanList),
    (status = 400, body = Problem),
))]
pub(crate) async fn list(
    State(desk): State<Arc<Desk>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<BanList>, Problem> {
    let Query(query) = query?;
    let after = query.after.as_deref().map(exact).transpose()?;
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let (bans, now) = desk.bans.list(after, limit);
    let next = match bans.len() == limit {
        true => bans.last().map(|it| name_of(it.source)),
        false => None,
    };
    Ok(Json(BanList {
        bans: bans.into_iter().map(|it| desk.entry(it, now)).collect(),
        total: desk.bans.len(),
        next,
    }))
}

/// Ban a source
///
/// The ban is on disk before this is answered, or the answer says why not.
#[utoipa::path(post, path = "/v1/bans", request_body = BanWish, responses(
    (status = 200, body = BanDone),
    (status = 400, body = Problem),
    (status = 409, description = "The source is never banned", body = Problem),
))]
pub(crate) async fn add(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    wish: Result<Json<BanWish>, JsonRejection>,
) -> Result<Json<BanDone>, Problem> {
    let Json(wish) = wish?;
    let mut details = serde_json::Map::new();
    details.extend(wish.seconds.map(|it| ("seconds".to_owned(), it.into())));
    let reason: String = wish.reason.chars().take(256).collect();
    details.extend((!reason.is_empty()).then(|| ("reason".to_owned(), reason.into())));
    let audited = Wish {
        action: "ban.add",
        target: wish.source.clone(),
        details,
    };
    let done = desk.audited(caller, audited, move |desk, _| desk.ban(wish));
    done.await.map(Json)
}

/// Lift a ban
///
/// What the source did is forgiven with it.
#[utoipa::path(delete, path = "/v1/bans", params(RemoveQuery), responses(
    (status = 200, body = BanLifted),
    (status = 400, body = Problem),
))]
pub(crate) async fn remove(
    State(desk): State<Arc<Desk>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<Json<BanLifted>, Problem> {
    let Query(RemoveQuery { source }) = query?;
    let audited = Wish {
        action: "ban.remove",
        target: source.clone(),
        details: serde_json::Map::new(),
    };
    let done = desk.audited(caller, audited, move |desk, _| desk.lift(&source));
    done.await.map(Json)
}

impl Desk {
    fn ban(&self, wish: BanWish) -> Result<BanDone, Problem> {
        let source = match wish.source.parse::<IpAddr>() {
            Ok(address) => self.bans.source_of_address(address),
            Err(_) => exact(&wish.source)?,
        };
        let order = Order {
            cause: Cause::Hand(source),
            span: wish.seconds.map_or(Span::Policy, |seconds| {
                Span::Exactly(Duration::from_secs(seconds))
            }),
            reason: wish.reason,
        };
        let (banned, stamp) = self.bans.ban(&order).map_err(refused)?;
        let source = banned.ban.source;
        tracing::warn!(%source, dry_run = banned.ban.dry_run, "source banned by hand");
        let now = self.bans.now();
        Ok(BanDone {
            ban: self.entry(banned.ban, now),
            not_durable: self.wait(stamp),
        })
    }

    /// Of an address: the ban of just that, else that of its prefix.
    fn lift(&self, source: &str) -> Result<BanLifted, Problem> {
        let stamp = self.bans.lift(exact(source)?).or_else(|| {
            let address = source.parse::<IpAddr>().ok()?;
            self.bans.lift(self.bans.source_of_address(address))
        });
        Ok(BanLifted {
            changed: stamp.is_some(),
            not_durable: stamp.and_then(|it| self.wait(it)),
        })
    }

    fn wait(&self, stamp: Stamp) -> Option<String> {
        match self.bans.wait_durable(stamp, PATIENCE) {
            Durability::Durable => None,
            Durability::InForce(reason) => Some(reason),
        }
    }

    fn entry(&self, ban: Ban, now: Wall) -> BanEntry {
        let at_edge = self.handle.find_ban(ban.source);
        let dropped = at_edge.and_then(|it| Some((it.since, it.dropped?)));
        BanEntry {
            source: name_of(ban.source),
            since: rfc3339(ban.since),
            until: rfc3339(ban.until),
            seconds_left: ban.until.since(now).as_secs(),
            reason: ban.reason,
            incident: ban.incident.map(|it| it.to_string()),
            offence: ban.offence,
            dry_run: ban.dry_run,
            dropped: dropped.map(|(since, it)| DroppedPackets {
                packets: it.packets,
                first_after_ms: it.first.since(since).as_secs_f64() * 1e3,
            }),
        }
    }
}

fn refused(refusal: Refusal) -> Problem {
    let status = match refusal {
        Refusal::Spared { .. } => StatusCode::CONFLICT,
        Refusal::Everybody(_) | Refusal::Span | Refusal::Reason => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, refusal.to_string())
}

/// An address is a prefix of full length.
fn exact(text: &str) -> Result<IpNet, Problem> {
    let source = text.parse::<IpAddr>().map(IpNet::from);
    let source = source.or_else(|_| text.parse::<IpNet>());
    source.map_err(|_| Problem::bad("source: neither an address nor a prefix like 203.0.113.0/24"))
}

/// An address without the length that says it is one.
fn name_of(source: IpNet) -> String {
    if source.prefix_len() == source.max_prefix_len() {
        source.addr().to_string()
    } else {
        source.to_string()
    }
}

fn rfc3339(at: Wall) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.and_then(|it| it.format(&Rfc3339).ok())
        .unwrap_or_default()
}
