//! The messages that proxy, sensor and correlator speak to one another.
//!
//! The three never share anything else: on one host these types travel through bounded queues
//! in one process. Each type is plain data with a stated size bound; none holds a socket, a
//! file or a clock.
//!
//! | from | to | type |
//! |---|---|---|
//! | proxy | correlator | [`request::ProxyRecord`] |
//! | sensor | correlator | [`kernel::KernelEvent`] |
//! | correlator | proxy, sensor, log | [`verdict::Action`] |
//! | proxy | log | [`report::Report`] |
#![forbid(unsafe_code)]

pub mod identity;
pub mod incident;
pub mod kernel;
pub mod moment;
pub mod report;
pub mod request;
pub mod verdict;

pub use identity::{IncidentId, ProxyId, RequestId, Sequence, ServiceId, Token, TokenKey};
pub use moment::Moment;
