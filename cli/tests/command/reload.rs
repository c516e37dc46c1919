//! What changes while clew runs: packs, policy, rules; and one clew that takes the place of another.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::stage::{CLEW, Process, Stage, stopped, wait_until};

pub(crate) const TESTS: &[Test] = &[
    (
        "reload::packs_are_in_force_when_the_command_returns",
        packs_are_in_force_at_once,
    ),
    (
        "reload::what_cannot_be_used_changes_nothing",
        what_cannot_be_used_changes_nothing,
    ),
    ("reload::a_pack_says_how_bans_are", a_pack_says_how_bans_are),
    ("reload::a_shadow_changes_nothing", a_shadow_changes_nothing),
    ("reload::another_takes_over", another_takes_over),
    (
        "reload::a_sink_that_is_down_does_not_hold_up_a_take_over",
        a_sink_that_is_down_does_not_hold_up_a_take_over,
    ),
    ("reload::what_fails_how_is_shown", what_fails_how_is_shown),
];

pub(crate) const PRIVILEGED: &[Test] = &[
    (
        "reload::a_pack_allows_a_program_at_once",
        a_pack_allows_a_program_at_once,
    ),
    (
        "reload::another_takes_over_with_its_sensor",
        another_takes_over_with_its_sensor,
    ),
    (
        "reload::without_rights_it_fails_open_or_closed",
        without_rights_it_fails_open_or_closed,
    ),
];

const UNSIGNED: &str = "[packs]\nallow_unsigned = true\n";

/// Without a sensor, with a block log.
fn alone(at: &Path) -> String {
    let log = at.join("events.jsonl");
    format!(
        "{UNSIGNED}[sensor]\nenabled = false\n[[log]]\nsink = \"file\"\npath = \"{}\"\n",
        log.display()
    )
}

/// Installs a pack that answers /a with this status.
fn install(stage: &Stage, version: &str, status: u16) -> Result<()> {
    let rule = format!(
        "SecRule REQUEST_FILENAME \"@streq /a\" \"id:9000001,phase:1,deny,status:{status},msg:'a'\"\n"
    );
    let test = format!(
        "---\nmeta:\n  author: \"a\"\nrule_id: 9000001\ntests:\n  - test_id: 1\n    stages:\n      - input:\n          method: GET\n          uri: /a\n          headers:\n            Host: a\n            User-Agent: a\n            Accept: \"*/*\"\n        output:\n          status: {status}\n          log:\n            expect_ids: [9000001]\n  - test_id: 2\n    stages:\n      - input:\n          method: GET\n          uri: /b\n          headers:\n            Host: a\n            User-Agent: a\n            Accept: \"*/*\"\n        output:\n          log:\n            no_expect_ids: [9000001]\n"
    );
    let manifest = format!(
        "name = \"p\"\nversion = \"{version}\"\nclew = \"0.1\"\ndescription = \"a test\"\nmode = \"block\"\n"
    );
    place(stage, version, &manifest, Some((&rule, &test)))
}

/// Packs a folder, and installs it.
fn place(stage: &Stage, version: &str, manifest: &str, rules: Option<(&str, &str)>) -> Result<()> {
    let at = stage.directory.path();
    let folder = at.join(format!("p-{version}"));
    std::fs::create_dir_all(folder.join("rules"))?;
    std::fs::create_dir_all(folder.join("tests"))?;
    std::fs::write(folder.join("pack.toml"), manifest)?;
    if let Some((rule, test)) = rules {
        std::fs::write(folder.join("rules/a.conf"), rule)?;
        std::fs::write(folder.join("tests/a.yaml"), test)?;
    }
    let archive = at.join(format!("p-{version}.clewpack"));
    let packed = Command::new(CLEW)
        .args(["packs", "pack"])
        .arg(&folder)
        .arg("--output")
        .arg(&archive)
        .output()?;
    ensure!(packed.status.success(), "{packed:?}");
    done(
        stage,
        &[
            "packs",
            "install",
            &archive.to_string_lossy(),
            "--allow-unsigned",
        ],
    )?;
    Ok(())
}

