//! From start to stop.

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::stage::{Stage, pins_of, wait_until};

pub(crate) const TESTS: &[Test] = &[
    (
        "life::no_rights_are_left_after_start",
        no_rights_are_left_after_start,
    ),
    (
        "life::an_attack_is_stopped_told_and_banned",
        an_attack_is_stopped_told_and_banned,
    ),
    ("life::bans_by_hand", bans_by_hand),
    ("life::learn_then_enforce", learn_then_enforce),
    (
        "life::a_clean_stop_leaves_nothing",
        a_clean_stop_leaves_nothing,
    ),
];

fn no_rights_are_left_after_start() -> Result<()> {
    let stage = Stage::new(&[])?;
    let pid = stage.clew.0.id();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status"))?;
        let field = |name: &str| -> Vec<String> {
            let line = status
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            line.split_whitespace().skip(1).map(str::to_owned).collect()
        };
        ensure!(field("Uid:").iter().all(|uid| uid != "0"), "{status}");
        ensure!(field("Gid:").iter().all(|gid| gid != "0"), "{status}");
        ensure!(field("Groups:").is_empty(), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            ensure!(field(set) == ["0000000000000000"], "{set} {status}");
        }
        ensure!(field("NoNewPrivs:") == ["1"], "{status}");
    }
    Ok(())
}

fn an_attack_is_stopped_told_and_banned() -> Result<()> {
    let stage = Stage::new(&[])?;
    let marker = stage.directory.path().join("marker-of-the-attack");
    ensure!(stage.get("/")?.0 == 200);
    let (status, _) = stage.get(&format!("/run/touch%20{}", marker.display()))?;
    ensure!(status == 403 && !marker.exists());
    ensure!(stage.get("/").is_err(), "the source is not banned");
    wait_until("incident", || {
        let shown = stage.ask(&["incidents", "show", "last"])?;
        let shown = String::from_utf8_lossy(&shown.stdout);
        Ok(shown.contains("KILLED") || shown.contains("DENIED"))
    })?;
    let listed = String::from_utf8(stage.ask(&["incidents", "list"])?.stdout)?;
    ensure!(
        listed.contains("banned") && listed.contains("marker-of-the-attack"),
        "{listed}"
    );
    let bans = String::from_utf8(stage.ask(&["bans", "list"])?.stdout)?;
    ensure!(bans.starts_with("127.0.0.1 "), "{bans}");
    let mut counters = serde_json::Value::Null;
    let counted = wait_until("the stop is counted", || {
        let said = stage.ask(&["counters", "--json"])?.stdout;
        counters = serde_json::from_slice(&said)?;
        let of = |name: &str| counters["kernel"]["sensor"][name].as_u64();
        Ok(of("killed")
            .zip(of("refused"))
            .is_some_and(|(a, b)| a + b == 1))
    });
    counted.with_context(|| counters.to_string())?;
    // The token never shows: not in what is logged, not in what is kept, not in what is said.
    let (_, tokens) = crate::stage::get(stage.upstream, "/tokens")?;
    ensure!(tokens.split(' ').count() == 2, "{tokens}");
    let kept = std::fs::read_to_string(stage.directory.path().join("state/incidents.jsonl"))?;
    let shown = stage.ask(&["incidents", "list", "--json"])?.stdout;
    let texts = [kept, stage.log()?, String::from_utf8(shown)?, listed, bans];
    for secret in tokens.split(' ').chain(["x-clew-token"]) {
        ensure!(secret.len() >= 12, "{secret}");
        ensure!(
            !texts
                .iter()
                .any(|text| text.to_lowercase().contains(secret))
        );
    }
    Ok(())
}

fn bans_by_hand() -> Result<()> {
    let stage = Stage::new(&["--no-sensor"])?;
    ensure!(stage.get("/")?.0 == 200);
    ensure!(
        stage
            .ask(&["bans", "add", "127.0.0.1", "--seconds", "60"])?
            .status
            .success()
    );
    ensure!(stage.get("/").is_err());
    ensure!(
        stage
            .ask(&["bans", "remove", "127.0.0.1"])?
            .status
            .success()
    );
    ensure!(stage.get("/")?.0 == 200);

    ensure!(stage.ask(&["bans", "add", "127.0.0.7/8"])?.status.success());
    ensure!(stage.get("/").is_err());
    let listed = String::from_utf8(stage.ask(&["bans", "list"])?.stdout)?;
    ensure!(listed.starts_with("127.0.0.0/8 "), "{listed}");
    ensure!(
        stage
            .ask(&["bans", "remove", "127.0.0.0/8"])?
            .status
            .success()
    );
    ensure!(stage.get("/")?.0 == 200);

    for (source, complaint) in [("0.0.0.0/0", "everybody"), ("localhost", "neither")] {
        let refused = stage.ask(&["bans", "add", source])?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(
            !refused.status.success() && said.contains(complaint),
            "{said}"
        );
    }
    Ok(())
}

/// What the service does while it is learned from passes afterwards, and nothing else.
fn learn_then_enforce() -> Result<()> {
    let mut stage = Stage::new(&["--mode", "learn"])?;
    ensure!(stage.get("/run/exit%203")?.1 == "status 3");
    stage.stop()?;
    let profile = std::fs::read_to_string(stage.directory.path().join("state/profile.json"))?;
    ensure!(profile.contains("exit 3"), "{profile}");
    let (clew, port) = crate::stage::start(stage.directory.path(), stage.upstream, &[])?;
    (stage.clew, stage.port) = (clew, port);
    ensure!(stage.get("/run/exit%203")?.1 == "status 3");
    // Killed; too short a command to tell which of the two requests it was.
    ensure!(stage.get("/run/exit%204")?.1 == "status -9");
    Ok(())
}

fn a_clean_stop_leaves_nothing() -> Result<()> {
    let mut stage = Stage::new(&[])?;
    let pid = stage.clew.0.id();
    ensure!(pins_of(pid)? == 1);
    stage.stop()?;
    ensure!(pins_of(pid)? == 0);
    ensure!(!stage.directory.path().join("state/admin.sock").exists());
    Ok(())
}
