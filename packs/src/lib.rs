//! Rule packs: SecLang rules, policy and limits, with their own tests, under a name and a version.
//!
//! A [`Pack`] is opened from a folder or an archive: [`contents`] reads its files within bounds, [`Manifest`] its
//! `pack.toml`. [`check()`] says everything that is wrong with it, [`Trial`] runs its tests. [`signature`] signs archives
//! and verifies them, as minisign does. [`store`] keeps what is installed and what is active, and [`Compiled`] makes one
//! rule set of that. [`Difference`] compares two packs; [`Exception`] writes one, for what should not have been stopped.
#![forbid(unsafe_code)]

mod check;
mod compiled;
pub mod contents;
mod difference;
mod except;
mod join;
pub mod limit;
mod listed;
mod located;
mod manifest;
mod pack;
pub mod policy;
mod rules;
pub mod signature;
pub mod store;
mod template;
#[cfg(test)]
mod testing;
mod trial;

pub use check::{Finding, Severity, check};
pub use compiled::{BODIES, Compiled, CompositionError, Host};
pub use difference::{Difference, RuleChange, RuleText};
pub use except::{ExceptError, Exception, Record, RuleException, Written};
pub use located::Located;
pub use pack::{Pack, PackError};
pub use trial::{Failure, Trial};

pub use manifest::{FILE, Manifest, ManifestError, Mode, PackId, PackName, RuleSource};
