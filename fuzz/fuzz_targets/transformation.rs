//! Transformations: no panic, and "changed" says whether the value changed.
#![no_main]

use clew_rules::transformation::Transformation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((which, value)) = data.split_first() else {
        return;
    };
    let which = Transformation::ALL[usize::from(*which) % Transformation::ALL.len()];
    let mut out = Vec::new();
    let changed = which.apply(value, None, &mut out);
    assert!(
        !changed || out != value,
        "{} says that it changed the value",
        which.name()
    );
});
