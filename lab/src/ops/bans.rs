//! Clew is killed, and the next one refuses whom it refused, for the same reason and until the same time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::admin;
use super::author::{Author, Draft, rule, tests};
use super::load::get;
use super::site::{Case, SHOP, Site, WEAK, wait_until};
use crate::client::send;

/// By hand, by a limit, and by what requests did.
const BY_HAND: u16 = 500;
const BY_LIMIT: u8 = 20;
const BY_ATTACK: u8 = 10;
/// So many requests are within the limit.
const ALLOWED: u32 = 3;

pub(super) fn run(site: &Site) -> Result<Value> {
    let author = Author::new(site, "bans")?;
    let case = site.case("bans", site.is_root, &author.trusted())?;
    let limit = format!(
        "[[limit]]\nname = \"often\"\npath = \"/often\"\nrequests = {ALLOWED}\nseconds = 60\naction = \"ban\"\n"
    );
    let (rules, tests) = (rule(418), tests("/a/1"));
    let draft = Draft {
        version: "1.0.0",
        rules: &rules,
        tests: &tests,
        more: &limit,
    };
    author.install(&case, &draft)?;
    author.activate(&case, "1.0.0")?;
    let clew = case.start()?;
    let made = ban(site, &case)?;
    wait_until("all bans are on disk", || {
        let status = admin::done(&case.state, "GET", "/v1/status", "")?;
        Ok(status["bans"]["in_force"] == made && status["bans"]["pending"] == 0)
    })?;
    let before = terms(&case)?;
    clew.kill()?;
    // The next one removes what this one has left in the kernel. If there is none, that is done here.
    let clew = case.start().inspect_err(|_| {
        let _ = clew_sensor::clean();
    })?;
    let after = terms(&case)?;
    let same = before.iter().filter(|it| after.get(it.0) == Some(it.1));
    let same = same.count();
    let refused = before.keys().filter(|it| is_refused(&case, it)).count();
    let served = get(Ipv4Addr::new(127, 26, 0, 1), case.to, SHOP, "/item")?;
    ensure!(served == 200, "a source that is not banned got {served}");
    clew.stop()?;
    Ok(json!({
        "bans_after_kill": { "made": made, "after": same },
        "bans_refused_after_kill": refused,
        "bans_made_by": { "hand": BY_HAND, "limit": BY_LIMIT, "attack": made - u64::from(BY_HAND) - u64::from(BY_LIMIT) },
    }))
}

/// Has them all banned; how many that are.
fn ban(site: &Site, case: &Case) -> Result<u64> {
    for nth in 0..BY_HAND {
        let [high, low] = nth.to_be_bytes();
        let (source, seconds) = (Ipv4Addr::new(127, 20, high, low), 3600 + u32::from(nth));
        let wish = json!({ "source": source, "seconds": seconds, "reason": format!("ban {nth}") });
        let done = admin::done(&case.state, "POST", "/v1/bans", &wish.to_string())?;
        ensure!(done["not_durable"].is_null(), "{done}");
    }
    for nth in 1..=BY_LIMIT {
        let source = Ipv4Addr::new(127, 21, 0, nth);
        for _ in 0..ALLOWED {
            let status = get(source, case.to, SHOP, "/often")?;
            ensure!(status == 200, "within the limit: {status}");
        }
        // It is refused, and its source banned; whether there still is an answer does not matter.
        let _ = get(source, case.to, SHOP, "/often");
    }
    let attacks = if site.is_root { BY_ATTACK } else { 0 };
    for nth in 1..=attacks {
        attack(
            site,
            case,
            Ipv4Addr::new(127, 22, 0, nth),
            &format!("ban-{nth}"),
        )?;
    }
    Ok(u64::from(BY_HAND) + u64::from(BY_LIMIT) + u64::from(attacks))
}

/// A command injection that leaves the marker `name` if nobody stops it.
pub(super) fn attack(site: &Site, case: &Case, source: Ipv4Addr, name: &str) -> Result<()> {
    let head = site.weak.exploit(name, false);
    let head = head.replace("Host: lab", &format!("Host: {WEAK}"));
    let answer = send(source, case.to.port(), &head)?;
    ensure!(!site.weak.marker(name).exists(), "{name}: the shell ran");
    ensure!(answer.status == 403, "{name}: {}", answer.status);
    Ok(())
}

/// What was said of each source: since and until when, why, for which incident, which offence.
fn terms(case: &Case) -> Result<BTreeMap<String, Vec<Value>>> {
    let terms = case.bans()?.into_iter().map(|ban| {
        let source = ban["source"]
            .as_str()
            .context("a ban of nobody")?
            .to_owned();
        let terms = ["since", "until", "reason", "incident", "offence", "dry_run"];
        Ok((source, terms.map(|it| ban[it].clone()).to_vec()))
    });
    terms.collect()
}

fn is_refused(case: &Case, source: &str) -> bool {
    let Ok(source) = source.parse() else {
        return false;
    };
    get(source, case.to, SHOP, "/item").map_or(true, |status| status == 403)
}
