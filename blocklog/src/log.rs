//! The block log as its users see it, and the thread that makes events.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clew_protocol::Moment;
use clew_protocol::incident::{Incident, StepKind};
use clew_protocol::report::Report;

use crate::config::{Config, Sink, Target};
use crate::counters::{Counters, SinkState, SpoolCounters};
use crate::event::Event;
use crate::event::pairing::{Now, Pairing};
use crate::queue::{self, Receiver, Sender};
use crate::sink::courier::{Courier, Curfew};
use crate::sink::file::LogFile;
use crate::sink::local::{Local, LocalSink};
use crate::sink::{self, Transport, Writer};
use crate::spool::{self, Reader, Spool, SpoolError};

/// Reports and incidents that may wait to be made events.
const QUEUE: usize = 8192;
/// Most bytes of them, about.
const QUEUE_BYTES: usize = 64 << 20;
/// How long a record waits to be made durable.
const SYNC: Duration = Duration::from_millis(200);

/// Why a block log cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A log file cannot be opened.
    #[error("cannot write the log {path}: {error}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A token or key cannot be had.
    #[error("cannot take the secret from {place}: {problem}")]
    Secret {
        /// A file or an environment variable.
        place: String,
        /// Why.
        problem: String,
    },
    /// The certificate authorities cannot be read.
    #[error("cannot read the authorities {path}: {problem}; give a PEM file of certificates")]
    Authorities {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        problem: String,
    },
    /// The system has no certificate authorities.
    #[error(
        "this system has no certificate authorities; install ca-certificates, or set `authorities`"
    )]
    NoAuthorities,
    /// A name that no certificate can have.
    #[error("server_name {0:?} is neither a host name nor an address")]
    ServerName(String),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread of the log: {0}")]
    Thread(io::Error),
    /// A transport was asked for syslog that is none.
    #[error("not a syslog sink")]
    NotSyslog,
}

/// A block log whose files are open, and secrets read, and which has no thread so far: rights can be given up before
/// [`Opened::start`].
pub struct Opened {
    sinks: Vec<OpenSink>,
    spool: Option<Spool>,
}

struct OpenSink {
    sink: Sink,
    writer: Writer,
    state: Arc<SinkState>,
    way: Way,
}

enum Way {
    Local(Local),
    Network(Box<dyn Transport>),
}

/// The handle: cheap to clone. When the last one goes, what is in the queue is written; [`BlockLog::finish`] also waits
/// for it.
#[derive(Debug, Clone)]
pub struct BlockLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// None once it is finished.
    queue: Mutex<Option<Arc<Sender<Message>>>>,
    refused: AtomicU64,
    counted: Arc<Counted>,
    curfew: Arc<Curfew>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What is counted beside the sinks.
#[derive(Debug)]
struct Counted {
    events: AtomicU64,
    spool_dropped: AtomicU64,
    spool: Option<Arc<spool::Shared>>,
    /// Each sink, and of a network sink its place among the spool's readers.
    sinks: Vec<(Arc<SinkState>, Option<usize>)>,
}

#[derive(Debug)]
enum Message {
    Report(Box<Report>),
    Incident(Box<Incident>),
}

