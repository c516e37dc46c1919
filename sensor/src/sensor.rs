//! The sensor: programs at work, their maps, and the ring they report through.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use aya::maps::{
    Array, HashMap, Map, MapData, MapError, MapInfo, MapType, PerCpuArray, RingBuf, SkStorage,
};
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use clew_protocol::kernel::{KernelEvent, LostClass};
use clew_protocol::request::InFlight;
use clew_protocol::{Moment, ProxyId, Sequence, TokenKey};
use clew_sensor_abi::record::TaskContext;
use clew_sensor_abi::settings::{COUNTERS, Counter, Settings};
use clew_sensor_abi::socket::{Early, Flow};
use rustix::event::epoll;
use serde::Serialize;
use thiserror::Error;

use crate::announced::Announcer;
use crate::attach::Attached;
use crate::barrier::{Barrier, BarrierError};
use crate::btf::{self, BtfError};
use crate::hops::Log;
use crate::ledger::Reads;
use crate::maps::Raw;
use crate::pin::{PinDirectory, TasksKind, left_tasks};
use crate::policy::{Mode, Policy};
use crate::stops::{Account, Stops};
use crate::tables::{PolicyTables, set, take, tell_services};
use crate::{cgroup, decode, steps};

/// The programs, built from `sensor-ebpf` by this crate's build script.
pub(crate) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/clew.bpf.o"));

/// What the programs are told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Key of the tokens.
    pub key: TokenKey,
    /// Whose tokens are accepted.
    pub proxy: ProxyId,
    /// Mode while somebody tends the programs.
    pub mode: Mode,
    /// Mode when nobody has called [`Sensor::heartbeat`] for `heartbeat_limit`.
    pub fallback_mode: Mode,
    /// How long the programs go on in `mode` by themselves.
    pub heartbeat_limit: Duration,
    /// The services, in the order of their numbers in tokens.
    pub services: Vec<Service>,
    /// What is allowed.
    pub policy: Policy,
    /// Where the kernel has no better way to see what is opened, and files are watched: look at every system call.
    pub trace_opens: bool,
    /// The cgroup2 directory whose sockets are followed; `None`: all of this host.
    pub cgroup: Option<PathBuf>,
}

/// A service as the kernel knows it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name in the configuration.
    pub name: String,
    /// Ports its backends listen on: who comes there without a token is a stranger.
    pub ports: Vec<u16>,
    /// What comes there cannot be read (TLS, HTTP/2): requests are announced, see [`Sensor::announcer`].
    pub is_opaque: bool,
}

