//! `clew run`: everything that needs rights first, then none.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clew_bans::Keeper;
use clew_blocklog::BlockLog;
use clew_correlator::profile::Profile;
use clew_protocol::request::ProxyRecord;
use clew_protocol::{Moment, ProxyId, Sequence, TokenKey};
use clew_proxy::{Announcer, Edge, Handle, Offenders, Reports, StopCount, Tagging};
use clew_sensor::{LoadError, Mode, Sensor, Service};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::access::AccessLog;
use crate::api::Desk;
use crate::api::serve::Sockets;
use crate::api::status::{About, ServiceStatus};
use crate::audit::Audit;
use crate::banning;
use crate::barrier;
use crate::beat::{Beat, Latest};
use crate::config::{Configuration, SensorConfiguration};
use crate::handover::{self, Offer};
use crate::log;
use crate::privilege::{Account, drop_all, prepare_state};
use crate::reload::{PolicyChange, PolicyDesk, Reloader, Source};
use crate::store::{Store, Writer};
use crate::tend::{Learning, Tender, correlator};

/// Request records that may wait for the correlator: at 50,000 requests a second and two
/// records each, a stall of 650 ms.
const QUEUE: usize = 65_536;
/// How long events may take to reach the sinks of the block log when Clew stops; what is in the spool waits for the next
/// start.
const FAREWELL: Duration = Duration::from_secs(5);
/// The proxy of a single host.
const PROXY: ProxyId = ProxyId(1);

/// The kernel side, loaded, and what it needs to be tended.
struct Kernel {
    sensor: Sensor,
    records: Receiver<ProxyRecord>,
    policies: Receiver<PolicyChange>,
    changes: SyncSender<PolicyChange>,
    key: TokenKey,
    settings: SensorConfiguration,
}

impl Kernel {
    /// The way to its policy.
    fn policy(&self) -> PolicyDesk {
        PolicyDesk {
            key: self.key.clone(),
            changes: self.changes.clone(),
        }
    }
}

/// Runs until SIGTERM or SIGINT, or until another takes over.
pub(crate) fn run(source: Source, take_over: bool) -> Result<()> {
    let configuration = source.load()?;
    let account = Account::find(&configuration.user)?;
    let inherited = inherited(&configuration, take_over)?;
    prepare_state(&configuration.state, account.as_ref())?;
    let opened = BlockLog::open(configuration.log.clone())?;
    let (mut kernel, tagging) = load(&configuration)?.unzip();
    let ears = Ears::default();
    let access = configuration.access_log.as_deref().map(AccessLog::open);
    let (access, accesses) = access.transpose()?.unzip();
    let policy = kernel.as_ref().map(|it| it.policy());
    let edge = Edge::bind(clew_proxy::Config {
        inherited,
        accesses,
        reports: configuration.has_log().then(|| ears.reports()),
        offenders: Some(ears.offenders()),
        ..edge_config(&configuration, tagging)?
    })?;
    let admin = Sockets::bind(
        &configuration.state,
        configuration.admin.as_ref(),
        configuration.observe,
    )?;
    for socket in edge.sockets()?.iter().chain(admin.tcp()) {
        if let Some(kernel) = &mut kernel {
            let told = kernel.sensor.pass_over(socket);
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
    let offer = Offer::bind(&configuration.state)?;
    let store = Store::open(&configuration.state)?;
    let reloader = Reloader::new(source, edge.handle(), policy, &configuration);
    let reloader = Arc::new(reloader);
    let desk = desk(
        &configuration,
        &edge.handle(),
        kernel.as_ref(),
        &store,
        reloader.clone(),
    )?;
    if let Some(account) = &account {
        let sockets = [admin.path(), offer.path()];
        give_away(&configuration, &sockets, account, kernel.as_ref())?;
    }
    let sensor = kernel.is_some();
    if sensor {
        run_soon(VERDICTS);
    }
    drop_all(account.as_ref())?;

    // From here on there are threads, and no rights.
    let handle = edge.handle();
    heed_signals(handle.clone(), reloader)?;
    let (bans, latest) = (desk.bans.clone(), desk.latest.clone());
    bans.start()?;
    let log = opened.start()?;
    ears.open(&log, &bans);
    let access = access.map(AccessLog::start).transpose()?;
    let offer_path = offer.path().to_owned();
    offer.serve(handle.clone())?;
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
                (bans.clone(), log.clone(), latest),
            )
        })
        .transpose()?;
    if sensor {
        run_soon(EDGE);
    }
    let _log = log::queue();
    configuration.inspection.introduce();
    for address in handle.addresses() {
        tracing::info!(%address, sensor, "listening");
    }
    tell_manager(NotifyState::Ready);
    let served = edge.serve();
    tell_manager(NotifyState::Stopping);
    stop.store(true, Ordering::Release);
    let tended = tender.map_or(Ok(()), |thread| {
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the correlator thread panicked")))
    });
    bans.stop();
    for socket in [socket, offer_path] {
        let _ = std::fs::remove_file(socket);
    }
    let counters = log.finish(FAREWELL);
    tracing::debug!(?counters, "block log");
    drop((handle, access));
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

