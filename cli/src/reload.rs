//! The configuration read anew while Clew runs. Rules, packs, limits, policy and certificates are put in force; what
//! else has changed is named, and takes a restart.
//!
//! All of it is read, compiled and tried beside what is in force. What cannot be used changes nothing.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clew_bans::{Keeper, Measure};
use clew_packs::{PackName, Trial};
use clew_protocol::TokenKey;
use clew_protocol::report::PackVersion;
use clew_proxy::{Handle, RateLimits};
use clew_sensor::PolicyTables;
use semver::Version;

use crate::config::{self, Configuration, Overrides};

/// How long reading, compiling and trying may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the correlator's thread may take to enter a policy.
const ENTERING: Duration = Duration::from_secs(5);
/// How long all of it may take.
pub(crate) const LONGEST: Duration = PATIENCE.saturating_add(ENTERING);

/// Where the configuration is from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: Option<PathBuf>,
    pub(crate) overrides: Overrides,
}

impl Source {
    /// Reads and checks it.
    pub(crate) fn load(&self) -> Result<Configuration> {
        match &self.path {
            Some(path) => config::load(path, &self.overrides),
            None => config::from_command_line(&self.overrides),
        }
    }

    /// The same with a candidate among the packs.
    fn with(&self, name: PackName, version: Option<Version>) -> Self {
        let mut source = self.clone();
        source.overrides.candidate = Some((name, version));
        source
    }

    /// Reads it, and tries the packs that are not in `known`, on a thread of its own: what takes too long is given
    /// up.
    fn tried(&self, known: &[PackVersion]) -> Result<Configuration> {
        let (send, receive) = sync_channel(1);
        let (source, known) = (self.clone(), known.to_vec());
        let thread = std::thread::Builder::new().name("clew-reload".to_owned());
        thread.spawn(move || {
            let loaded = source.load().and_then(|configuration| {
                try_packs(&configuration, &known)?;
                Ok(configuration)
            });
            let _ = send.send(loaded);
        })?;
        match receive.recv_timeout(PATIENCE) {
            Ok(loaded) => loaded,
            Err(RecvTimeoutError::Timeout) => bail!(
                "not ready after {} s; what was in force is in force",
                PATIENCE.as_secs()
            ),
            Err(RecvTimeoutError::Disconnected) => bail!("reading it has failed; see the log"),
        }
    }
}

/// Runs the tests of the packs that are new.
fn try_packs(configuration: &Configuration, known: &[PackVersion]) -> Result<()> {
    for pack in &configuration.packs {
        let id = pack.id();
        if known.contains(&id.reported()) {
            continue;
        }
        let trial = Trial::of(pack).map_err(|errors| anyhow!("{id}: {}", errors.join("; ")))?;
        if let Some(failure) = trial.failures.first() {
            bail!(
                "{id}: {} of its tests fail, the first is {}: {}",
                trial.failures.len(),
                failure.test,
                failure.reason
            );
        }
    }
    Ok(())
}

/// A policy for the correlator's thread, which keeps the sensor, and where its word on it goes.
pub(crate) type PolicyChange = (PolicyTables, SyncSender<Result<(), String>>);

/// The way to the programs' policy.
pub(crate) struct PolicyDesk {
    pub(crate) key: TokenKey,
    pub(crate) changes: SyncSender<PolicyChange>,
}

/// Puts in force what is read anew.
pub(crate) struct Reloader {
    source: Source,
    handle: Handle,
    bans: Keeper,
    /// None without a sensor.
    policy: Option<PolicyDesk>,
    /// One at a time; and what was in force at start, table by table, in words.
    at_start: Mutex<Vec<(&'static str, String)>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Reloaded {
    pub(crate) rules: Option<usize>,
    pub(crate) packs: Vec<PackVersion>,
    pub(crate) warnings: Vec<String>,
    /// Tables that have changed, and are in force after a restart only.
    pub(crate) restart: Vec<&'static str>,
    pub(crate) took: Duration,
}

impl Reloader {
    pub(crate) fn new(
        source: Source,
        (handle, bans): (Handle, Keeper),
        policy: Option<PolicyDesk>,
        configuration: &Configuration,
    ) -> Self {
        Self {
            source,
            handle,
            bans,
            policy,
            at_start: Mutex::new(fixed(configuration)),
        }
    }

