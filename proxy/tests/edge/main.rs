//! The edge over real sockets: what reaches a backend, what reaches a client, and what a verdict
//! does to a request wherever it is.

mod backends;
mod certificates;
mod downgrade;
mod endings;
mod forwarded;
mod framing;
mod gate;
mod hostile;
mod inputs;
mod inspection;
mod opaque;
mod patience;
mod preface;
mod relay;
mod report;
mod secure;
mod stage;
mod tls_stage;
mod upload;
mod verdict;
