//! `clew rules eval`: raw requests in, one verdict a line out.

use std::io::{BufWriter, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use clew_ftw::{Refusal, Request};
use clew_rules::engine::{Connection, Now, RuleSet, Transaction, Verdict};
use serde_json::{Value, json};

/// Evaluates `requests`, or what comes on standard input; a request's phases end with its body.
pub(crate) fn run(rules: &Arc<RuleSet>, requests: Option<&Path>, json: bool) -> Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut transaction = rules.transaction(connection(), now(), b"");
    let mut judge = |name: &str, bytes: &[u8]| -> Result<()> {
        let judged = Judged::of(&mut transaction, name, bytes);
        if json {
            writeln!(out, "{}", judged.json())?;
        } else {
            writeln!(out, "{}", judged.line())?;
        }
        Ok(())
    };
    let Some(requests) = requests else {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        judge("-", &bytes)?;
        return Ok(ExitCode::SUCCESS);
    };
    for path in files(requests)? {
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        judge(&path.to_string_lossy(), &bytes)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files below `path`, or itself, in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![path.to_owned()]);
    if !path.is_dir() {
        return Ok(folders);
    }
    while let Some(folder) = folders.pop() {
        let unreadable = || format!("cannot read {}", folder.display());
        for entry in std::fs::read_dir(&folder).with_context(unreadable)? {
            let entry = entry.with_context(unreadable)?;
            let list = if entry.file_type()?.is_dir() {
                &mut folders
            } else {
                &mut found
            };
            list.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// A rule that matched, as it is shown.
struct Found {
    id: u64,
    variable: String,
    value: String,
}

/// What became of one request.
struct Judged<'n> {
    name: &'n str,
    verdict: &'static str,
    status: u16,
    score: i64,
    found: Vec<Found>,
    time: Duration,
}

impl<'n> Judged<'n> {
    fn of(transaction: &mut Transaction, name: &'n str, bytes: &[u8]) -> Self {
        let nothing = |verdict, status| Self {
            name,
            verdict,
            status,
            score: 0,
            found: Vec::new(),
            time: Duration::ZERO,
        };
        match Request::read(bytes) {
            Ok(request) => {
                let start = Instant::now();
                let verdict = inspect(transaction, &request);
                let time = start.elapsed();
                Self::from(name, transaction, &verdict, time)
            }
            Err(Refusal::Status(status)) => nothing("not-http", status),
            Err(Refusal::Silence) => nothing("incomplete", 0),
        }
    }

    fn from(name: &'n str, transaction: &Transaction, verdict: &Verdict, time: Duration) -> Self {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (verdict, status) = match verdict {
            Verdict::Pass => ("pass", 200),
            Verdict::Intervention(it) => ("block", it.status),
        };
        let found = transaction.matches().map(|it| Found {
            id: it.rule.map_or(0, |rule| rule.id),
            variable: shown(it.variable),
            value: shown(it.value),
        });
        Self {
            name,
            verdict,
            status,
            score: transaction.scores().0,
            found: found.collect(),
            time,
        }
    }

    fn json(&self) -> Value {
        let rules = self
            .found
            .iter()
            .map(|it| json!({ "id": it.id, "variable": it.variable, "data": it.value }));
        json!({
            "request": self.name, "verdict": self.verdict, "status": self.status,
            "score": self.score, "rules": rules.collect::<Vec<_>>(),
            "time_us": (self.time.as_nanos() as f64 / 100.0).round() / 10.0,
        })
    }

    fn line(&self) -> String {
        let rules: Vec<String> = self
            .found
            .iter()
            .map(|it| format!("{} {}={:?}", it.id, it.variable, it.value))
            .collect();
        format!(
            "{:10} {} score {:3} {:8.1} us  {}  {}",
            self.verdict,
            self.status,
            self.score,
            self.time.as_nanos() as f64 / 1e3,
            self.name,
            rules.join(", ")
        )
    }
}

/// The phases of the request, and the last one.
fn inspect(transaction: &mut Transaction, request: &Request) -> Verdict {
    let never = &mut || false;
    transaction.reset(connection(), now(), b"eval");
    transaction.request_line(&request.method, &request.target, &request.version);
    for (name, value) in &request.headers {
        transaction.request_header(name, value);
    }
    let mut verdict = transaction.request_headers_done(never);
    if verdict.passes() {
        verdict = transaction.request_body(&request.body);
    }
    if verdict.passes() {
        verdict = transaction.request_body_done(never);
    }
    transaction.finish(never);
    verdict
}

fn connection() -> Connection {
    let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Connection {
        client: (home, 54_321),
        server: (home, 80),
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        unix: unix.unwrap_or_default(),
        monotonic: Duration::ZERO,
    }
}
