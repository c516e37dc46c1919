//! Joins requests and kernel events into incidents, verdicts and bans.
//!
//! A pure state machine: requests, events and time come in through
//! [`Correlator::handle`], actions go out. It knows no socket, clock or thread, and every table
//! in it has a capacity.
//!
//! What an attribution rests on is its [`Proof`](clew_protocol::verdict::Proof); what may be
//! done depends on it. "One of these" is an honest answer; a wrong name is not.
#![forbid(unsafe_code)]

mod cases;
mod content;
mod correlator;
mod docket;
mod forgotten;
mod losses;
mod process;
pub mod profile;
mod proof;
mod provenance;
mod requests;
mod sketch;
mod verdict;
mod workload;

pub use correlator::{Config, Correlator, Counters, Deed, Input};
