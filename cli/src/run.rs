//! `clew run`: everything that needs rights first, then none.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use clew_bans::Keeper;
use clew_correlator::profile::Profile;
use clew_protocol::request::ProxyRecord;
use clew_protocol::{Moment, ProxyId, Sequence, TokenKey};
use clew_proxy::{Announcer, Edge, Handle, RulesConfig, StopCount, Tagging};
use clew_sensor::{LoadError, Mode, Sensor, Service};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::Desk;
use crate::api::serve::Sockets;
use crate::api::status::{About, ServiceStatus};
use crate::audit::Audit;
use crate::banning;
use crate::barrier;
use crate::beat::Latest;
use crate::config::{Configuration, SensorConfiguration};
use crate::inspection::Inspection;
use crate::log;
use crate::privilege::{Account, drop_all, prepare_state};
use crate::store::{Store, Writer};
use crate::tend::{Learning, Tender, correlator};

/// Request records that may wait for the correlator: at 50,000 requests a second and two
/// records each, a stall of 650 ms.
const QUEUE: usize = 65_536;
/// The proxy of a single host.
const PROXY: ProxyId = ProxyId(1);

/// The kernel side, loaded, and what it needs to be tended.
struct Kernel {
    sensor: Sensor,
    records: Receiver<ProxyRecord>,
    settings: SensorConfiguration,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(configuration: Configuration) -> Result<()> {
    let account = Account::find(&configuration.user)?;
    prepare_state(&configuration.state, account.as_ref())?;
    let (mut kernel, tagging) = load(&configuration)?.unzip();
    let rules = configuration.inspection.as_ref().map(Inspection::open);
    let edge = Edge::bind(edge_config(&configuration, tagging, rules.transpose()?))?;
    for socket in edge.sockets()? {
        if let Some(kernel) = &mut kernel {
            let told = kernel.sensor.pass_over(&socket);
            told.context("the kernel cannot be told which sockets the proxy listens on")?;
        }
    }
    if let Some(kernel) = &mut kernel
        && !configuration.ban_interfaces.is_empty()
    {
        let ports: Vec<u16> = edge
            .handle()
            .addresses()
            .iter()
            .map(SocketAddr::port)
            .collect();
        let interfaces = &configuration.ban_interfaces;
        let raised = kernel.sensor.raise_barrier(interfaces, &ports);
        let barrier = raised.context("ban.interfaces: banned sources cannot be refused there")?;
        barrier::raise(&edge.handle(), barrier);
    }
    let admin = Sockets::bind(
        &configuration.state,
        configuration.admin.as_ref(),
        configuration.observe,
    )?;
    let store = Store::open(&configuration.state)?;
    let desk = desk(&configuration, &edge.handle(), kernel.as_ref(), &store)?;
    if let Some(account) = &account {
        give_away(&configuration.state, admin.path(), account, kernel.as_ref())?;
    }
    let sensor = kernel.is_some();
    if sensor {
        run_soon(VERDICTS);
    }
    drop_all(account.as_ref())?;

    // From here on there are threads, and no rights.
    let handle = edge.handle();
    stop_on_signal(handle.clone())?;
    let (bans, latest) = (desk.bans.clone(), desk.latest.clone());
    bans.start()?;
    let socket = admin.serve(desk)?;
    let stop = Arc::new(AtomicBool::new(false));
    // The last that can fail: an error after it would leave the programs in the kernel.
    let tender = kernel
        .map(|it| {
            tend(
                it,
                &configuration,
                store,
                &handle,
                &stop,
                (bans.clone(), latest),
            )
        })
        .transpose()?;
    if sensor {
        run_soon(EDGE);
    }
    let _log = log::queue();
    if let Some(inspection) = &configuration.inspection {
        inspection.introduce();
    }
    for address in handle.addresses() {
        tracing::info!(%address, sensor, "listening");
    }
    let served = edge.serve();
    stop.store(true, Ordering::Release);
    let tended = tender.map_or(Ok(()), |thread| {
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the correlator thread panicked")))
    });
    bans.stop();
    let _ = std::fs::remove_file(socket);
    served?;
    tended?;
    if configuration.keeps_programs() {
        tracing::info!("stopped; the programs stay at work until clew runs again");
    } else {
        tracing::info!("stopped; nothing is left in the kernel");
    }
    Ok(())
}

/// Nice value of the correlator's thread: it sleeps until the kernel has decided something, and
/// then nothing is more urgent.
const VERDICTS: i32 = -20;
/// Nice value of the edge's threads: a verdict is carried out when they run.
const EDGE: i32 = -10;

/// Has this thread, and those that it starts, run before other work. Taken before rights are
/// dropped; taking less later needs none.
fn run_soon(nice: i32) {
    if let Err(error) = clew_sensor::run_soon(nice) {
        tracing::debug!(%error, "verdicts have no priority over other work");
    }
}

/// Loads the programs, where the configuration has a sensor.
fn load(configuration: &Configuration) -> Result<Option<(Kernel, Tagging)>> {
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
    };
    Ok(Some((
        Kernel {
            sensor,
            records,
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

fn edge_config(
    configuration: &Configuration,
    tagging: Option<Tagging>,
    rules: Option<RulesConfig>,
) -> clew_proxy::Config {
    clew_proxy::Config {
        listeners: configuration.listeners.clone(),
        inherited: Vec::new(),
        services: configuration.services.clone(),
        limits: configuration.limits.clone(),
        trusted_hops: configuration.trusted_hops.clone(),
        shared_addresses: configuration.shared_addresses.clone(),
        threads: configuration.threads,
        tagging,
        rules,
        reports: None,
        pages: Default::default(),
        shutdown_grace: configuration.shutdown_grace,
    }
}

/// What the admin API looks at and acts on; with it the bans of an earlier run are in force again.
fn desk(
    configuration: &Configuration,
    handle: &Handle,
    kernel: Option<&Kernel>,
    store: &Store,
) -> Result<Desk> {
    let state = &configuration.state;
    let (policy, capacity) = (configuration.bans.clone(), configuration.limits.bans);
    let services = configuration.services.iter().map(|service| ServiceStatus {
        name: service.name.clone(),
        hosts: service.hosts.clone(),
        upstreams: service.upstreams.iter().map(ToString::to_string).collect(),
    });
    let missing = kernel.map(|it| it.sensor.missing()).unwrap_or_default();
    let rules = configuration.inspection.as_ref();
    Ok(Desk {
        bans: banning::open(state, policy, capacity, handle.clone())?,
        handle: handle.clone(),
        latest: Latest::default(),
        incidents: store.recent(),
        about: About {
            started: Moment::now(),
            mode: kernel.map(|it| name_of(it.settings.mode).to_owned()),
            services: services.collect(),
            rules: rules.map(|it| it.rules.rules().len()),
            missing: missing.iter().map(|it| (*it).to_owned()).collect(),
            dry_run: configuration.bans.dry_run,
        },
        audit: Audit::open(state)?,
        state: state.clone(),
    })
}

fn name_of(mode: Mode) -> &'static str {
    match mode {
        Mode::Observe => "observe",
        Mode::Learn => "learn",
        Mode::Enforce => "enforce",
    }
}

/// Makes the account the owner of all that it will have to write or remove.
fn give_away(state: &Path, admin: &Path, account: &Account, kernel: Option<&Kernel>) -> Result<()> {
    prepare_state(state, Some(account))?;
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    chown(admin, Some(uid), Some(gid)).context("cannot hand over the admin socket")?;
    if let Some(kernel) = kernel {
        kernel
            .sensor
            .give_pins_to(uid, gid)
            .context("cannot hand over the pinned programs")?;
    }
    Ok(())
}

fn tend(
    kernel: Kernel,
    configuration: &Configuration,
    store: Store,
    handle: &Handle,
    stop: &Arc<AtomicBool>,
    (bans, sums): (Keeper, Latest),
) -> Result<JoinHandle<Result<()>>> {
    let settings = kernel.settings;
    let tender = Tender {
        sensor: kernel.sensor,
        records: kernel.records,
        handle: handle.clone(),
        bans,
        writer: Writer::start(store)?,
        correlator: correlator(
            configuration.ban,
            configuration.bans.span,
            settings.redact_environment,
        ),
        learning: learning(&settings)?,
        keep_programs: settings.keep_programs,
        sums,
    };
    let stop = stop.clone();
    let thread = std::thread::Builder::new().name("clew-correlator".to_owned());
    let handle = handle.clone();
    Ok(thread.spawn(move || {
        let _last = StopWithTender(handle);
        let result = tender.run(&stop);
        if let Err(error) = &result {
            tracing::error!(error = format!("{error:#}"), "correlator failed; stopping");
        }
        result
    })?)
}

/// Without a correlator nothing is attributed, and without its sensor nothing stopped: however its
/// thread ends, by a panic too, the edge stops rather than seem to protect.
struct StopWithTender(Handle);

impl Drop for StopWithTender {
    fn drop(&mut self) {
        self.0.shutdown();
    }
}

/// In learn mode: the profile so far.
fn learning(settings: &SensorConfiguration) -> Result<Option<Learning>> {
    if settings.mode != Mode::Learn {
        return Ok(None);
    }
    let profile = match std::fs::read_to_string(&settings.profile) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} is no profile", settings.profile.display()))?,
        Err(error) if error.kind() == ErrorKind::NotFound => Profile::default(),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot read {}", settings.profile.display()));
        }
    };
    Ok(Some(Learning {
        profile,
        path: settings.profile.clone(),
        changed: false,
    }))
}

/// SIGTERM and SIGINT end the edge, and with it the process.
fn stop_on_signal(handle: Handle) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let thread = std::thread::Builder::new().name("clew-signals".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        });
        tracing::info!("stopping: requests in flight finish");
        handle.shutdown();
    })?;
    Ok(())
}

fn random_key() -> Result<[u8; 16]> {
    let mut key = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context("cannot read /dev/urandom")?;
    Ok(key)
}
