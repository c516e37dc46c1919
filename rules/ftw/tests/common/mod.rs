//! Rule sets made up by tests.

use std::sync::Arc;

use clew_rules::engine::{Options, RuleSet, compile};

/// xorshift64*
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Below `sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

/// The rules of `text`, without the filter and with it.
pub(crate) fn compiled(text: &str) -> [Arc<RuleSet>; 2] {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let ast = clew_rules::seclang::load(&[file.path().to_owned()]).unwrap();
    [false, true].map(|prefilter| {
        let options = Options {
            prefilter,
            ..Options::default()
        };
        Arc::new(compile(&ast, options).unwrap_or_else(|errors| panic!("{errors:?}\n{text}")))
    })
}
