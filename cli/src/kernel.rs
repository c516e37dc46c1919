//! The kernel side of `clew run`: loaded while there are rights to.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result, anyhow};
use clew_protocol::request::ProxyRecord;
use clew_protocol::{Moment, ProxyId, Sequence, TokenKey};
use clew_proxy::{Announcer, Handle, StopCount, Tagging};
use clew_sensor::{LoadError, Sensor, Service};

use crate::barrier;
use crate::config::{Configuration, SensorConfiguration};
use crate::raw::OpenOrClosed;
use crate::reload::{PolicyChange, PolicyDesk};

/// Request records that may wait for the correlator: at 50,000 requests a second and two
/// records each, a stall of 650 ms.
const QUEUE: usize = 65_536;
/// The proxy of a single host.
const PROXY: ProxyId = ProxyId(1);

/// The kernel side, loaded, and what it needs to be tended.
pub(crate) struct Kernel {
    pub(crate) sensor: Sensor,
    pub(crate) records: Receiver<ProxyRecord>,
    pub(crate) policies: Receiver<PolicyChange>,
    changes: SyncSender<PolicyChange>,
    key: TokenKey,
    pub(crate) settings: SensorConfiguration,
}

impl Kernel {
    /// The way to its policy.
    pub(crate) fn policy(&self) -> PolicyDesk {
        PolicyDesk {
            key: self.key.clone(),
            changes: self.changes.clone(),
        }
    }
    /// Has the programs pass over what comes in at `sockets`, and the banned refused at `interfaces` for the edge's
    /// ports.
    pub(crate) fn prepare<'s>(
        &mut self,
        sockets: impl Iterator<Item = &'s TcpListener>,
        interfaces: &[String],
        handle: &Handle,
    ) -> Result<()> {
        for socket in sockets {
            let told = self.sensor.pass_over(socket);
            told.context("the kernel cannot be told which sockets the proxy listens on")?;
        }
        if interfaces.is_empty() {
            return Ok(());
        }
        let ports: Vec<u16> = handle.addresses().iter().map(SocketAddr::port).collect();
        let raised = self.sensor.raise_barrier(interfaces, &ports);
        let barrier = raised.context("ban.interfaces: banned sources cannot be refused there")?;
        barrier::raise(handle, barrier);
        Ok(())
    }
}

/// Loads the programs, where the configuration has a sensor.
pub(crate) fn load(configuration: &Configuration) -> Result<Option<(Kernel, Tagging)>> {
    let Some(settings) = configuration.sensor.clone() else {
        return Ok(None);
    };
    let key = TokenKey::new(random_key()?);
    let services = configuration.services.iter().map(|service| Service {
        name: service.name.clone(),
        ports: service
            .upstreams
            .iter()
            .map(|upstream| upstream.port())
            .collect(),
        is_opaque: service.is_opaque(),
    });
    let sensor = Sensor::load(&clew_sensor::Config {
        key: key.clone(),
        proxy: PROXY,
        mode: settings.mode,
        fallback_mode: settings.fallback_mode,
        heartbeat_limit: settings.heartbeat_limit,
        services: services.collect(),
        policy: settings.policy.clone(),
        trace_opens: settings.trace_opens,
        cgroup: settings.cgroup.clone(),
    });
    let sensor = sensor.inspect(|sensor| {
        for what in sensor.missing() {
            tracing::info!("not in this kernel: {what}");
        }
    });
    if let Err(error) = &sensor
        && configuration.fail.sensor == OpenOrClosed::Open
    {
        let error = format!("{:#}", anyhow!("{error}"));
        tracing::error!(
            error,
            "the programs cannot be loaded: the edge serves alone (fail.sensor = open); nothing sees what requests do"
        );
        return Ok(None);
    }
    let sensor = sensor.map_err(|error| {
        let hint = match &error {
            LoadError::NoRights => "",
            _ => "; `clew doctor` looks at each step",
        };
        anyhow!(error).context(format!(
            "the kernel side cannot start{hint}; `clew run --no-sensor` runs the edge alone, \
             without protection from what requests do"
        ))
    })?;
    clear_up();
    let (changes, policies) = sync_channel(1);
    let own_key = key.clone();
    let (send, records) = sync_channel(QUEUE);
    let (stops, announcer) = (sensor.stops(), sensor.announcer());
    let tagging = Tagging {
        key,
        proxy: PROXY,
        // Microseconds since the kernel started: no proxy serves as many requests.
        first: Sequence(Moment::now().0 / 1000),
        records: send,
        announcer: Announcer::new(move |it| {
            announcer.announce(it.local, it.peer, it.service, it.sequence)
        }),
        stops: StopCount::new(move || stops.total()),
        hold_span: settings.hold_span,
        overdue: configuration.fail.verdict.into(),
        unrecorded: configuration.fail.record.into(),
    };
    Ok(Some((
        Kernel {
            sensor,
            records,
            policies,
            changes,
            key: own_key,
            settings,
        },
        tagging,
    )))
}

/// Removes programs that a Clew which was killed has left at work, now that new ones are: they would
/// go on to judge by its policy.
fn clear_up() {
    match clew_sensor::clean() {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => tracing::info!(
            directories = removed.len(),
            "programs of a clew that was killed are removed"
        ),
        Err(error) => tracing::warn!(%error, "programs of a clew that was killed remain"),
    }
}

/// Nice value of the correlator's thread: it sleeps until the kernel has decided something, and
/// then nothing is more urgent.
pub(crate) const VERDICTS: i32 = -20;
/// Nice value of the edge's threads: a verdict is carried out when they run.
pub(crate) const EDGE: i32 = -10;

/// Has this thread, and those that it starts, run before other work. Taken before rights are
/// dropped; taking less later needs none.
pub(crate) fn run_soon(nice: i32) {
    if let Err(error) = clew_sensor::run_soon(nice) {
        tracing::debug!(%error, "verdicts have no priority over other work");
    }
}

fn random_key() -> Result<[u8; 16]> {
    let mut key = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context("cannot read /dev/urandom")?;
    Ok(key)
}
