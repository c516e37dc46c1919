//! Runs a suite against rules: `crs SUITE FILE...`; without files, Debian's `modsecurity-crs`.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clew_ftw::{AFTER, BEFORE, Outcome, load};
use clew_rules::engine::{MemoryCollections, Options, compile};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let suite = arguments.next().unwrap_or_default();
    let filter = arguments.next();
    let folder = std::env::temp_dir().join(format!("clew-ftw-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (before, after) = (folder.join("before.conf"), folder.join("after.conf"));
    std::fs::write(&before, BEFORE).expect("written");
    std::fs::write(&after, AFTER).expect("written");
    let load_file = PathBuf::from("/usr/share/modsecurity-crs/owasp-crs.load");
    let start = Instant::now();
    let ast = match clew_rules::seclang::load(&[before, load_file, after]) {
        Ok(ast) => ast,
        Err(errors) => return errors.iter().for_each(|e| println!("{e}")),
    };
    let parsed = start.elapsed();
    let options = Options {
        collections: Some(Arc::new(MemoryCollections::default())),
        ..Options::default()
    };
    let rules = match compile(&ast, options) {
        Ok(rules) => Arc::new(rules),
        Err(errors) => return errors.iter().for_each(|e| println!("{e}")),
    };
    println!(
        "{} rules, {} pipelines, parsed {parsed:?}, in all {:?}, {} warnings",
        rules.rules().len(),
        rules.pipelines(),
        start.elapsed(),
        rules.warnings().len()
    );
    if filter.as_deref() == Some("warnings") {
        rules.warnings().iter().for_each(|w| println!("{w}"));
    }
    let (mut passed, mut disabled, mut failed) = (0, 0, 0);
    let start = Instant::now();
    for suite in load(Path::new(&suite)).expect("suites") {
        for test in suite
            .tests
            .iter()
            .filter(|t| filter.as_deref().is_none_or(|f| t.title.starts_with(f)))
        {
            match test.run(&rules) {
                Outcome::Passed => passed += 1,
                Outcome::Disabled => disabled += 1,
                Outcome::Failed(why) => {
                    failed += 1;
                    println!("{}: {why}", test.title);
                }
            }
        }
    }
    println!(
        "{passed} passed, {failed} failed, {disabled} disabled in {:?}",
        start.elapsed()
    );
}
