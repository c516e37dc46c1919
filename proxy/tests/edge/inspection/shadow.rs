//! A candidate beside the rules in force.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clew_protocol::report::PackVersion;
use clew_proxy::{RateLimits, Rulebook, ShadowReport};

use super::{ATTACK, judged, rules};
use crate::stage::{Stage, ok, wait_until};

const CANDIDATE: &str = r#"
SecRuleEngine On
SecRequestBodyAccess On
SecRequestBodyLimit 1048576
SecRule ARGS:a "@contains attack" "id:2,phase:1,deny,status:403"
SecRule ARGS|REQUEST_HEADERS:X-Head "@contains novel" "id:11,phase:2,deny,status:403"
"#;

fn candidate() -> Result<Rulebook> {
    Ok(Rulebook {
        rules: rules(CANDIDATE)?,
        packs: Arc::new([PackVersion {
            name: "c".to_owned(),
            version: "1.0.0".to_owned(),
        }]),
        limits: RateLimits::default(),
    })
}

fn found(stage: &Stage, judged: u64) -> Result<ShadowReport> {
    wait_until("the candidate's verdicts", || {
        stage.handle.shadow().is_some_and(|it| it.judged >= judged)
    })?;
    stage.handle.shadow().context("no candidate")
}

#[test]
fn it_changes_nothing_and_tells_what_it_would_have() -> Result<()> {
    let stage = judged(ok, ATTACK, |_| {})?;
    ensure!(stage.handle.shadow().is_none());
    ensure!(stage.handle.set_shadow(Some(candidate()?))?);
    let mut client = stage.client()?;
    for (target, status) in [
        ("/", 200),
        ("/?a=attack", 403),
        ("/?b=attack", 403),
        ("/?b=novel", 200),
    ] {
        ensure!(client.get(target)?.status == status, "{target}");
    }
    client.send(
        "POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\nq=novel",
    )?;
    ensure!(client.response()?.status == 200);
    let report = found(&stage, 5)?;
    ensure!(report.packs.len() == 1 && report.skipped == 0, "{report:?}");
    ensure!((report.both_block, report.new_blocks, report.lost_blocks) == (1, 2, 1));
    ensure!(report.rules.get(&11) == Some(&(2, 0)), "{report:?}");
    let new: Vec<_> = report.examples.iter().filter(|it| it.is_new).collect();
    ensure!(new.len() == 2 && new[0].target == "/?b=novel" && new[0].rules == [11]);
    ensure!(new[1].method == "POST" && new[1].target == "/form");
    let lost = report.examples.iter().find(|it| !it.is_new);
    ensure!(
        lost.is_some_and(|it| it.target == "/?b=attack"),
        "{report:?}"
    );
    ensure!(!report.candidate_time.is_zero() && !report.active_time.is_zero());
    ensure!(stage.handle.set_shadow(None)?);
    ensure!(stage.handle.shadow().is_none());
    Ok(())
}

#[test]
fn it_judges_where_no_rules_are_in_force() -> Result<()> {
    let stage = judged(ok, "SecRuleEngine Off\n", |_| {})?;
    stage.handle.set_shadow(Some(candidate()?))?;
    let mut client = stage.client()?;
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\nq=novel",
    )?;
    ensure!(client.response()?.status == 200);
    ensure!(found(&stage, 1)?.new_blocks == 1);
    Ok(())
}

#[test]
fn a_body_that_nobody_read_decides_nothing() -> Result<()> {
    let stage = judged(ok, ATTACK, |_| {})?;
    stage.handle.set_shadow(Some(candidate()?))?;
    let mut client = stage.client()?;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nX-Head: attack\r\nContent-Length: 7\r\n\r\nq=novel")?;
    ensure!(client.response()?.status == 403);
    let report = found(&stage, 1)?;
    ensure!(
        (report.undecided, report.lost_blocks) == (1, 0),
        "{report:?}"
    );
    Ok(())
}

/// A candidate that is slow: requests are served as fast as ever, and passed over.
#[test]
fn requests_do_not_wait_for_it() -> Result<()> {
    let stage = judged(ok, ATTACK, |_| {})?;
    let mut text = "SecRuleEngine On\n".to_owned();
    for id in 1..=2000 {
        text += &format!(
            "SecRule REQUEST_URI \"@rx [a-z]+[0-{}]*$\" \"id:{id},phase:1,pass,nolog\"\n",
            id % 10
        );
    }
    stage
        .handle
        .set_shadow(Some(Rulebook::new(rules(&text)?)))?;
    let mut client = stage.client()?;
    for _ in 0..300 {
        ensure!(client.get("/abc")?.status == 200);
    }
    wait_until("all are judged or passed over", || {
        let report = stage.handle.shadow().unwrap_or_default();
        report.judged + report.skipped == 300
    })?;
    ensure!(stage.handle.shadow().context("none")?.skipped > 0);
    Ok(())
}
