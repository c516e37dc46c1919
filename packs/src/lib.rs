//! Rule packs: SecLang rules, policy and limits, with their own tests, under a name and a version.
#![forbid(unsafe_code)]

mod check;
mod compiled;
pub mod contents;
mod join;
pub mod limit;
mod manifest;
mod pack;
pub mod policy;
mod rules;
pub mod signature;
pub mod store;
#[cfg(test)]
mod testing;
mod trial;

pub use check::{Finding, Severity, check};
pub use compiled::{BODIES, Compiled, CompositionError, Host};
pub use pack::{Pack, PackError};
pub use trial::{Failure, Trial};

pub use manifest::{FILE, Manifest, ManifestError, Mode, PackId, PackName, RuleSource};
