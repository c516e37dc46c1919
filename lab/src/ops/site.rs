//! What the cases play on: nginx, a service with a command injection, and clews in front of them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::events::Event;
use crate::backend::{Backend, Kind};
use crate::clew::{Clew, free_port};
use crate::process::{Process, mortal};

/// How long anything may take that has to happen.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Of the service that can be attacked.
pub(super) const WEAK: &str = "weak";
/// Of the one that takes all else.
pub(super) const SHOP: &str = "shop";

/// The services, and where everything is.
pub(super) struct Site {
    pub(super) work: PathBuf,
    pub(super) binary: PathBuf,
    /// Clews have a sensor.
    pub(super) is_root: bool,
    pub(super) weak: Backend,
    shop: u16,
    _nginx: Process,
}

/// A case: a clew's configuration, and its state.
pub(super) struct Case {
    pub(super) configuration: PathBuf,
    pub(super) state: PathBuf,
    pub(super) to: SocketAddr,
    binary: PathBuf,
}

impl Site {
    pub(super) fn start(binary: &Path, work: &Path) -> Result<Self> {
        let (nginx, shop) = nginx(work)?;
        Ok(Self {
            work: work.to_owned(),
            binary: std::path::absolute(binary)?,
            is_root: rustix::process::geteuid().is_root(),
            weak: Backend::start(Kind::Injection, work)?,
            shop,
            _nginx: nginx,
        })
    }

    /// Writes the configuration of a case; `more` is what it has beside listener, services and state.
    pub(super) fn case(&self, name: &str, sensor: bool, more: &str) -> Result<Case> {
        let port = free_port()?;
        let configuration = self.work.join(format!("{name}.conf"));
        let state = self.work.join(name);
        let (shop, weak) = (self.shop, self.weak.port);
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:{port}\"\n\
             [[service]]\nname = \"{SHOP}\"\nupstreams = [\"127.0.0.1:{shop}\"]\n\
             [[service]]\nname = \"{WEAK}\"\nhosts = [\"{WEAK}\"]\nupstreams = [\"127.0.0.1:{weak}\"]\n\
             [sensor]\nenabled = {sensor}\n[state]\ndirectory = \"{}\"\n{more}",
            state.display()
        );
        std::fs::write(&configuration, text)?;
        Ok(Case {
            configuration,
            state,
            to: (Ipv4Addr::LOCALHOST, port).into(),
            binary: self.binary.clone(),
        })
    }
}

impl Case {
    pub(super) fn start(&self) -> Result<Clew> {
        let (port, state) = (self.to.port(), self.state.clone());
        Clew::start_with(&self.binary, &self.configuration, port, "enforce", state)
    }

    /// What the admin API says of bans, on all pages.
    pub(super) fn bans(&self) -> Result<Vec<Value>> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = super::admin::done(&self.state, "GET", &format!("/v1/bans{after}"), "")?;
            all.extend(page["bans"].as_array().context("no bans")?.iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("?after={next}"),
                None => return Ok(all),
            }
        }
    }
}

/// Events of a file sink.
pub(super) fn events(path: &Path) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("no events at {}", path.display()))?;
    text.lines().map(Event::parse).collect()
}

/// Waits until it is so.
pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits until somebody listens.
pub(super) fn wait_for(port: u16) -> Result<()> {
    wait_until("it listens", || {
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    })
}

/// As Debian has it, but for what it answers; one process, which ends with this one.
fn nginx(work: &Path) -> Result<(Process, u16)> {
    let port = free_port()?;
    let at = work.display();
    let configuration = work.join("nginx.conf");
    let text = format!(
        "daemon off;\nmaster_process off;\npid {at}/nginx.pid;\nerror_log {at}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {at}/nginx-body; proxy_temp_path {at}/nginx-proxy;\n\
         fastcgi_temp_path {at}/nginx-fastcgi; uwsgi_temp_path {at}/nginx-uwsgi; scgi_temp_path {at}/nginx-scgi;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"the shop\\n\"; }} }} }}\n"
    );
    std::fs::write(&configuration, text)?;
    let mut command = mortal("/usr/sbin/nginx");
    command.arg("-c").arg(&configuration);
    let process = Process::spawn(&mut command)?;
    wait_for(port).context("nginx did not start; make setup installs it")?;
    Ok((process, port))
}

/// Binds where something listened before; connections of that time may linger.
pub(super) fn bind_again(address: SocketAddr) -> Result<TcpListener> {
    let mut listener = None;
    wait_until("the address is free", || {
        // The standard library sets SO_REUSEADDR.
        listener = TcpListener::bind(address).ok();
        Ok(listener.is_some())
    })?;
    listener.context("no listener")
}
