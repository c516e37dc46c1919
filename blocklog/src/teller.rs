//! The thread that makes events of what is handed over, and hands them on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clew_protocol::Moment;
use clew_protocol::incident::{Incident, IncidentRequest, Step, StepKind};
use clew_protocol::report::{Report, RuleMatch};

use crate::config::Filter;
use crate::counters::SinkState;
use crate::event::Event;
use crate::event::pairing::{Now, Pairing};
use crate::queue::Receiver;
use crate::sink::local::LocalSink;
use crate::spool::{self, Spool};

/// How long a record waits to be made durable.
const SYNC: Duration = Duration::from_millis(200);

/// What is handed over.
#[derive(Debug)]
pub(crate) enum Message {
    Report(Box<Report>),
    Incident(Box<Incident>),
}

impl Message {
    /// Bytes of memory of what can be long, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Report(report) => report_bytes(report),
            Self::Incident(incident) => incident_bytes(incident),
        }
    }
}

/// What is counted beside the sinks.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) events: AtomicU64,
    pub(crate) spool_dropped: AtomicU64,
    pub(crate) spool: Option<Arc<spool::Shared>>,
    /// Each sink, and of a network sink its place among the spool's readers.
    pub(crate) sinks: Vec<(Arc<SinkState>, Option<usize>)>,
}

/// Makes events, and hands them on.
pub(crate) struct Teller {
    pub(crate) pairing: Pairing,
    pub(crate) spool: Option<Spool>,
    pub(crate) local: Vec<LocalSink>,
    pub(crate) network: Vec<(Filter, Arc<SinkState>)>,
    pub(crate) counted: Arc<Counted>,
    pub(crate) synced: Instant,
}

impl Teller {
    pub(crate) fn tell_all(mut self, messages: &Receiver<Message>) {
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

fn report_bytes(report: &Report) -> usize {
    let of_match = |it: &RuleMatch| {
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
    let of_request = |it: &IncidentRequest| it.target.len() + it.authority.len() + 400;
    let of_step = |it: &Step| {
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
