//! The block log: one event a line for a SIEM, in ECS or OCSF, to several sinks at once.
//!
//! ```text
//!  Report ──┐ queue          ┌─► queue ─► file, stdout                     sink/file.rs, local.rs
//!           ├──────► pairing ┤
//! Incident ─┘        masking └─► spool (disk) ─► courier ─► syslog, Elasticsearch,
//!                    event/      spool/          sink/      Splunk, webhook
//! ```
//!
//! | folder | what is in it |
//! |---|---|
//! | `event/` | what is told: [`event::Event`], which brings an incident and the report of its request together ([`event::pairing`]), what is masked ([`event::mask`]), cut, and how it is written: `ecs.rs`, `ocsf.rs`, `schema/` |
//! | `sink/` | where it goes |
//! | `spool/` | what waits on disk until every network sink has it |
//! | `config/` | `[[log]]` and `[log_spool]` |
//!
//! **Guaranteed.** [`BlockLog::report`] and [`BlockLog::incident`] never wait. No secret that [`event::mask`] knows
//! is written anywhere, the spool included. A line has at most [`event::LINE_BYTES`]: texts are cut to 2,048 bytes
//! and lists to 64 entries; of an event that is longer still to 512 and 32, 128 and 16, 64 and 8, 24 and 4;
//! `clew.cut` says so. What is in the spool reaches each network sink at least once and in order, but for single
//! events that Elasticsearch puts off; `event.id` tells what came twice. A sink that is slow or down makes neither
//! others nor callers wait.
//!
//! **Lost, and counted** ([`Counters`]): what finds the queue full; what a file or standard output is too slow for,
//! or cannot write; what the spool has no room for; what a receiver refuses. A crash loses what is in memory: the
//! queues, and a report or an incident that waits for its other half (five seconds at most).
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (sinks, spool): (Vec<clew_blocklog::RawSink>, clew_blocklog::RawSpool) = Default::default();
//! use clew_blocklog::{BlockLog, Config, Observer};
//!
//! let observer = Observer { hostname: "edge-1".into(), version: "0.1.0".into() };
//! let config = Config::check(&sinks, &spool, "/var/lib/clew".as_ref(), observer)?;
//! let paths = config.paths();             // made over to the account that is to go on
//! let opened = BlockLog::open(config)?;   // as root
//! let log = opened.start()?;              // as that account: threads begin here
//! // log.report(report); log.incident(incident);
//! log.finish(std::time::Duration::from_secs(5));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod config;
mod counters;
mod error;
pub mod event;
mod log;
mod opened;
mod queue;
#[cfg(test)]
mod sample;
mod sink;
mod spool;
mod teller;

pub use config::{
    Config, ConfigError, Format, Paths, RawFilter, RawSink, RawSpool, SinkKind, SyslogTransport,
    WebhookBody,
};
pub use counters::{Counters, SinkCounters, SpoolCounters};
pub use error::StartError;
pub use log::BlockLog;
pub use opened::Opened;
pub use spool::SpoolError;

/// Who tells.
#[derive(Debug, Clone)]
pub struct Observer {
    /// Name of this host.
    pub hostname: String,
    /// Version of Clew.
    pub version: String,
}
