//! Rule text: the parser does not panic, and what it accepts the compiler accepts or refuses.
#![no_main]

use clew_rules::engine::{Options, compile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(ast) = clew_rules::seclang::parse_text("fuzz", text) {
        let _ = compile(&ast, Options::default());
    }
});
