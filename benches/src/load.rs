//! Load from one core: wrk, one thread, and what it saw.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Connections kept busy.
const CONNECTIONS: u32 = 32;

/// One shot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shot {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// What each request says, beside its method.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) target: &'static str,
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// As little as HTTP asks for.
pub(crate) const BARE: Request = Request {
    target: "/",
    headers: &[],
};

/// Prints what the shot needs in one line that is easy to find.
const REPORT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("SHOT %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"#;

/// Fires `request` at `port` for `span`, from core 0.
pub(crate) fn fire(port: u16, request: &Request, span: Duration, work: &Path) -> Result<Shot> {
    let path = work.join("shot.lua");
    std::fs::write(&path, REPORT)?;
    let headers = request.headers.iter();
    let headers = headers.flat_map(|(name, value)| ["-H".to_owned(), format!("{name}: {value}")]);
    let done = Command::new("taskset")
        .args(["-c", "0", "wrk", "-t1", &format!("-c{CONNECTIONS}")])
        .arg(format!("-d{}ms", span.as_millis()).replace("000ms", "s"))
        .arg("-s")
        .arg(&path)
        .args(headers)
        .arg(format!("http://127.0.0.1:{port}{}", request.target))
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
