//! Load from one core: wrk, one thread, and what it saw.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Connections kept busy.
const CONNECTIONS: u32 = 32;

/// One shot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shot {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Prints what the shot needs in one line that is easy to find.
const REPORT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("SHOT %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"#;

/// Each request carries the next line of a file of tokens.
const TAGGED: &str = r#"
local tokens, next_token = {}, 0
for line in io.lines("TOKENS") do tokens[#tokens + 1] = line end
request = function()
  next_token = next_token % #tokens + 1
  return "GET PATH HTTP/1.1\r\nx-clew-token: " .. tokens[next_token] ..
    "\r\nHost: bench\r\nUser-Agent: wrk\r\nAccept: */*\r\n\r\n"
end
"#;

/// Fires at `port` for `span`, from core 0.
pub(crate) fn fire(port: u16, span: Duration, work: &Path) -> Result<Shot> {
    shoot(port, span, work, REPORT)
}

/// The same with a token from `tokens` in each request.
pub(crate) fn fire_tagged(
    port: u16,
    span: Duration,
    work: &Path,
    tokens: &Path,
    target: &str,
) -> Result<Shot> {
    let tokens = tokens.to_str().context("path is not UTF-8")?;
    let script = TAGGED.replace("TOKENS", tokens).replace("PATH", target);
    shoot(port, span, work, &(script + REPORT))
}

fn shoot(port: u16, span: Duration, work: &Path, script: &str) -> Result<Shot> {
    let path = work.join("shot.lua");
    std::fs::write(&path, script)?;
    let done = Command::new("taskset")
        .args(["-c", "0", "wrk", "-t1", &format!("-c{CONNECTIONS}")])
        .arg(format!("-d{}ms", span.as_millis()).replace("000ms", "s"))
        .arg("-s")
        .arg(&path)
        .arg(format!("http://127.0.0.1:{port}/"))
        .output()
        .context("wrk is missing: make setup")?;
    let text = String::from_utf8_lossy(&done.stdout);
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("SHOT ")) else {
        bail!("wrk said: {text}{}", String::from_utf8_lossy(&done.stderr));
    };
    let numbers: Vec<f64> = line.split(' ').filter_map(|it| it.parse().ok()).collect();
    let [requests, micros, p50, p99, errors] = numbers[..] else {
        bail!("wrk's report is {line:?}");
    };
    ensure!(errors == 0.0, "{errors} requests failed");
    Ok(Shot {
        requests_per_second: requests / (micros / 1e6),
        p50_us: p50,
        p99_us: p99,
    })
}