fn done(stage: &Stage, words: &[&str]) -> Result<String> {
    let output = stage.ask(words)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn activate(stage: &Stage, pack: &str) -> Result<String> {
    done(stage, &["packs", "activate", pack, "--allow-unsigned"])
}

fn packs_are_in_force_at_once() -> Result<()> {
    let stage = Stage::with_config(alone)?;
    ensure!(stage.get("/a")?.0 == 200);
    for (version, status) in [("1.0.0", 418), ("2.0.0", 451)] {
        install(&stage, version, status)?;
        activate(&stage, &format!("p@{version}"))?;
        ensure!(stage.get("/a")?.0 == status);
        ensure!(done(&stage, &["status"])?.contains(&format!("pack       p {version}")));
    }
    done(&stage, &["packs", "rollback", "--allow-unsigned"])?;
    ensure!(stage.get("/a")?.0 == 418);
    // Each event names the version that its request was judged by.
    let events = || std::fs::read_to_string(stage.directory.path().join("events.jsonl"));
    wait_until("three events", || Ok(events()?.lines().count() == 3))?;
    let expected = [(418, "1.0.0"), (451, "2.0.0"), (418, "1.0.0")];
    for (line, (status, version)) in events()?.lines().zip(expected) {
        let event: serde_json::Value = serde_json::from_str(line)?;
        ensure!(event["http"]["response"]["status_code"] == status, "{line}");
        ensure!(event["clew"]["packs"][0]["version"] == version, "{line}");
    }
    let hits: serde_json::Value = serde_json::from_str(&done(&stage, &["top", "--json"])?)?;
    ensure!(hits["hits"][0]["id"] == 9_000_001 && hits["hits"][0]["stops"] == 3);
    done(&stage, &["packs", "deactivate", "p", "--allow-unsigned"])?;
    ensure!(stage.get("/a")?.0 == 200);
    // Whoever has changed it is told, also where the store is another's, and what was in force then.
    let audit: serde_json::Value = serde_json::from_str(&done(&stage, &["audit", "--json"])?)?;
    let uid = rustix::process::geteuid().as_raw();
    let packs = [&["p@1.0.0"][..], &["p@2.0.0"], &["p@1.0.0"], &[]];
    let entries = audit.as_array().context("entries")?;
    ensure!(entries.len() == packs.len(), "{audit}");
    for (entry, packs) in entries.iter().zip(packs) {
        ensure!(entry["actor"]["uid"] == uid, "{entry}");
        ensure!(
            entry["details"]["packs"] == serde_json::json!(packs),
            "{entry}"
        );
    }
    Ok(())
}

fn what_cannot_be_used_changes_nothing() -> Result<()> {
    let stage = Stage::with_config(|at| {
        std::fs::write(at.join("own.conf"), OWN).expect("rules");
        format!(
            "{}[rules]\nfiles = [\"{}/own.conf\"]\n",
            alone(at),
            at.display()
        )
    })?;
    let own = stage.directory.path().join("own.conf");
    ensure!(stage.get("/own")?.0 == 403);
    std::fs::write(&own, OWN.replace("/own", "/other"))?;
    // Until it is asked for, nothing changes.
    ensure!(stage.get("/own")?.0 == 403);
    done(&stage, &["reload"])?;
    ensure!(stage.get("/own")?.0 == 200 && stage.get("/other")?.0 == 403);
    for (broken, complaint) in [
        ("SecRule ARGS \"@nosuch\" \"id:1\"\n", "@nosuch"),
        ("SecRule ARGS\n", "own.conf"),
    ] {
        std::fs::write(&own, broken)?;
        let refused = stage.ask(&["reload"])?;
        ensure!(!refused.status.success(), "{complaint}");
        ensure!(stage.get("/own")?.0 == 200 && stage.get("/other")?.0 == 403);
    }
    // Signals say the same.
    std::fs::write(&own, OWN)?;
    stage.clew.signal(rustix::process::Signal::HUP)?;
    wait_until("rules in force", || Ok(stage.get("/own")?.0 == 403))?;
    let config = stage.directory.path().join("clew.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, format!("{text}[limits]\nheaders = 7\n"))?;
    ensure!(done(&stage, &["reload"])?.contains("after a restart only: limits"));
    let audit = done(&stage, &["audit"])?;
    ensure!(audit.matches("rules.reload").count() == 5, "{audit}");
    ensure!(
        audit.matches("a signal from SIGHUP").count() == 1,
        "{audit}"
    );
    ensure!(audit.contains("\"restart\":[\"limits\"]"), "{audit}");
    Ok(())
}

const OWN: &str =
    "SecRuleEngine On\nSecRule REQUEST_FILENAME \"@streq /own\" \"id:1,phase:1,deny,status:403\"\n";

fn a_pack_says_how_bans_are() -> Result<()> {
    let stage = Stage::with_config(alone)?;
    let seconds = |source: &str| -> Result<u64> {
        let said = done(&stage, &["bans", "add", source, "--json"])?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        said["ban"]["seconds_left"].as_u64().context("no span")
    };
    ensure!(seconds("203.0.113.1")? > 3000);
    let manifest = "name = \"p\"\nversion = \"1.0.0\"\nclew = \"0.1\"\ndescription = \"a test\"\n\
                    mode = \"block\"\n[rules]\nfiles = []\n[ban]\nseconds = 60\n";
    place(&stage, "1.0.0", manifest, None)?;
    activate(&stage, "p")?;
    ensure!((50..=60).contains(&seconds("203.0.113.2")?));
    // What is in force stays as it is.
    ensure!(done(&stage, &["bans", "list"])?.contains("203.0.113.1"));
    done(&stage, &["packs", "deactivate", "p", "--allow-unsigned"])?;
    ensure!(seconds("203.0.113.3")? > 3000);
    Ok(())
}

fn a_shadow_changes_nothing() -> Result<()> {
    let stage = Stage::with_config(alone)?;
    install(&stage, "1.0.0", 418)?;
    ensure!(!stage.ask(&["packs", "shadow", "report"])?.status.success());
    done(&stage, &["packs", "shadow", "start", "p@1.0.0"])?;
    for _ in 0..3 {
        ensure!(stage.get("/a")?.0 == 200 && stage.get("/b")?.0 == 200);
    }
    let report = || -> Result<serde_json::Value> {
        let said = done(&stage, &["packs", "shadow", "report", "--json"])?;
        Ok(serde_json::from_str(&said)?)
    };
    wait_until("all are judged", || Ok(report()?["judged"] == 6))?;
    let report = report()?;
    ensure!(
        report["new_blocks"] == 3 && report["lost_blocks"] == 0,
        "{report}"
    );
    ensure!(report["examples"][0]["target"] == "/a", "{report}");
    let text = done(&stage, &["packs", "shadow", "report"])?;
    ensure!(
        text.contains("new: it alone blocks") && text.contains("GET /a"),
        "{text}"
    );
    done(&stage, &["packs", "shadow", "stop"])?;
    ensure!(!stage.ask(&["packs", "shadow", "report"])?.status.success());
    Ok(())
}

fn another_takes_over() -> Result<()> {
    let mut stage = Stage::with_config(alone)?;
    done(&stage, &["bans", "add", "203.0.113.9", "--reason", "kept"])?;
    take_over(&mut stage)?;
    ensure!(done(&stage, &["bans", "list"])?.contains("kept"));
    Ok(())
}

/// What nobody takes does not hold up who takes over, and clients with it: it waits on disk.
fn a_sink_that_is_down_does_not_hold_up_a_take_over() -> Result<()> {
    let stage = Stage::with_config(|at| {
        let nobody = "[[log]]\nsink = \"webhook\"\nurl = \"http://127.0.0.1:1\"\n";
        format!("{}{nobody}", alone(at))
    })?;
    install(&stage, "1.0.0", 418)?;
    activate(&stage, "p@1.0.0")?;
    ensure!(stage.get("/a")?.0 == 418);
    let spool = stage.directory.path().join("state/log-spool");
    wait_until("the event is on disk", || {
        for file in std::fs::read_dir(&spool)? {
            let bytes = std::fs::read(file?.path())?;
            if String::from_utf8_lossy(&bytes).contains("9000001") {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    let begun = std::time::Instant::now();
    let _successor = successor(&stage)?;
    ensure!(begun.elapsed().as_secs() < 4, "{:?}", begun.elapsed());
    Ok(())
}

/// Requests are sent without a pause while another clew takes the place of this one, three times.
fn take_over(stage: &mut Stage) -> Result<()> {
    let port = stage.port;
    for _ in 0..3 {
        let over = std::sync::atomic::AtomicBool::new(false);
        let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
        let (successor, served) = std::thread::scope(|scope| {
            let load = scope.spawn(|| -> Result<usize> {
                let mut served = 0;
                while !is_over() {
                    let (status, _) = crate::stage::get(port, "/")?;
                    ensure!(status == 200, "{status}");
                    served += 1;
                }
                Ok(served)
            });
            let successor = successor(stage);
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            let served = load.join().map_err(|_| anyhow::anyhow!("a panic"))?;
            Ok::<_, anyhow::Error>((successor?, served?))
        })?;
        let old = std::mem::replace(&mut stage.clew, successor);
        let mut old = old;
        ensure!(old.0.wait()?.success(), "{}", stage.log()?);
        ensure!(served > 0 && stage.get("/")?.0 == 200);
    }
    Ok(())
}

fn successor(stage: &Stage) -> Result<Process> {
    let at = stage.directory.path();
    let log = at.join("log.next");
    let child = Command::new(CLEW)
        .args(["run", "--take-over", "--listen"])
        .arg(format!("127.0.0.1:{}", stage.port))
        .arg("--state")
        .arg(at.join("state"))
        .arg("--config")
        .arg(at.join("clew.toml"))
        .stderr(std::fs::File::create(&log)?)
        .spawn()?;
    let mut successor = Process(child);
    wait_until("the successor listens", || {
        let said = std::fs::read_to_string(&log)?;
        let has_ended = successor.0.try_wait()?.is_some();
        ensure!(!has_ended, "{said}");
        Ok(said.contains("listening"))
    })?;
    Ok(successor)
}

fn another_takes_over_with_its_sensor() -> Result<()> {
    let mut stage = Stage::with_config(|_| "[ban]\nenabled = false\n".to_owned())?;
    take_over(&mut stage)?;
    let marker = stage.directory.path().join("marker-of-the-attack");
    let (status, _) = stage.get(&format!("/run/touch%20{}", marker.display()))?;
    ensure!(status == 403 && !marker.exists());
    Ok(())
}

fn a_pack_allows_a_program_at_once() -> Result<()> {
    let stage = Stage::with_config(|_| {
        format!("{UNSIGNED}[ban]\nenabled = false\n[trust]\nshared = [\"127.0.0.0/8\"]\n")
    })?;
    let run = || stage.get("/run/exit%203");
    let (status, _) = run()?;
    ensure!(status == 403, "{status}");
    let manifest = |arguments: &str| {
        format!(
            "name = \"p\"\nversion = \"{}\"\nclew = \"0.1\"\ndescription = \"a test\"\nmode = \"block\"\n[rules]\nfiles = []\n\
             [[exec]]\npath = \"/bin/sh\"\nservice = \"it\"\narguments = [\"/bin/sh\", \"-c\", \"{arguments}\"]\n",
            if arguments == "exit 3" {
                "1.0.0"
            } else {
                "2.0.0"
            },
        )
    };
    place(&stage, "1.0.0", &manifest("exit 3"), None)?;
    activate(&stage, "p@1.0.0")?;
    ensure!(run()? == (200, "status 3".to_owned()));
    place(&stage, "2.0.0", &manifest("exit 4"), None)?;
    activate(&stage, "p@2.0.0")?;
    // One of several requests by now: the program is killed, and nobody named.
    let (status, said) = run()?;
    ensure!(status == 403 || said == stopped()?, "{status} {said}");
    ensure!(stage.get("/run/exit%204")? == (200, "status 4".to_owned()));
    Ok(())
}

/// As somebody who may not load programs.
fn without_rights_it_fails_open_or_closed() -> Result<()> {
    for fail in ["open", "closed"] {
        let directory = crate::stage::shared_directory()?;
        let at = directory.path();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(at, mode)?;
        let config = at.join("clew.toml");
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[[service]]\nname = \"it\"\nupstreams = [\"127.0.0.1:9\"]\n\
             [fail]\nsensor = \"{fail}\"\n[state]\ndirectory = \"{}/state\"\n",
            at.display()
        );
        std::fs::write(&config, text)?;
        let log = at.join("log");
        let child = Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                CLEW,
            ])
            .args(["run", "--config"])
            .arg(&config)
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        let mut clew = Process(child);
        let said = || std::fs::read_to_string(&log);
        if fail == "closed" {
            ensure!(!clew.0.wait()?.success());
            ensure!(said()?.contains("run as root"), "{}", said()?);
            continue;
        }
        wait_until("it serves", || {
            ensure!(clew.0.try_wait()?.is_none(), "{}", said()?);
            Ok(said()?.contains("listening"))
        })?;
        ensure!(said()?.contains("fail.sensor = open"), "{}", said()?);
    }
    Ok(())
}

fn what_fails_how_is_shown() -> Result<()> {
    let directory = crate::stage::shared_directory()?;
    let config = directory.path().join("clew.toml");
    let text = "[[service]]\nname = \"it\"\nupstreams = [\"127.0.0.1:9\"]\n[fail]\nverdict = \"closed\"\n[sensor]\nfallback_mode = \"observe\"\n";
    std::fs::write(&config, text)?;
    let said = Command::new(CLEW)
        .args(["doctor", "--json", "--config"])
        .arg(&config)
        .output()?;
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&said.stdout)?;
    let detail = |key: &str| -> Result<String> {
        let found = findings.iter().find(|it| it["provider"] == key);
        let detail = found.and_then(|it| it["detail"].as_str());
        Ok(detail.with_context(|| key.to_owned())?.to_owned())
    };
    ensure!(detail("fail.verdict")?.starts_with("closed: answers 503"));
    ensure!(detail("fail.sensor")?.starts_with("closed: does not start"));
    ensure!(detail("fail.record")?.starts_with("open: serves"));
    ensure!(detail("sensor.fallback_mode")? == "observe");
    Ok(())
}
