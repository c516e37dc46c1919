//! Files, filters, and disks that are full.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::stage::{PATIENCE, id_of, report, report_one, start, wait_until};

fn ids_in(path: &Path) -> Result<Vec<String>> {
    std::fs::read_to_string(path)?.lines().map(id_of).collect()
}

pub(crate) fn each_sink_gets_what_its_filter_lets_pass() -> Result<()> {
    let state = tempfile::tempdir()?;
    let path = |name: &str| state.path().join(name);
    let sink = |name: &str, only: &str| {
        format!(
            "[[log]]\nsink = 'file'\nname = '{name}'\npath = '{}'\nonly = {{ {only} }}\n",
            path(name).display()
        )
    };
    let text = [
        sink("all", ""),
        sink("incidents", "incidents = true"),
        sink("critical", "minimum_severity = 'critical'"),
        sink("denied", "actions = ['denied']"),
        sink("blog", "services = ['blog']"),
    ];
    let log = start(state.path(), &text.concat())?;
    let denied = report_one(&log);
    let mut limited = crate::sample::report();
    limited.outcome = clew_protocol::report::Outcome::Limited;
    limited.service = Some("blog".to_owned());
    let blog = limited.id.to_string();
    log.report(limited);
    let incident = crate::sample::incident(2);
    let critical = format!("{}-2", incident.id);
    log.incident(incident);
    log.finish(PATIENCE);
    assert_eq!(ids_in(&path("all"))?.len(), 3);
    assert_eq!(ids_in(&path("incidents"))?, std::slice::from_ref(&critical));
    assert_eq!(ids_in(&path("critical"))?, [critical]);
    assert_eq!(ids_in(&path("denied"))?, [denied]);
    assert_eq!(ids_in(&path("blog"))?, [blog]);
    Ok(())
}

/// A file system of its own, small, until it goes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = command.arg(directory.path()).status()?;
        ensure!(
            mounted.success(),
            "a tmpfs cannot be mounted; this test needs root"
        );
        Ok(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

/// It costs events, which are counted, and goes on when there is room again.
pub(crate) fn full_disk() -> Result<()> {
    let disk = SmallDisk::mount("1m")?;
    let root = disk.0.path();
    let filler = root.join("filler");
    std::fs::write(&filler, vec![0; 700 << 10])?;
    // Nobody listens there: all of it waits.
    let text = format!(
        "[[log]]\nsink = 'syslog'\ntransport = 'tcp'\naddress = '127.0.0.1:1'\n[[log]]\nsink = 'file'\npath = '{}'\n",
        root.join("block.json").display()
    );
    let log = start(root, &text)?;
    report(&log, 400);
    let dropped = || {
        let counters = log.counters();
        (counters.sinks[0].dropped, counters.sinks[1].dropped)
    };
    wait_until("the disk is full", || dropped().0 > 0 && dropped().1 > 0)?;
    wait_until("all have been tried", || {
        log.counters().queue_bytes == 0 && log.counters().sinks[1].waiting_events == 0
    })?;
    let counters = log.counters();
    let spool = counters.spool.context("a spool")?;
    let waiting = counters.sinks[0].waiting_events;
    assert_eq!(spool.written + spool.dropped, 400);
    assert_eq!(
        (spool.written, spool.dropped),
        (waiting, counters.sinks[0].dropped)
    );
    assert_eq!(counters.sinks[1].sent + counters.sinks[1].dropped, 400);
    assert!(counters.sinks.iter().all(|it| it.last_error.is_some()));

    std::fs::remove_file(&filler)?;
    let after = report(&log, 20);
    let end = log.finish(Duration::from_millis(500));
    assert_eq!(end.sinks[0].waiting_events, waiting + 20);
    let lines = ids_in(&root.join("block.json"))?;
    assert_eq!(lines.len() as u64, end.sinks[1].sent);
    assert!(lines.ends_with(&after), "lines are whole, and go on");
    Ok(())
}
