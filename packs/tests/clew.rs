//! The pack that comes with Clew is sound, and lets benign requests pass.

use std::path::{Path, PathBuf};

use clew_packs::{Pack, Trial, check};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/packs/clew")
}

#[test]
fn the_pack_is_sound_and_each_rule_is_tested() {
    let pack = Pack::open(&folder()).expect("pack");
    let findings: Vec<_> = check(&pack).iter().map(ToString::to_string).collect();
    assert_eq!(findings, Vec::<String>::new());
    let trial = Trial::of(&pack).expect("tests");
    let failures: Vec<_> = trial.failures.iter().map(|it| format!("{}: {}", it.test, it.reason)).collect();
    assert_eq!(failures, Vec::<String>::new(), "{} passed", trial.passed);
    assert!(trial.passed > 200, "{} tests", trial.passed);
}
