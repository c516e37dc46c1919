//! Recorded orders of events on a fake clock: each proof, and the traps beside it.

mod bounds;
mod proofs;
mod scene;
mod truth;
