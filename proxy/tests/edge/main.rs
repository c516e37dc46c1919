//! The edge over real sockets: what reaches a backend, what reaches a client, and what a verdict
//! does to a request wherever it is.

mod framing;
mod hostile;
mod inputs;
mod patience;
mod relay;
mod secure;
mod stage;
mod verdict;
