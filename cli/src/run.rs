//! `clew run`: everything that needs rights first, then none.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clew_bans::Keeper;
use clew_blocklog::BlockLog;
use clew_correlator::profile::Profile;
use clew_protocol::Moment;
use clew_proxy::{Accesses, Edge, Handle, Tagging, Tracing};
use clew_sensor::Mode;
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::access::AccessLog;
use crate::api::Desk;
use crate::api::serve::Sockets;
use crate::api::status::{About, ServiceStatus};
use crate::audit::Audit;
use crate::banning;
use crate::beat::{Beat, Latest};
use crate::config::{Configuration, SensorConfiguration};
use crate::ears::Ears;
use crate::handover::{self, Offer};
use crate::kernel::{EDGE, Kernel, VERDICTS, load, run_soon};
use crate::log;
use crate::privilege::{Account, drop_all, prepare_state};
use crate::raw::OpenOrClosed;
use crate::reload::{Reloader, Source};
use crate::signals;
use crate::spans::Spans;
use crate::store::{Store, Writer};
use crate::tend::{Learning, Tender, correlator};

/// How long events may take to reach the sinks of the block log when Clew stops; what is in the spool waits for the next
/// start.
const FAREWELL: Duration = Duration::from_secs(5);
/// The same when a successor waits, which sends what is in the spool, and clients wait for it; and for spans, on which
/// nothing depends.
const BRIEF_FAREWELL: Duration = Duration::from_millis(500);

/// What the threads share.
struct Shared {
    handle: Handle,
    bans: Keeper,
    log: BlockLog,
    latest: Latest,
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
    let (access, lines) = access.transpose()?.unzip();
    let spans = configuration.spans.as_ref().map(Spans::open).transpose()?;
    let told = lines.into_iter().chain(spans.as_ref().map(Spans::accesses));
    let policy = kernel.as_ref().map(|it| it.policy());
    let edge = Edge::bind(clew_proxy::Config {
        inherited,
        accesses: told.reduce(Accesses::and),
        reports: Some(ears.reports()),
        offenders: Some(ears.offenders()),
        ..edge_config(&configuration, tagging)?
    })?;
    let admin = Sockets::bind(
        &configuration.state,
        configuration.admin.as_ref(),
        configuration.observe,
    )?;
    if let Some(kernel) = &mut kernel {
        let (own, interfaces) = (edge.sockets()?, &configuration.ban_interfaces);
        kernel.prepare(own.iter().chain(admin.tcp()), interfaces, &edge.handle())?;
    }
    let offer = Offer::bind(&configuration.state)?;
    let store = Store::open(&configuration.state)?;
    let bans = banning::open(&configuration, edge.handle())?;
    let shared = (edge.handle(), bans.clone());
    let reloader = Reloader::new(source, shared, policy, &configuration);
    let reloader = Arc::new(reloader);
    let desk = Arc::new(desk(
        &configuration,
        &edge.handle(),
        kernel.as_ref(),
        &store,
        (reloader, ears.clone(), bans, spans.clone()),
    )?);
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
    let shared = Shared {
        handle: edge.handle(),
        bans: desk.bans.clone(),
        log: opened.start()?,
        latest: desk.latest.clone(),
    };
    signals::heed(desk.clone())?;
    shared.bans.start()?;
    ears.open(&shared.log, &shared.bans);
    let access = access.map(AccessLog::start).transpose()?;
    if let Some(spans) = &spans {
        spans.start();
    }
    let is_replaced = Arc::new(AtomicBool::new(false));
    let sockets = [
        offer.serve(shared.handle.clone(), is_replaced.clone())?,
        admin.serve(desk)?,
    ];
    let stop = Arc::new(AtomicBool::new(false));
    // The last that can fail: an error after it would leave the programs in the kernel.
    let tender = kernel
        .map(|it| tend(it, &configuration, store, &shared, &stop))
        .transpose()?;
    if sensor {
        run_soon(EDGE);
    }
    let _log = log::queue();
    configuration.inspection.introduce();
    for address in shared.handle.addresses() {
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
    shared.bans.stop();
    let farewell = match is_replaced.load(Ordering::Acquire) {
        true => BRIEF_FAREWELL,
        false => FAREWELL,
    };
    let counters = shared.log.finish(farewell);
    tracing::debug!(?counters, "block log");
    if let Some(access) = access {
        access.finish();
    }
    if let Some(spans) = spans {
        spans.finish(BRIEF_FAREWELL);
    }
    for socket in sockets {
        let _ = std::fs::remove_file(socket);
    }
    served?;
    tended?;
    if configuration.keeps_programs() {
        tracing::info!("stopped; the programs stay at work until clew runs again");
    } else {
        tracing::info!("stopped; nothing is left in the kernel");
    }
    Ok(())
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
        tracing: configuration
            .spans
            .as_ref()
            .map(|it| Tracing { share: it.share }),
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
    (reloader, ears, bans, spans): (Arc<Reloader>, Ears, Keeper, Option<Spans>),
) -> Result<Desk> {
    let state = &configuration.state;
    let services = configuration.services.iter().map(|service| ServiceStatus {
        name: service.name.clone(),
        hosts: service.hosts.clone(),
        upstreams: service.upstreams.iter().map(ToString::to_string).collect(),
    });
    let missing = kernel.map(|it| it.sensor.missing()).unwrap_or_default();
    Ok(Desk {
        bans,
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
        audit: Audit::open(state, configuration.fail.audit)?,
        log: ears,
        spans,
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
    shared: &Shared,
    stop: &Arc<AtomicBool>,
) -> Result<JoinHandle<Result<()>>> {
    let settings = kernel.settings;
    let tender = Tender {
        sensor: kernel.sensor,
        records: kernel.records,
        handle: shared.handle.clone(),
        bans: shared.bans.clone(),
        writer: Writer::start(store)?,
        correlator: correlator(configuration.bans.measure.span, settings.redact_environment),
        learning: learning(&settings)?,
        keep_programs: settings.keep_programs,
        policies: kernel.policies,
        log: shared.log.clone(),
        beat: Beat::new(shared.latest.clone()),
    };
    let stop = stop.clone();
    let thread = std::thread::Builder::new().name("clew-correlator".to_owned());
    let (handle, fail) = (shared.handle.clone(), configuration.fail.correlator);
    Ok(thread.spawn(move || {
        let _last = TenderEnds { handle, fail };
        let result = tender.run(&stop);
        if let Err(error) = &result {
            tracing::error!(
                error = format!("{error:#}"),
                then = ?fail,
                "the correlator has failed; what requests do is not seen any more"
            );
        }
        result
    })?)
}

/// Without a correlator nothing is attributed, and without its sensor nothing stopped. However its thread ends, by a
/// panic too, the edge stops rather than seem to protect; unless it is to go on, and then no response waits for
/// anybody any more.
struct TenderEnds {
    handle: Handle,
    fail: OpenOrClosed,
}

impl Drop for TenderEnds {
    fn drop(&mut self) {
        match self.fail {
            OpenOrClosed::Closed => self.handle.shutdown(),
            OpenOrClosed::Open => self.handle.decided(u64::MAX),
        }
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
