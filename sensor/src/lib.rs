//! Loads Clew's BPF programs, tells them what to stop, and decodes what they report.
//!
//! The only crate that names aya. [`Sensor::load`] needs root or `CAP_BPF`, `CAP_PERFMON`,
//! `CAP_NET_ADMIN`, `CAP_SYS_RESOURCE` and `CAP_SYS_ADMIN` (to mount); once it has returned,
//! everything works through open descriptors and no capability is needed any more (Linux 5.19:
//! `bpf(2)` asks for rights only to create maps and load programs).
//!
//! Oldest kernel tried: Debian's 6.1. What provides each step is looked for at start, see `steps`.

mod announced;
mod attach;
mod barrier;
mod btf;
mod cgroup;
mod decode;
pub mod doctor;
mod file;
mod hops;
mod ledger;
mod lsm;
mod maps;
mod memory;
mod network;
mod pin;
mod policy;
mod registers;
mod sched;
mod sensor;
pub mod statistics;
mod steps;
mod stops;
mod tables;

pub use announced::Announcer;
pub use barrier::{Barrier, BarrierError, Dropped};
pub use cgroup::mounted as cgroup2_mount;
pub use decode::DecodeError;
pub use pin::{clean, leftovers};
pub use policy::{ConnectRule, ExecRule, FileRule, Mode, Policy, Watch};
pub use sched::run_soon;
pub use sensor::{Config, Counters, LoadError, Sensor, Service};
pub use stops::Stops;
pub use tables::PolicyTables;
