//! Who is banned, for how long, and how that outlives the process.
//!
//! [`Policy`] says what a ban is (prefixes, escalation, who never is), [`Register`] holds the bans in force and
//! remembers offences: both are pure, and are told the time. [`Store`] keeps them in a file. [`Keeper`] has all
//! three, and tells the [`Table`] that refuses.
//!
//! A ban is in force when [`Keeper::ban`] returns, and durable when [`Keeper::wait_durable`] does: a thread of its
//! own writes, all that has changed meanwhile in one transaction, so that nobody who bans waits for a disk. What
//! a kill of the process can lose is what was banned in the time that two transactions take: some milliseconds.
#![forbid(unsafe_code)]

mod keeper;
mod policy;
mod register;
mod store;
mod wall;

pub use keeper::{Durability, Keeper, Stamp, Table, Tally};
pub use policy::{Measure, Policy};
pub use register::{Ban, Banned, Cause, Order, Refusal, Register, Span};
pub use store::{Store, StoreError};
pub use wall::Wall;
