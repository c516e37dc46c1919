//! Recorded orders of events on a fake clock: each proof, and the traps beside it.

mod batches;
mod bounds;
mod cases;
mod disorder;
mod handed;
mod memory;
mod proofs;
mod provenance;
mod scene;
mod truth;
