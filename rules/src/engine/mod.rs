//! The engine: rules are compiled to a [`RuleSet`], which any number of transactions evaluate.
//!
//! [`compile()`] turns a syntax tree into a [`RuleSet`]: immutable, `Send + Sync`, shared without
//! locks. A [`Transaction`] takes one request and its response through the five phases. It does
//! no I/O and reads no clock: bytes and times are given to it, a [`Verdict`] comes back.
//!
//! Where things are: `variable` names what rules look at, `values` holds the bytes and what
//! transformations make of them, `pipeline` the lists of transformations, `tx` and `collections`
//! what rules write, `macros` the texts, `compile` the way from the tree to rules, `transaction`
//! the evaluation.
//!
//! Invariant: a filter only decides whether an operator is called, never what follows from it.

mod classes;
mod collections;
mod compile;
mod filter;
mod macros;
mod name_pattern;
mod names;
mod number;
mod phase;
mod pipeline;
mod record;
mod ruleset;
mod segment;

mod settings;
mod transaction;
mod tx;
mod values;
mod variable;
mod verdict;

pub use collections::{Change, Collection, Collections, MemoryCollections, Place, Record, Stored};
pub use compile::{CompileError, compile};
pub use phase::Phase;
pub use record::Match;
pub use ruleset::{Processor, RuleInfo, RuleSet};
pub use settings::{Options, OutOfTime, Settings};
pub use transaction::{Connection, Now, Transaction};
pub use variable::{Kind, Variable};
pub use verdict::{Disruption, Intervention, Verdict};