impl BlockLog {
    /// Opens files and the spool, and reads secrets and certificates.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn open(config: Config) -> Result<Opened, StartError> {
        let is_network = |it: &&Sink| matches!(it.target, Target::Network { .. });
        let names: Vec<&str> = config
            .sinks
            .iter()
            .filter(is_network)
            .map(|it| it.name.as_str())
            .collect();
        let spool = match config.has_network() {
            true => Some(Spool::open(&config.spool, config.spool_bytes, &names)?),
            false => None,
        };
        let open = |sink: &Sink| {
            let writer = Writer {
                format: sink.format,
                observer: config.observer.clone(),
            };
            Ok(OpenSink {
                sink: sink.clone(),
                state: Arc::new(SinkState::new(&sink.name)),
                way: Way::open(&sink.target, &writer)?,
                writer,
            })
        };
        let sinks: Result<Vec<OpenSink>, StartError> = config.sinks.iter().map(open).collect();
        Ok(Opened {
            sinks: sinks?,
            spool,
        })
    }

    /// [`BlockLog::open`] and [`Opened::start`], for who has no rights to give up between.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start(config: Config) -> Result<Self, StartError> {
        Self::open(config)?.start()
    }

    /// Hands over what the edge says of a request. Never waits: where there is no room it is counted as refused.
    pub fn report(&self, report: Report) {
        let bytes = report_bytes(&report);
        self.offer(Message::Report(Box::new(report)), bytes);
    }

    /// Hands over a revision of an incident. Never waits.
    pub fn incident(&self, incident: Incident) {
        let bytes = incident_bytes(&incident);
        self.offer(Message::Incident(Box::new(incident)), bytes);
    }

    fn offer(&self, message: Message, bytes: usize) {
        let queue = self.shared.queue();
        if !queue.is_some_and(|it| it.offer(message, bytes)) {
            let refused = self.shared.refused.fetch_add(1, Ordering::Relaxed) + 1;
            // Said at 1, 2, 4, 8, ...
            if refused.is_power_of_two() {
                tracing::error!(
                    refused,
                    "the block log is too slow, or has ended: events are lost"
                );
            }
        }
    }

    /// What became of everything so far.
    pub fn counters(&self) -> Counters {
        let counted = &self.shared.counted;
        let spool = counted.spool.as_ref().map(|spool| {
            let (written, bytes, durable) = spool.totals();
            SpoolCounters {
                written,
                durable,
                bytes,
                dropped: counted.spool_dropped.load(Ordering::Relaxed),
            }
        });
        let sinks = counted.sinks.iter().map(|(state, reader)| {
            let mut counters = state.read();
            if let (Some(spool), Some(reader)) = (&counted.spool, reader) {
                (counters.waiting_events, counters.waiting_bytes) = spool.waiting(*reader);
            }
            counters
        });
        Counters {
            refused: self.shared.refused.load(Ordering::Relaxed),
            queue_bytes: self.shared.queue().map_or(0, |it| it.bytes() as u64),
            events: counted.events.load(Ordering::Relaxed),
            spool,
            sinks: sinks.collect(),
        }
    }

    /// Writes and sends what there is, for at most `deadline`. What a network sink has not taken by then waits on disk
    /// for the next start. What is handed over from now on, by any handle, is refused.
    pub fn finish(&self, deadline: Duration) -> Counters {
        let end = Instant::now() + deadline;
        self.shared.curfew.set(end);
        drop(self.shared.take_queue());
        let mut threads = self
            .shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // One that does not end in time (a pipe that nobody reads) is left to itself.
            while !thread.is_finished() && Instant::now() < end + Duration::from_millis(100) {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("a thread of the block log panicked");
            }
        }
        drop(threads);
        self.counters()
    }
}

impl Shared {
    fn queue(&self) -> Option<Arc<Sender<Message>>> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn take_queue(&self) -> Option<Arc<Sender<Message>>> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Without [`BlockLog::finish`] nobody waits: what is not sent at once waits on disk.
impl Drop for Shared {
    fn drop(&mut self) {
        self.curfew.set(Instant::now());
    }
}

impl Way {
    fn open(target: &Target, writer: &Writer) -> Result<Self, StartError> {
        Ok(match target {
            Target::Stdout => Self::Local(Local::Stdout),
            Target::File {
                path,
                rotate_bytes,
                keep,
            } => {
                let file = LogFile::open(path, *rotate_bytes, *keep);
                Self::Local(Local::File(file.map_err(|error| StartError::File {
                    path: path.clone(),
                    error,
                })?))
            }
            Target::Network {
                protocol,
                authorities,
                timeout,
                ..
            } => Self::Network(sink::transport(
                protocol,
                authorities.as_deref(),
                *timeout,
                writer.clone(),
            )?),
        })
    }
}

impl Opened {
    /// Starts the threads: one that makes events, and one for each sink.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(self) -> Result<BlockLog, StartError> {
        let (queue, messages) = queue::bounded(QUEUE, QUEUE_BYTES);
        let curfew = Arc::new(Curfew::default());
        let mut threads = Vec::new();
        let mut local = Vec::new();
        let mut network = Vec::new();
        let mut states = Vec::new();
        let shared = self.spool.as_ref().map(Spool::shared);
        for open in self.sinks {
            let reader = matches!(open.way, Way::Network(_)).then_some(network.len());
            states.push((Arc::clone(&open.state), reader));
            let started = match (open.way, &open.sink.target) {
                (
                    Way::Network(transport),
                    Target::Network {
                        batch_events,
                        longest_pause,
                        ..
                    },
                ) => {
                    let Some(shared) = &shared else { continue };
                    let courier = Courier {
                        reader: Reader::new(Arc::clone(shared), network.len()),
                        transport,
                        filter: open.sink.filter.clone(),
                        state: Arc::clone(&open.state),
                        curfew: Arc::clone(&curfew),
                        batch_events: *batch_events,
                        longest_pause: *longest_pause,
                    };
                    network.push((open.sink.filter, open.state));
                    courier.start()
                }
                (Way::Local(way), _) => {
                    let sink = LocalSink::start(way, open.sink.filter, open.writer, open.state);
                    sink.map(|(sink, thread)| {
                        local.push(sink);
                        thread
                    })
                }
                (Way::Network(_), _) => continue,
            };
            threads.push(started.map_err(StartError::Thread)?);
        }
        let counted = Arc::new(Counted {
            events: AtomicU64::new(0),
            spool_dropped: AtomicU64::new(0),
            spool: shared,
            sinks: states,
        });
        let teller = Teller {
            pairing: Pairing::default(),
            spool: self.spool,
            local,
            network,
            counted: Arc::clone(&counted),
            synced: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("clew-log".to_owned());
        let teller = thread.spawn(move || teller.tell_all(&messages));
        // Joined first: the sinks end when it has.
        threads.insert(0, teller.map_err(StartError::Thread)?);
        Ok(BlockLog {
            shared: Arc::new(Shared {
                queue: Mutex::new(Some(Arc::new(queue))),
                refused: AtomicU64::new(0),
                counted,
                curfew,
                threads: Mutex::new(threads),
            }),
        })
    }
}

/// Makes events, and hands them on.
struct Teller {
    pairing: Pairing,
    spool: Option<Spool>,
    local: Vec<LocalSink>,
    network: Vec<(crate::config::Filter, Arc<SinkState>)>,
    counted: Arc<Counted>,
    synced: Instant,
}

impl Teller {
    fn tell_all(mut self, messages: &Receiver<Message>) {
        loop {
            let told = match messages.take_within(self.patience()) {
                Ok(Message::Report(report)) => self.pairing.report(*report, now()),
                Ok(Message::Incident(incident)) => self.pairing.incident(*incident, now()),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.tell(told);
            let expired = self.pairing.expire(now());
            self.tell(expired);
            if self.synced.elapsed() >= SYNC {
                self.sync();
            }
        }
        let rest = self.pairing.drain(now());
        self.tell(rest);
        self.sync();
        if let Some(spool) = &self.spool {
            spool.close();
        }
    }

    /// How long there is nothing to do but to wait.
    fn patience(&self) -> Duration {
        let due = self.pairing.due().map(|it| it.since(Moment::now()));
        let dirty = self.spool.as_ref().is_some_and(Spool::is_dirty);
        let sync = dirty.then(|| SYNC.saturating_sub(self.synced.elapsed()));
        let longest = Duration::from_secs(60);
        due.into_iter().chain(sync).min().unwrap_or(longest)
    }

    fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            self.counted.events.fetch_add(1, Ordering::Relaxed);
            let Ok(record) = serde_json::to_vec(&event) else {
                continue;
            };
            if self.network.iter().any(|(filter, _)| filter.passes(&event)) {
                self.store(&event, &record);
            }
            let event = Arc::new(event);
            for sink in &self.local {
                sink.offer(&event, record.len());
            }
        }
    }

