//! Rule packs: SecLang rules, policy and limits, with their own tests, under a name and a version.
#![forbid(unsafe_code)]

mod check;
mod compiled;
pub mod contents;
mod difference;
mod except;
mod join;
pub mod limit;
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
pub use pack::{Pack, PackError};
pub use trial::{Failure, Trial};

pub use manifest::{FILE, Manifest, ManifestError, Mode, PackId, PackName, RuleSource};
