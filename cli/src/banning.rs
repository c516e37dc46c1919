//! Bans: the keeper's word at the edge.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use clew_bans::{Ban, Cause, Keeper, Order, Refusal, Span, Store, Table, Wall};
use clew_protocol::{IncidentId, Moment};
use clew_proxy::Handle;
use ipnet::IpNet;

use crate::config::Configuration;

const FILE: &str = "bans.redb";

/// Takes over the bans of an earlier run, and has the edge refuse them.
pub(crate) fn open(configuration: &Configuration, handle: Handle) -> Result<Keeper> {
    let store = Store::open(&configuration.state.join(FILE))?;
    let (policy, capacity) = (configuration.bans.clone(), configuration.limits.bans);
    let keeper = Keeper::open(store, policy, capacity, AtEdge(handle), steady())?;
    if !keeper.is_empty() {
        tracing::info!(bans = keeper.len(), "bans of an earlier run are in force");
    }
    Ok(keeper)
}

/// The wall clock as it was at start, and the time since: a clock that is set does not end bans, and the edge
/// counts the same time.
fn steady() -> impl Fn() -> Wall + Send + Sync + 'static {
    let (wall, moment) = (Wall::now(), Moment::now());
    move || wall.after(Moment::now().since(moment))
}

struct AtEdge(Handle);

impl Table for AtEdge {
    fn refuse(&self, ban: &Ban, left: Duration) {
        // As long as the keeper says: shorter than before, too.
        self.0.ban(ban.source, left, None);
    }

    fn admit(&self, source: IpNet) {
        self.0.unban(source);
    }

    fn sweep(&self) {
        self.0.sweep_bans();
    }
}

/// Bans who exceeds a limit that wants it so.
pub(crate) fn by_limit(keeper: &Keeper, client: IpAddr, limit: &str) {
    let order = Order {
        cause: Cause::Hand(IpNet::from(client)),
        span: Span::Policy,
        reason: format!("limit {limit}"),
    };
    match keeper.ban(&order) {
        Ok((banned, _)) => {
            let ban = banned.ban;
            tracing::warn!(source = %ban.source, limit, dry_run = ban.dry_run, "source banned");
        }
        Err(refusal) => tracing::warn!(%client, limit, %refusal, "not banned"),
    }
}

/// Bans whom a verdict has named, for so long; none in a dry run, and where verdicts do not ban.
///
/// # Errors
///
/// He is not to be banned.
pub(crate) fn by_verdict(
    keeper: &Keeper,
    address: IpAddr,
    incident: IncidentId,
) -> Result<Option<Duration>, Refusal> {
    if !keeper.measure().by_verdict {
        tracing::info!(%address, %incident, "not banned: verdicts do not ban");
        return Ok(None);
    }
    let (banned, _) = keeper.ban(&Order {
        cause: Cause::Verdict(address, incident),
        span: Span::Policy,
        reason: String::new(),
    })?;
    let ban = banned.ban;
    let span = ban.until.since(keeper.now());
    let (source, offence, seconds) = (ban.source, ban.offence, span.as_secs());
    if ban.dry_run {
        tracing::warn!(%source, %incident, "dry run: the source would be banned");
        return Ok(None);
    }
    tracing::warn!(%source, %incident, offence, seconds, "source banned");
    Ok(Some(span))
}
