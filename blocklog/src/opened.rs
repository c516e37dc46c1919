//! Between files and threads: what needs rights is done, and no thread runs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::{Config, Filter, Sink, Target};
use crate::counters::SinkState;
use crate::error::StartError;
use crate::event::pairing::Pairing;
use crate::log::BlockLog;
use crate::queue;
use crate::sink::courier::{Courier, Curfew};
use crate::sink::file::LogFile;
use crate::sink::local::{Local, LocalSink};
use crate::sink::{self, Transport, Writer};
use crate::spool::{self, Reader, Spool};
use crate::teller::{Counted, Teller};

/// Reports and incidents that may wait to be made events.
const QUEUE: usize = 8192;
/// Most bytes of them, about.
const QUEUE_BYTES: usize = 64 << 20;

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
    Network {
        transport: Box<dyn Transport>,
        batch_events: usize,
        longest_pause: Duration,
    },
}

/// What runs, put together sink by sink.
struct Start {
    shared: Option<Arc<spool::Shared>>,
    curfew: Arc<Curfew>,
    threads: Vec<JoinHandle<()>>,
    local: Vec<LocalSink>,
    network: Vec<(Filter, Arc<SinkState>)>,
    states: Vec<(Arc<SinkState>, Option<usize>)>,
}

impl Opened {
    /// Opens files and the spool, and reads secrets and certificates.
    ///
    /// # Errors
    /// [`StartError`]
    pub(crate) fn open(config: &Config) -> Result<Self, StartError> {
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
        Ok(Self {
            sinks: sinks?,
            spool,
        })
    }

    /// Starts the threads: one that makes events, and one for each sink.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(self) -> Result<BlockLog, StartError> {
        let mut start = Start {
            shared: self.spool.as_ref().map(Spool::shared),
            curfew: Arc::default(),
            threads: Vec::new(),
            local: Vec::new(),
            network: Vec::new(),
            states: Vec::new(),
        };
        for sink in self.sinks {
            start.sink(sink).map_err(StartError::Thread)?;
        }
        start.teller(self.spool).map_err(StartError::Thread)
    }
}

impl Start {
    fn sink(&mut self, open: OpenSink) -> io::Result<()> {
        let (filter, state) = (open.sink.filter, open.state);
        let thread = match open.way {
            Way::Local(local) => {
                self.states.push((Arc::clone(&state), None));
                let (sink, thread) = LocalSink::start(local, filter, open.writer, state)?;
                self.local.push(sink);
                thread
            }
            Way::Network {
                transport,
                batch_events,
                longest_pause,
            } => {
                // There is a spool where there is a network sink.
                let Some(shared) = &self.shared else {
                    return Ok(());
                };
                let place = self.network.len();
                self.states.push((Arc::clone(&state), Some(place)));
                self.network.push((filter.clone(), Arc::clone(&state)));
                let courier = Courier {
                    reader: Reader::new(Arc::clone(shared), place),
                    transport,
                    filter,
                    state,
                    curfew: Arc::clone(&self.curfew),
                    batch_events,
                    longest_pause,
                };
                courier.start()?
            }
        };
        self.threads.push(thread);
        Ok(())
    }

    fn teller(mut self, spool: Option<Spool>) -> io::Result<BlockLog> {
        let (queue, messages) = queue::bounded(QUEUE, QUEUE_BYTES);
        let counted = Arc::new(Counted {
            events: AtomicU64::new(0),
            spool_dropped: AtomicU64::new(0),
            spool: self.shared,
            sinks: self.states,
        });
        let teller = Teller {
            pairing: Pairing::default(),
            spool,
            local: self.local,
            network: self.network,
            counted: Arc::clone(&counted),
            synced: Instant::now(),
        };
        let thread = std::thread::Builder::new().name("clew-log".to_owned());
        let thread = thread.spawn(move || teller.tell_all(&messages))?;
        // Joined first: the sinks end when it has.
        self.threads.insert(0, thread);
        Ok(BlockLog::new(queue, counted, self.curfew, self.threads))
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
                longest_pause,
                batch_events,
            } => Self::Network {
                transport: sink::transport(
                    protocol,
                    authorities.as_deref(),
                    *timeout,
                    writer.clone(),
                )?,
                batch_events: *batch_events,
                longest_pause: *longest_pause,
            },
        })
    }
}
