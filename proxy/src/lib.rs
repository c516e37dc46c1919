//! The edge: HTTP in, tagged HTTP out, and the verdict carried out.
//!
//! The only crate that names pingora. [`Edge::bind`] takes the ports while there are rights to,
//! [`Edge::serve`] runs until [`Handle::shutdown`]. A verdict reaches a request through
//! [`Handle::cancel`]: the upstream connection is reset under the waiting request, whose task
//! then answers 403, or cuts the response that it has begun. Until there is one, responses that may
//! be the consequence of what the kernel has stopped wait at a gate.
#![forbid(unsafe_code)]

mod access;
mod bans;
mod callbacks;
mod client;
mod config;
mod connection;
mod counters;
mod downstream;
mod edge;
mod endings;
mod exchange;
mod flight;
mod framing;
mod gate;
mod held;
mod inputs;
mod inspection;
mod listener;
mod page;
mod proxy_protocol;
mod rate;
mod report;
mod request_line;
mod service;
mod trace;
mod unescape;
mod upload;
mod upstream;

pub use access::{Access, Accesses};
pub use bans::{Ban, Barrier, Dropped};
pub use config::{
    Announcement, Announcer, ClientCertificates, Config, ForwardingHeader, HealthCheck, Identity,
    Limits, ListenerConfig, Offenders, OnFailure, Reports, Rulebook, RulesConfig, ServiceConfig,
    StopCount, Tagging, TlsConfig, TlsVersion, TrustedHops, UnknownCoding, UpstreamTls,
};
pub use counters::Counters;
pub use edge::{BindError, Edge, Handle};
pub use endings::{BUCKETS_SECONDS, Ending, Endings};
pub use inspection::{ShadowExample, ShadowReport};
pub use page::{Page, Pages};
pub use rate::{Excess, RateKey, RateLimit, RateLimits, RateScope};
pub use trace::{Span, Tracing};
