//! SecLang rules: parsed ([`seclang`]), compiled and evaluated ([`engine`]).

#![forbid(unsafe_code)]

pub mod body;
pub mod engine;
pub mod operator;
pub mod regex;
pub mod seclang;
pub mod transformation;