/// Why the programs are not at work.
#[derive(Debug, Error)]
pub enum LoadError {
    /// No rights.
    #[error(
        "loading BPF programs needs root, or CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and \
         CAP_SYS_ADMIN; run as root (rights are dropped once the programs are loaded)"
    )]
    NoRights,
    /// Kernel too old or built without what is needed.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The BTF the verifier needs.
    #[error("the kernel's type information cannot be read: {0}")]
    KernelTypes(#[from] aya::BtfError),
    /// The object does not load.
    #[error("the BPF object does not load: {0}")]
    Object(#[from] aya::EbpfError),
    /// One program does not load or attach.
    #[error("program {program} (step {step}) does not load; `clew doctor` says more")]
    Program {
        /// The step it does.
        step: &'static str,
        /// Its name.
        program: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A map cannot be filled.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// No cgroup2, or not this one.
    #[error("the cgroup2 hierarchy, or the cgroup configured, cannot be opened: {0}")]
    Cgroup(io::Error),
    /// A table is not to be had as memory.
    #[error("the kernel's tables cannot be mapped: {0}")]
    Memory(io::Error),
    /// Cannot pin.
    #[error("cannot pin programs in the BPF file system: {0}")]
    Pin(io::Error),
    /// Files are to be watched, and the programs for that were not loaded at start.
    #[error("no file was watched when clew started, so nothing looks at files; start it anew")]
    Unwatched,
    /// Cannot wait for events.
    #[error("cannot wait for events: {0}")]
    Wait(io::Error),
    /// More services than the kernel's tables hold.
    #[error("at most {max} services can be told apart; {found} are configured")]
    Services {
        /// Bound.
        max: usize,
        /// Configured.
        found: usize,
    },
}

/// Sums since the programs were loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // documented at clew_sensor_abi::settings::Counter
pub struct Counters {
    pub accepted: u64,
    pub hops: u64,
    pub forged: u64,
    pub replayed: u64,
    pub queue_full: u64,
    pub out_of_order: u64,
    pub lost_reads: u64,
    pub lost_exec: u64,
    pub lost_connect: u64,
    pub lost_file: u64,
    pub killed: u64,
    pub denied: u64,
    pub refused: u64,
    pub no_storage: u64,
}

/// Most events handed out by one call of [`Sensor::next_events`].
const BATCH: usize = 4096;

/// How long a connection may take from its first data to its socket, or to the first read.
const UNADOPTED: Duration = Duration::from_secs(60);

const MAX_SERVICES: usize = 255;

/// The programs at work. They are detached, and nothing is left in the kernel, on drop; when
/// the process is killed instead, pins keep them at work.
pub struct Sensor {
    settings: Array<MapData, Raw<Settings>>,
    current: Settings,
    /// What the tables hold of the policy.
    told: PolicyTables,
    /// The programs that look at files are at work.
    watches: bool,
    early: HashMap<MapData, Raw<Flow>, Raw<Early>>,
    announcer: Announcer,
    counters: PerCpuArray<MapData, u64>,
    reads: Reads,
    account: Account,
    lost_told: [u64; LOST.len() + 1],
    ring: RingBuf<MapData>,
    readiness: OwnedFd,
    pins: PinDirectory,
    missing: Vec<&'static str>,
    ebpf: Ebpf,
}

const LOST: [(Counter, LostClass); 3] = [
    (Counter::LostExec, LostClass::Exec),
    (Counter::LostConnect, LostClass::Connect),
    (Counter::LostFile, LostClass::File),
];

impl Sensor {
    /// Loads, configures and attaches every program, in this order: nothing runs with default
    /// settings.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; nothing is left behind.
    pub fn load(config: &Config) -> Result<Self, LoadError> {
        if config.services.len() > MAX_SERVICES {
            let found = config.services.len();
            return Err(LoadError::Services {
                max: MAX_SERVICES,
                found,
            });
        }
        let services = config.services.iter().map(|it| it.name.as_str());
        let kind = TasksKind::new(services);
        let mut ebpf = open_after(&kind)?;
        let (key0, key1) = config.key.words();
        let current = Settings {
            key0,
            key1,
            heartbeat: Moment::now().0,
            heartbeat_limit: nanos(config.heartbeat_limit),
            mode: config.mode.number(),
            fallback_mode: config.fallback_mode.number(),
            proxy: config.proxy.0.into(),
            has_opaque: config.services.iter().any(|it| it.is_opaque).into(),
        };
        let mut settings: Array<_, Raw<Settings>> = take(&mut ebpf, "SETTINGS")?;
        set(&mut settings, "SETTINGS", 0, Raw(current))?;
        tell_services(&mut ebpf, config)?;
        let told = PolicyTables::of(&config.policy, &config.key);
        told.enter(&mut ebpf, &PolicyTables::default())?;

        let early = take(&mut ebpf, "EARLY")?;
        let announcer = Announcer::new(take(&mut ebpf, "ANNOUNCED")?);
        let counters = take(&mut ebpf, "COUNTERS")?;
        let reads = reads_of_ledger(&ebpf)?;
        let account = Account::new(stops_of(&ebpf)?);
        let ring: RingBuf<MapData> = take(&mut ebpf, "EVENTS")?;
        let readiness = watch(&ring).map_err(LoadError::Wait)?;
        let (pins, missing) = attach_all(&mut ebpf, config, &kind)?;
        Ok(Self {
            settings,
            current,
            told,
            watches: !config.policy.files.is_empty(),
            early,
            announcer,
            counters,
            reads,
            account,
            lost_told: [0; LOST.len() + 1],
            ring,
            readiness,
            pins,
            missing,
            ebpf,
        })
    }

    /// The proxy listens on `socket`: what comes in there bears no name, and is not looked at.
    ///
    /// # Errors
    ///
    /// Those of the kernel's table of sockets.
    pub fn pass_over(&mut self, socket: &impl AsRawFd) -> Result<(), MapError> {
        let mut fronts: SkStorage<_, u32> = self
            .ebpf
            .map_mut("FRONTS")
            .ok_or(MapError::KeyNotFound)?
            .try_into()?;
        fronts.insert(socket, 1, 0)
    }

    /// Judges what requests do from now on by another policy. What both allow is allowed all the time; what the programs
    /// have judged already stays as it is. Needs no rights.
    ///
    /// # Errors
    ///
    /// A table is full, and the policy in force is part of each; or [`LoadError::Unwatched`], and nothing has changed.
    pub fn set_policy(&mut self, told: PolicyTables) -> Result<(), LoadError> {
        if told.watches() && !self.watches {
            return Err(LoadError::Unwatched);
        }
        told.enter(&mut self.ebpf, &self.told)?;
        self.told = told;
        Ok(())
    }

    /// Has banned sources refused where they come in: at `interfaces`, for what the proxy listens for on `ports`.
    /// To be asked once.
    ///
    /// # Errors
    ///
    /// See [`BarrierError`].
    pub fn raise_barrier(
        &mut self,
        interfaces: &[String],
        ports: &[u16],
    ) -> Result<Barrier, BarrierError> {
        Barrier::raise(&mut self.ebpf, &self.pins, interfaces, ports)
    }

    /// Waits up to `timeout` for an event that wants a verdict, then appends what there is in the
    /// ring, in the order of the kernel, to `events`; at most 4,096.
    ///
    /// Events that want none do not end the wait: they come along at the next call.
    ///
    /// # Errors
    ///
    /// Waiting failed. A record that cannot be decoded is logged and left out.
    pub fn next_events(
        &mut self,
        timeout: Duration,
        events: &mut Vec<KernelEvent>,
    ) -> io::Result<()> {
        let span = rustix::time::Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut ready = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        match epoll::wait(&self.readiness, &mut ready, Some(&span)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for _ in 0..BATCH {
            let Some(record) = self.ring.next() else {
                self.account.settle();
                break;
            };
            match decode::event(&record) {
                Ok(event) => {
                    self.account.hand_out(&event);
                    events.push(event);
                }
                Err(error) => tracing::error!(%error, "record of the kernel left out"),
            }
        }
        Ok(())
    }

    /// Tells the programs which request is next where they cannot read it; to be used from anywhere.
    pub fn announcer(&self) -> Announcer {
        self.announcer.clone()
    }

    /// What the programs have stopped, to be looked at from anywhere.
    pub fn stops(&self) -> Stops {
        self.account.stops.clone()
    }

    /// How many of those [`Self::next_events`] has handed out the events of, or never will.
    pub fn handed_out(&self) -> u64 {
        self.account.settled()
    }

    /// The proxy is about to send this request: who reads it is to be found out.
    pub fn expect(&mut self, sequence: Sequence) {
        self.reads.expect(sequence);
    }

    /// The proxy is done with this request.
    pub fn ended(&mut self, sequence: Sequence, at: Moment) {
        self.reads.ended(sequence, at);
    }

    /// All that the proxy has in flight: makes up for lost calls of the two above. What is kept for
    /// connections that are long gone goes.
    ///
    /// # Errors
    ///
    /// A table of the kernel cannot be read or written.
    pub fn in_flight(&mut self, list: &InFlight) -> Result<(), MapError> {
        self.reads.in_flight(list);
        self.forget_early(list.at)
    }

    /// What arrived on connections that were given up before they had a socket.
    fn forget_early(&mut self, now: Moment) -> Result<(), MapError> {
        let mut old = Vec::new();
        for entry in self.early.iter() {
            let (flow, Raw(early)) = entry?;
            if now.since(Moment(early.at)) >= UNADOPTED {
                old.push(flow);
            }
        }
        old.iter()
            .try_for_each(|flow| gone(self.early.remove(flow)))
    }

    /// Adds what expected requests were read since the last call to the `events` of the ring, and
    /// puts all in the order of their times. What was read before one of the events is there.
    pub fn add_reads(&mut self, events: &mut Vec<KernelEvent>) {
        let thorough = !events.is_empty();
        self.reads.look(Moment::now(), thorough, events);
        self.tell_lost(events);
        events.sort_by_key(time_of);
    }

    fn tell_lost(&mut self, events: &mut Vec<KernelEvent>) {
        let counted = LOST.map(|(counter, class)| (sum(&self.counters, counter), class));
        let all = counted
            .into_iter()
            .chain([(self.reads.lost, LostClass::Bound)]);
        for ((total, class), told) in all.zip(&mut self.lost_told) {
            if total > *told {
                *told = total;
                events.push(KernelEvent::Lost { class, total });
            }
        }
    }

    /// Says that somebody tends the programs. Call it several times per `heartbeat_limit`.
    ///
    /// # Errors
    ///
    /// The settings cannot be written.
    pub fn heartbeat(&mut self) -> Result<(), MapError> {
        let missing = self.account.catch_up();
        if missing > 0 {
            tracing::error!(missing, "stops that nobody can be told of");
        }
        self.current.heartbeat = Moment::now().0;
        self.settings.set(0, Raw(self.current), 0)
    }

    /// Sums since start.
    pub fn counters(&self) -> Counters {
        let sum = |counter| sum(&self.counters, counter);
        Counters {
            accepted: sum(Counter::Accepted),
            hops: sum(Counter::Hops),
            forged: sum(Counter::Forged),
            replayed: sum(Counter::Replayed),
            queue_full: sum(Counter::QueueFull),
            out_of_order: sum(Counter::OutOfOrder),
            lost_reads: self.reads.lost,
            lost_exec: sum(Counter::LostExec),
            lost_connect: sum(Counter::LostConnect),
            lost_file: sum(Counter::LostFile),
            killed: sum(Counter::Killed),
            denied: sum(Counter::Denied),
            refused: sum(Counter::Refused),
            no_storage: sum(Counter::NoStorage),
        }
    }

    /// The programs, for [`crate::statistics`].
    pub(crate) fn programs(&self) -> impl Iterator<Item = &Program> {
        // Of those that do the same, one is loaded.
        let at_work = |name: &str, program: &Program| steps::is_ours(name) && program.fd().is_ok();
        let programs = self.ebpf.programs();
        let ours = programs.filter(move |(name, program)| at_work(name, program));
        ours.map(|(_, program)| program)
    }

    /// What this kernel has no provider for, in words for people: what is lost.
    pub fn missing(&self) -> &[&'static str] {
        &self.missing
    }

    /// The programs stay at work when this is dropped; a sensor of the next process follows on what tasks carry.
    pub fn leave_programs(&mut self) {
        self.pins.keep();
    }

    /// Hands the pins to the user the process is about to become, so that a clean stop can
    /// remove them.
    ///
    /// # Errors
    ///
    /// Those of `chown(2)`.
    pub fn give_pins_to(&self, uid: u32, gid: u32) -> io::Result<()> {
        self.pins.give_to(uid, gid)
    }
}

/// As [`open`], with what tasks carry left by a process that has gone: what they start is judged on.
fn open_after(kind: &TasksKind) -> Result<Ebpf, LoadError> {
    let left = left_tasks(kind)
        .unwrap_or_default()
        .filter(|it| holds_tasks(it));
    let Some(left) = left else {
        return open();
    };
    match open_with(Some(&left)) {
        Ok(ebpf) => {
            tracing::info!(pin = %left.display(), "tasks of a clew that has gone are followed on");
            Ok(ebpf)
        }
        Err(error) => {
            tracing::warn!(%error, "tasks of a clew that has gone are not followed");
            open()
        }
    }
}

fn holds_tasks(pin: &Path) -> bool {
    let info = MapInfo::from_pin(pin);
    info.is_ok_and(|it| {
        matches!(it.map_type(), Ok(MapType::TaskStorage))
            && it.value_size() as usize == size_of::<TaskContext>()
    })
}

/// Parses and loads the object's maps; no program yet.
pub(crate) fn open() -> Result<Ebpf, LoadError> {
    open_with(None)
}

/// What tasks carry; the value of the map is [`TaskContext`].
const TASKS: &str = "TASKS";

fn open_with(tasks: Option<&Path>) -> Result<Ebpf, LoadError> {
    let offsets = Raw(btf::offsets(&btf::Btf::of_kernel()?)?);
    let mut loader = EbpfLoader::new();
    if let Some(tasks) = tasks {
        loader.map_pin_path(TASKS, tasks);
    }
    // aya 0.14 can make a task storage map but has no type to look into it; nor is one needed.
    let loaded = loader
        .allow_unsupported_maps()
        .override_global("OFFSETS", &offsets, true)
        .load(OBJECT);
    loaded.map_err(|error| match denied(&error) {
        true => LoadError::NoRights,
        false => LoadError::Object(error),
    })
}

/// That it was gone before is as good.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

/// When an event happened; what makes the correlator less sure comes first.
fn time_of(event: &KernelEvent) -> Moment {
    match event {
        KernelEvent::Bound(bound) => bound.at,
        KernelEvent::Exec(exec) => exec.at,
        KernelEvent::Connect(connect) => connect.at,
        KernelEvent::File(file) => file.at,
        KernelEvent::Lost { .. } => Moment(0),
    }
}

/// Whether `error` comes down to `EPERM` or `EACCES`.
fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn reads_of_ledger(ebpf: &Ebpf) -> Result<Reads, LoadError> {
    let array = |name| match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map),
        _ => Err(LoadError::Memory(io::ErrorKind::NotFound.into())),
    };
    let reads = Reads::new(
        array("ACCEPTED")?,
        array("READINGS")?,
        Log::map(array("HOP_READINGS")?, array("HOP_COUNT")?).map_err(LoadError::Memory)?,
    );
    reads.map_err(LoadError::Memory)
}

fn stops_of(ebpf: &Ebpf) -> Result<Stops, LoadError> {
    match ebpf.map("STOPS") {
        Some(Map::Array(stops)) => Stops::map(stops).map_err(LoadError::Memory),
        _ => Err(LoadError::Memory(io::ErrorKind::NotFound.into())),
    }
}

fn attach_all(
    ebpf: &mut Ebpf,
    config: &Config,
    kind: &TasksKind,
) -> Result<(PinDirectory, Vec<&'static str>), LoadError> {
    let btf = Btf::from_sys_fs()?;
    let cgroup = cgroup::open(config.cgroup.as_deref()).map_err(LoadError::Cgroup)?;
    let pins = PinDirectory::create().map_err(LoadError::Pin)?;
    let mut missing = Vec::new();
    if let Some(tasks) = ebpf.map(TASKS) {
        tasks
            .pin(kind.in_directory(&pins))
            .map_err(|error| LoadError::Pin(io::Error::other(error)))?;
    }
    let files = steps::files(&config.policy, config.trace_opens);
    for part in files.chain(steps::parts()) {
        match part.attach(ebpf, &btf, &cgroup)? {
            Attached::Link(program, link) => {
                let pinned = link.pin(pins.join(program));
                pinned.map_err(|error| LoadError::Pin(io::Error::other(error)))?;
            }
            Attached::Done => {}
            Attached::Without(what) => missing.push(what),
        }
    }
    Ok((pins, missing))
}

/// An epoll set that becomes ready when the kernel asks for attention, and only then: level
/// triggered, it would be ready as long as any record waits.
fn watch(ring: &RingBuf<MapData>) -> io::Result<OwnedFd> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&set, ring.as_fd(), epoll::EventData::new_u64(0), flags)?;
    Ok(set)
}

fn sum(counters: &PerCpuArray<MapData, u64>, counter: Counter) -> u64 {
    debug_assert!((counter as u32) < COUNTERS);
    match counters.get(&(counter as u32), 0) {
        Ok(values) => values.iter().sum(),
        Err(error) => {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| tracing::error!(%error, "the kernel's counters cannot be read"));
            0
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
