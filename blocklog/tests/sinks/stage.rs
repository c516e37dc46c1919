//! What the tests have in common: a directory, a configuration, numbered events, patience.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clew_blocklog::{BlockLog, Config, Observer, RawSink, RawSpool};
use clew_protocol::RequestId;
use serde::Deserialize;

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Root {
    log: Vec<RawSink>,
    #[serde(default)]
    log_spool: RawSpool,
}

/// Starts a log with its spool in `state`.
pub(crate) fn start(state: &Path, text: &str) -> Result<BlockLog> {
    let root: Root = toml::from_str(text)?;
    let observer = Observer {
        hostname: "edge-1".to_owned(),
        version: "0.1.0".to_owned(),
    };
    let config = Config::check(&root.log, &root.log_spool, state, observer)?;
    Ok(BlockLog::start(config)?)
}

/// Reports `count` requests; their ids, in order.
pub(crate) fn report(log: &BlockLog, count: usize) -> Vec<String> {
    (0..count).map(|_| report_one(log)).collect()
}

pub(crate) fn report_one(log: &BlockLog) -> String {
    let report = crate::sample::report();
    let RequestId(id) = report.id;
    log.report(report);
    id.to_string()
}

/// Waits until it is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_so() {
        ensure!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// `event.id` of a line in ECS.
pub(crate) fn id_of(line: &str) -> Result<String> {
    let event: serde_json::Value = serde_json::from_str(line)?;
    let id = event["event"]["id"].as_str();
    Ok(id
        .ok_or_else(|| anyhow::anyhow!("no id in {line}"))?
        .to_owned())
}
