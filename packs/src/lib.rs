//! Rule packs: SecLang rules, policy and limits, with their own tests, under a name and a version.
#![forbid(unsafe_code)]

pub mod contents;
pub mod limit;
mod manifest;
pub mod policy;
pub mod signature;

pub use manifest::{FILE, Manifest, ManifestError, Mode, PackId, PackName, RuleSource};