    fn store(&mut self, event: &Event, record: &[u8]) {
        let Some(spool) = &mut self.spool else {
            return;
        };
        if let Err(error) = spool.append(record) {
            self.counted.spool_dropped.fetch_add(1, Ordering::Relaxed);
            for (filter, state) in &self.network {
                if filter.passes(event) {
                    state.drop_events(1, &format!("the spool cannot be written: {error}"));
                }
            }
        }
    }

    fn sync(&mut self) {
        self.synced = Instant::now();
        if let Some(spool) = &mut self.spool
            && let Err(error) = spool.sync()
        {
            tracing::error!(%error, "the log's spool is not durable");
        }
    }
}

fn now() -> Now {
    Now {
        moment: Moment::now(),
        wall: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    }
}

/// Bytes of memory of what can be long, about.
fn report_bytes(report: &Report) -> usize {
    let of_match = |it: &clew_protocol::report::RuleMatch| {
        let tags: usize = it.tags.iter().map(|tag| tag.len() + 24).sum();
        it.message.len() + it.data.len() + it.variable.len() + it.file.len() + tags + 160
    };
    let matches: usize = report.matches.iter().map(of_match).sum();
    let texts = [&report.user_agent, &report.referrer, &report.content_type];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let hops: usize = report.forwarded.iter().map(|it| it.len() + 24).sum();
    size_of::<Report>() + matches + texts + hops + report.target.len() + report.authority.len()
}

fn incident_bytes(incident: &Incident) -> usize {
    let of_request =
        |it: &clew_protocol::incident::IncidentRequest| it.target.len() + it.authority.len() + 400;
    let of_step = |it: &clew_protocol::incident::Step| {
        let writers = it.written_by.len() * 2048;
        match &it.what {
            StepKind::Exec(exec) => {
                let texts = exec.args.iter().chain(&exec.env_vars);
                texts.map(|it| it.len() + 24).sum::<usize>() + 1024 + writers
            }
            _ => 512 + writers,
        }
    };
    let requests = incident.request.iter().chain(&incident.candidates);
    let steps: usize = incident.steps.iter().map(of_step).sum();
    size_of::<Incident>() + requests.map(of_request).sum::<usize>() + steps
}