    /// Reads everything anew.
    ///
    /// # Errors
    ///
    /// What is wrong; rules, limits and bans are as before then. Certificates come first, and may have been read anew.
    pub(crate) fn reload(&self) -> Result<Reloaded> {
        let begun = Instant::now();
        let at_start = self.turn();
        let before = self.handle.rules().context("the edge has no rules")?;
        let configuration = self.source.tried(&before.packs)?;
        self.handle.reload_certificates()?;
        self.enter_policy(&configuration)?;
        self.bans.set_measure(configuration.bans.measure);
        let inspection = &configuration.inspection;
        self.handle.set_rules(inspection.rulebook(&before.limits));
        inspection.introduce();
        let now = fixed(&configuration);
        let changed = now.iter().zip(at_start.iter());
        let warnings = inspection.compiled.rules.warnings().iter();
        Ok(Reloaded {
            rules: inspection.rules(),
            packs: inspection.compiled.packs.to_vec(),
            warnings: warnings.map(ToString::to_string).collect(),
            restart: changed
                .filter(|(now, then)| now != then)
                .map(|(now, _)| now.0)
                .collect(),
            took: begun.elapsed(),
        })
    }

    /// Has a pack judge live requests, without effect, beside what is in force.
    ///
    /// # Errors
    ///
    /// It is not installed, or cannot be in force.
    pub(crate) fn shadow(
        &self,
        name: PackName,
        version: Option<Version>,
    ) -> Result<Vec<PackVersion>> {
        let _turn = self.turn();
        let configuration = self.source.with(name, version).tried(&[])?;
        let candidate = configuration.inspection.rulebook(&RateLimits::default());
        let packs = candidate.packs.to_vec();
        let is_set = self.handle.set_shadow(Some(candidate))?;
        ensure!(is_set, "the edge has no rules");
        Ok(packs)
    }

    fn turn(&self) -> MutexGuard<'_, Vec<(&'static str, String)>> {
        self.at_start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter_policy(&self, configuration: &Configuration) -> Result<()> {
        let (Some(desk), Some(sensor)) = (&self.policy, &configuration.sensor) else {
            return Ok(());
        };
        let tables = PolicyTables::of(&sensor.policy, &desk.key);
        let (answer, answered) = sync_channel(1);
        let sent = desk.changes.try_send((tables, answer));
        sent.map_err(|_| anyhow!("the sensor's keeper is busy; try again"))?;
        let entered = answered.recv_timeout(ENTERING);
        let entered = entered.context("the sensor's keeper does not answer")?;
        entered.map_err(|error| anyhow!("the policy is not in force: {error}"))
    }
}

/// Of bans all but how offences are punished.
fn bans(configuration: &Configuration) -> String {
    let bans = clew_bans::Policy {
        measure: Measure {
            by_verdict: false,
            span: Duration::ZERO,
            escalation: 1,
            longest: Duration::ZERO,
        },
        ..configuration.bans.clone()
    };
    format!("{bans:?} {:?}", configuration.ban_interfaces)
}

/// What a restart alone changes, in words.
fn fixed(configuration: &Configuration) -> Vec<(&'static str, String)> {
    let it = configuration;
    let sensor = it.sensor.as_ref().map(|sensor| {
        let limits = (
            sensor.fallback_mode,
            sensor.heartbeat_limit,
            sensor.hold_span,
        );
        let places = (&sensor.cgroup, &sensor.profile, sensor.trace_opens);
        (sensor.mode, limits, places, sensor.keep_programs)
    });
    vec![
        ("listener", format!("{:?}", it.listeners)),
        ("service", format!("{:?}", it.services)),
        ("limits", format!("{:?}", it.limits)),
        (
            "trust",
            format!("{:?} {:?}", it.trusted_hops, it.shared_addresses),
        ),
        ("sensor", format!("{sensor:?}")),
        ("ban", bans(it)),
        ("log", format!("{:?}", it.log)),
        ("spans", format!("{:?}", it.spans)),
        ("fail", format!("{:?}", it.fail)),
        ("pages", format!("{:?}", it.pages)),
        ("admin", format!("{:?} {:?}", it.admin, it.observe)),
        ("state", format!("{:?} {}", it.state, it.user)),
        (
            "edge",
            format!("{} {:?} {:?}", it.threads, it.shutdown_grace, it.access_log),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::schema;

    #[test]
    fn each_table_is_put_in_force_or_named() {
        let overrides = Overrides {
            upstreams: vec![std::net::SocketAddr::from(([127, 0, 0, 1], 1))],
            ..Overrides::default()
        };
        let configuration = config::from_command_line(&overrides).expect("configuration");
        let mut known: Vec<&str> = fixed(&configuration).iter().map(|it| it.0).collect();
        known.extend(["rules", "packs", "allow"]);
        // Named by the tables that they belong to: `admin` and `log`.
        known.extend(["observe", "log_spool"]);
        let schema = schema();
        let tables = schema["properties"].as_object().expect("tables");
        let missing: Vec<_> = tables
            .keys()
            .filter(|it| !known.contains(&it.as_str()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
