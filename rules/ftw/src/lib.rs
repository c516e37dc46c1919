//! Regression suites for WAF rules, run in process.
//!
//! `suite` reads the two schemas of FTW: the older one (CRS 3) and today's (CRS 4). `request` makes
//! of a test's input the bytes that a client would send, `server` reads them as the web server in
//! front of the rules would (Apache httpd, on which CRS runs its tests) and answers, and `run` puts
//! both around a transaction and compares what was logged with what the test wants.

#![forbid(unsafe_code)]

mod crs;
mod request;
mod run;
mod server;
mod suite;

pub use crs::{AFTER, BEFORE};
pub use request::bytes;
pub use run::{Outcome, Run};
pub use server::{Answer, Refusal, Request};
pub use suite::{Input, Output, Schema, Stage, Suite, SuiteError, Test, load};
