//! rsyslog, as Debian has it, is stopped and started again while events are sent to it over TCP.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::events::Event;
use super::load::{Load, Pace, Turn};
use super::site::{PATIENCE, SHOP, Site, wait_for, wait_until};
use crate::clew::free_port;
use crate::process::Process;

const RULES: &str =
    "SecRule REQUEST_FILENAME \"@beginsWith /deny\" \"id:1,phase:1,deny,status:418,t:none\"\n";
const PACE: Pace = Pace {
    clients: 4,
    period: Duration::from_millis(1),
    per_connection: 50,
    noted: &[418],
};
/// How often it is stopped, and requests while it is there and while it is not.
const STOPS: u32 = 3;
const REQUESTS: u64 = 300;

pub(super) fn run(site: &Site) -> Result<Value> {
    let syslog = Syslog::new(site)?;
    let rules = site.work.join("rsyslog.rules");
    std::fs::write(&rules, RULES)?;
    let more = format!(
        "[rules]\nengine = \"on\"\nfiles = [\"{}\"]\n\
         [[log]]\nsink = \"syslog\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:{}\"\nretry_seconds = 1\n",
        rules.display(),
        syslog.port
    );
    let case = site.case("rsyslog", false, &more)?;
    let mut running = syslog.start()?;
    let clew = case.start()?;
    let load = Load::start(case.to, 12, PACE, |client, nth| Turn {
        host: SHOP,
        target: format!("/deny/{client}-{nth}"),
        right: &[418],
    });
    for _ in 0..STOPS {
        load.wait(REQUESTS, PATIENCE)?;
        ensure!(running.stop()?, "rsyslog ended badly");
        load.wait(REQUESTS, PATIENCE)?;
        running = syslog.start()?;
    }
    load.wait(REQUESTS, PATIENCE)?;
    let tally = load.stop()?;
    ensure!(tally.failed == 0, "{:?}", tally.failures);
    let missing = || Ok::<_, anyhow::Error>(syslog.missing(&tally.noted)?.0);
    // What is lost does not come; then the figures say so.
    let _ = wait_until("all have arrived", || Ok(missing()? == 0));
    clew.stop()?;
    running.stop()?;
    let (lost, repeats) = syslog.missing(&tally.noted)?;
    Ok(json!({
        "rsyslog_stops": STOPS,
        "rsyslog_events": tally.noted.len(),
        "rsyslog_events_lost": lost,
        "rsyslog_events_repeated": repeats,
    }))
}

/// Where it listens, and what it writes.
struct Syslog {
    configuration: PathBuf,
    pid: PathBuf,
    out: PathBuf,
    port: u16,
}

impl Syslog {
    fn new(site: &Site) -> Result<Self> {
        let folder = site.work.join("syslog");
        std::fs::create_dir(&folder)?;
        let (port, out) = (free_port()?, folder.join("out.log"));
        let configuration = folder.join("rsyslog.conf");
        let text = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"128k\")\nmodule(load=\"imtcp\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"text\" type=\"string\" string=\"%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"text\")\n",
            folder.display(),
            out.display()
        );
        std::fs::write(&configuration, text)?;
        Ok(Self {
            configuration,
            pid: folder.join("rsyslog.pid"),
            out,
            port,
        })
    }

    fn start(&self) -> Result<Process> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "rsyslogd", "-n", "-f"])
            .arg(&self.configuration)
            .arg("-i")
            .arg(&self.pid)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::spawn(&mut command)?;
        wait_for(self.port).context("rsyslogd did not start; make setup installs it")?;
        Ok(process)
    }

    /// How many of these targets it has no event of, and how many events came again.
    fn missing(&self, targets: &BTreeSet<String>) -> Result<(usize, u64)> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let (mut paths, mut ids) = (BTreeSet::new(), BTreeMap::<String, u64>::new());
        for line in whole.lines() {
            let begin = line.find('{').context("no JSON")?;
            let event = Event::parse(&line[begin..])?;
            paths.insert(event.path);
            *ids.entry(event.id).or_default() += 1;
        }
        let missing = targets.iter().filter(|it| !paths.contains(*it)).count();
        Ok((missing, ids.values().map(|times| times - 1).sum()))
    }
}
