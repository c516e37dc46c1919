//! The pack that comes with Clew is sound, and lets benign requests pass.

mod benign;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clew_ftw::Run;
use clew_packs::{BODIES, Compiled, Host, Pack, Trial as Tests, check};
use clew_rules::engine::RuleSet;
use clew_rules::seclang::ast::Directive;
use clew_rules::seclang::parse_text;
use libtest_mimic::{Arguments, Failed, Trial};

/// Benign requests of which at most one in a thousand may match.
const BENIGN: usize = 20_000;

fn main() {
    let corpora = std::env::var_os("CLEW_CORPORA").map(PathBuf::from);
    let corpora = corpora.unwrap_or_else(|| manifest_folder().join("../../shared/corpora"));
    let suites = corpora.join("crs-3.3.4-regression");
    let absent = !suites.is_dir();
    if absent {
        eprintln!(
            "ignored: {} is absent (CLEW_CORPORA names another place)",
            suites.display()
        );
    }
    let negatives = Trial::test("what_the_core_rule_set_calls_harmless_passes", move || {
        harmless(&suites)
    });
    let trials = vec![
        Trial::test("the_pack_is_sound_and_each_rule_is_tested", sound),
        Trial::test("benign_requests_pass", benign_requests),
        negatives.with_ignored_flag(absent),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn manifest_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pack() -> Result<Pack, Failed> {
    Ok(Pack::open(&manifest_folder().join("../rules/packs/clew"))?)
}

fn rules() -> Result<Arc<RuleSet>, Failed> {
    let before = parse_text("bodies.conf", BODIES).map_err(|errors| format!("{errors:?}"))?;
    let host = Host {
        defaults: vec![Directive::RequestBodyAccess(true)],
        before,
        ..Host::default()
    };
    let compiled = Compiled::of(&[pack()?], host);
    Ok(compiled.map_err(|errors| format!("{errors:?}"))?.rules)
}

fn sound() -> Result<(), Failed> {
    let pack = pack()?;
    let findings: Vec<_> = check(&pack).iter().map(ToString::to_string).collect();
    if !findings.is_empty() {
        return Err(findings.join("\n").into());
    }
    let tests = Tests::of(&pack).map_err(|errors| errors.join("\n"))?;
    let failures = tests.failures.iter();
    let failures: Vec<_> = failures
        .map(|it| format!("{}: {}", it.test, it.reason))
        .collect();
    match tests.passes() && tests.passed > 400 {
        true => Ok(()),
        false => Err(format!("{} passed\n{}", tests.passed, failures.join("\n")).into()),
    }
}

fn benign_requests() -> Result<(), Failed> {
    let rules = rules()?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut wrong = Vec::new();
    for _ in 0..BENIGN {
        let request = benign::request(&mut random);
        let run = Run::of_bytes(&rules, &request);
        let Some(200 | 404) = run.status else {
            let line = run.log.first().cloned().unwrap_or_default();
            wrong.push(format!(
                "{:?} {line}\n{}",
                run.status,
                String::from_utf8_lossy(&request)
            ));
            continue;
        };
    }
    println!("{} of {BENIGN} benign requests were refused", wrong.len());
    match wrong.len() * 1000 <= BENIGN {
        true => Ok(()),
        false => Err(format!("{} of {BENIGN}:\n{}", wrong.len(), wrong.join("\n---\n")).into()),
    }
}

/// Requests with which rules of CRS are shown not to match too much: near misses, harder than what people send.
fn harmless(suites: &Path) -> Result<(), Failed> {
    let rules = rules()?;
    let (mut count, mut wrong) = (0_usize, Vec::new());
    let suites = clew_ftw::load(suites)?;
    for test in suites.iter().flat_map(|suite| &suite.tests) {
        for stage in &test.stages {
            let output = &stage.output;
            if output.no_log_contains.is_none() || output.log_contains.is_some() {
                continue;
            }
            count += 1;
            let run = Run::of(&rules, stage);
            if run.ids.iter().any(|id| (9_500_000..9_600_000).contains(id)) {
                wrong.push(format!("{}: {:?}", test.title, run.ids));
            }
        }
    }
    println!(
        "{} of {count} negative tests of CRS were refused",
        wrong.len()
    );
    match count >= 200 && wrong.is_empty() {
        true => Ok(()),
        false => Err(format!("of {count}:\n{}", wrong.join("\n")).into()),
    }
}