fn edge_config(
    configuration: &Configuration,
    tagging: Option<Tagging>,
) -> Result<clew_proxy::Config> {
    Ok(clew_proxy::Config {
        listeners: configuration.listeners.clone(),
        inherited: Vec::new(),
        services: configuration.services.clone(),
        limits: configuration.limits.clone(),
        trusted_hops: configuration.trusted_hops.clone(),
        shared_addresses: configuration.shared_addresses.clone(),
        threads: configuration.threads,
        tagging,
        rules: Some(configuration.inspection.open()?),
        reports: None,
        pages: configuration.pages.clone(),
        accesses: None,
        offenders: None,
        shutdown_grace: configuration.shutdown_grace,
    })
}

/// What the admin API looks at and acts on; with it the bans of an earlier run are in force again.
fn desk(
    configuration: &Configuration,
    handle: &Handle,
    kernel: Option<&Kernel>,
    store: &Store,
    reloader: Arc<Reloader>,
) -> Result<Desk> {
    let state = &configuration.state;
    let (policy, capacity) = (configuration.bans.clone(), configuration.limits.bans);
    let services = configuration.services.iter().map(|service| ServiceStatus {
        name: service.name.clone(),
        hosts: service.hosts.clone(),
        upstreams: service.upstreams.iter().map(ToString::to_string).collect(),
    });
    let missing = kernel.map(|it| it.sensor.missing()).unwrap_or_default();
    Ok(Desk {
        bans: banning::open(state, policy, capacity, handle.clone())?,
        handle: handle.clone(),
        latest: Latest::default(),
        incidents: store.recent(),
        about: About {
            started: Moment::now(),
            mode: kernel.map(|it| name_of(it.settings.mode).to_owned()),
            services: services.collect(),
            missing: missing.iter().map(|it| (*it).to_owned()).collect(),
            dry_run: configuration.bans.dry_run,
        },
        audit: Audit::open(state)?,
        reloader,
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
fn give_away(
    configuration: &Configuration,
    sockets: &[&Path],
    account: &Account,
    kernel: Option<&Kernel>,
) -> Result<()> {
    prepare_state(&configuration.state, Some(account))?;
    let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
    let files = configuration.log.paths().files;
    let files = files.iter().map(PathBuf::as_path);
    let files = files.chain(configuration.access_log.as_deref());
    for path in sockets.iter().copied().chain(files) {
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("cannot hand over {}", path.display()))?;
    }
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
    (bans, log, latest): (Keeper, BlockLog, Latest),
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
        policies: kernel.policies,
        log,
        beat: Beat::new(latest),
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

/// SIGTERM and SIGINT end the edge, and with it the process; SIGHUP has the configuration read anew.
fn heed_signals(handle: Handle, reloader: Arc<Reloader>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        )
    };
    let thread = std::thread::Builder::new().name("clew-signals".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => reload(&reloader),
                }
            }
        });
        tracing::info!("stopping: requests in flight finish");
        handle.shutdown();
    })?;
    Ok(())
}

/// A stop that comes meanwhile waits for it: a minute at most.
fn reload(reloader: &Reloader) {
    match reloader.reload() {
        Ok(done) => tracing::info!(restart = ?done.restart, "configuration read anew"),
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "the configuration cannot be used; what was in force is in force"
        ),
    }
}

/// Who is told of requests, before he can be: the edge is bound first.
#[derive(Clone, Default)]
struct Ears(Arc<OnceLock<(BlockLog, Keeper)>>);

impl Ears {
    fn open(&self, log: &BlockLog, bans: &Keeper) {
        let _ = self.0.set((log.clone(), bans.clone()));
    }

    fn reports(&self) -> Reports {
        let ears = self.0.clone();
        Reports::new(move |report| {
            if let Some((log, _)) = ears.get() {
                log.report(report);
            }
        })
    }

    fn offenders(&self) -> Offenders {
        let ears = self.0.clone();
        Offenders::new(move |client, limit| {
            if let Some((_, bans)) = ears.get() {
                banning::by_limit(bans, client, limit);
            }
        })
    }
}

/// Sockets that listen already: those of systemd, and those of the clew whose place this takes. That one has ended
/// when this returns; what would keep this one from starting is looked for before.
fn inherited(configuration: &Configuration, take_over: bool) -> Result<Vec<TcpListener>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for nth in 0..given.len() {
        let socket = given.take_tcp_listener(nth);
        sockets.extend(socket.context("what systemd hands over is no listening TCP socket")?);
    }
    if take_over {
        if configuration.sensor.is_some() {
            let findings = clew_sensor::doctor::examine();
            let lacking = findings.iter().find(|it| it.needed && !it.ok);
            if let Some(lacking) = lacking {
                bail!(
                    "the clew that runs goes on: {} ({}); clew doctor says more",
                    lacking.step,
                    lacking.provider
                );
            }
        }
        sockets.extend(handover::take_over(&configuration.state)?);
    }
    Ok(sockets)
}

/// Tells systemd, if it started this.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd is not told");
    }
}

fn random_key() -> Result<[u8; 16]> {
    let mut key = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut key))
        .context("cannot read /dev/urandom")?;
    Ok(key)
}
