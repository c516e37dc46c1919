//! Clew itself, as a user would start it.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clew_protocol::incident::Incident;
use serde_json::Value;

use crate::process::Process;

/// How long it may take to start. Loading its programs takes a second or two where the machine has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `clew run`.
pub(crate) struct Clew {
    pub(crate) port: u16,
    pub(crate) state: PathBuf,
    binary: PathBuf,
    process: Process,
    /// How it was started, for one that takes its place.
    words: Vec<OsString>,
}

impl Clew {
    pub(crate) fn start(binary: &Path, upstream: u16, mode: &str, state: PathBuf) -> Result<Self> {
        Self::configured(binary, upstream, mode, state, "")
    }

    /// As [`Clew::start`], with a configuration file that holds `config`.
    pub(crate) fn configured(
        binary: &Path,
        upstream: u16,
        mode: &str,
        state: PathBuf,
        config: &str,
    ) -> Result<Self> {
        let file = state.with_extension("toml");
        std::fs::write(&file, config)?;
        let port = free_port()?;
        let (listen, upstream) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{upstream}"));
        let more = ["--listen", &listen, "--upstream", &upstream];
        Self::launch(binary, &file, port, mode, state, &more)
    }

    /// Starts it with a configuration file that has it listen on `port`.
    pub(crate) fn start_with(
        binary: &Path,
        configuration: &Path,
        port: u16,
        mode: &str,
        state: PathBuf,
    ) -> Result<Self> {
        Self::launch(binary, configuration, port, mode, state, &[])
    }

    fn launch(
        binary: &Path,
        configuration: &Path,
        port: u16,
        mode: &str,
        state: PathBuf,
        more: &[&str],
    ) -> Result<Self> {
        let mut words: Vec<OsString> = ["run", "--mode", mode, "--config"].map(Into::into).into();
        words.push(configuration.into());
        words.push("--state".into());
        words.push(state.clone().into());
        words.extend(more.iter().map(Into::into));
        let process = spawn(binary, &words, &state)?;
        let mut clew = Self {
            port,
            state,
            binary: binary.to_owned(),
            process,
            words,
        };
        clew.wait_until_up()?;
        Ok(clew)
    }

    /// Has another one take its place, and returns when that one serves. This one must end well.
    pub(crate) fn take_over(self) -> Result<Self> {
        let mut words = self.words.clone();
        words.push("--take-over".into());
        let process = spawn(&self.binary, &words, &self.state)?;
        let mut next = Self {
            process,
            port: self.port,
            state: self.state.clone(),
            binary: self.binary.clone(),
            words: self.words.clone(),
        };
        ensure!(
            self.process.wait(PATIENCE)?,
            "the clew that was replaced ended badly:\n{}",
            next.log()?
        );
        next.wait_until("it listens", |clew| Ok(clew.log()?.contains("listening")))?;
        Ok(next)
    }

    /// Kills it: what it has in memory is lost, and its programs stay in the kernel until the next one starts.
    pub(crate) fn kill(self) -> Result<()> {
        self.process.kill()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has logged since it was started.
    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.state.with_extension("log"))?)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let port = self.port;
        self.wait_until("it listens", |_| {
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            if !self.process.is_running() || Instant::now() > deadline {
                bail!("clew did not start ({what}):\n{}", self.log()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// All incidents so far, each in its last revision.
    pub(crate) fn incidents(&self) -> Result<Vec<Incident>> {
        let shown = self.ask(&["incidents", "list", "--json"])?;
        Ok(serde_json::from_str(&shown)?)
    }

    /// Waits for `count` incidents.
    pub(crate) fn wait_incidents(&self, count: usize) -> Result<Vec<Incident>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let incidents = self.incidents()?;
            if incidents.len() >= count {
                return Ok(incidents);
            }
            ensure!(
                Instant::now() < deadline,
                "{} of {count} incidents reported",
                incidents.len()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sources of which packets were dropped, and how long after the ban the first was, milliseconds.
    pub(crate) fn dropped(&self) -> Result<Vec<(IpAddr, f64)>> {
        let bans: Value = serde_json::from_str(&self.ask(&["bans", "list", "--json"])?)?;
        let bans = bans["bans"].as_array().context("no list of bans")?;
        let dropped = bans.iter().filter_map(|ban| {
            let after = ban["dropped"]["first_after_ms"].as_f64()?;
            Some((ban["source"].as_str()?.parse().ok()?, after))
        });
        Ok(dropped.collect())
    }

    /// What it has counted.
    pub(crate) fn counters(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["counters", "--json"])?)?)
    }

    /// The tree of an incident, as a person sees it.
    pub(crate) fn tree(&self, incident: &Incident) -> Result<String> {
        self.ask(&["incidents", "show", &incident.id.to_string()])
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let done = Command::new(&self.binary)
            .args(words)
            .arg("--state")
            .arg(&self.state)
            .output()?;
        ensure!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Stops it; it must end well.
    pub(crate) fn stop(self) -> Result<()> {
        let log = self.state.with_extension("log");
        ensure!(
            self.process.stop()?,
            "clew ended badly; its log is {}",
            log.display()
        );
        Ok(())
    }
}

/// Starts it with a log of its own; one that it replaces goes on with the file that it has open.
fn spawn(binary: &Path, words: &[OsString], state: &Path) -> Result<Process> {
    let path = state.with_extension("log");
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    let mut command = Command::new(binary);
    let log = std::fs::File::create(path)?;
    command.args(words).stdout(Stdio::null()).stderr(log);
    Process::spawn(&mut command).context("build it first: cargo build --release")
}

/// A port that nobody listens on, at any address. It is none of those that the kernel gives to clients: one of them could
/// have it before whoever asked is there.
pub(crate) fn free_port() -> Result<u16> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
    let mut ports = std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).take(1000);
    ports.find(is_free).context("no port is free")
}
