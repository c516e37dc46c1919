//! The pack that comes with Clew is sound, and lets benign requests pass.

mod benign;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clew_ftw::Run;
use clew_packs::contents::Contents;
use clew_packs::{BODIES, Compiled, Host, Pack, Severity, Trial as Tests, check};
use clew_rules::engine::RuleSet;
use clew_rules::seclang::ast::Directive;
use clew_rules::seclang::parse_text;
use libtest_mimic::{Arguments, Failed, Trial};

const CRS: &str = "/usr/share/modsecurity-crs/owasp-crs.load";

/// Benign requests of which at most one in a thousand may match.
const BENIGN: usize = 5_000;

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
    let crs = Path::new(CRS);
    if !crs.exists() {
        eprintln!("ignored: {CRS} is absent; install Debian's modsecurity-crs");
    }
    let beside = Trial::test("the_core_rule_set_is_a_pack_beside_it", beside_crs);
    let trials = vec![
        beside.with_ignored_flag(!crs.exists()),
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
    compiled(&[pack()?])
}

fn compiled(packs: &[Pack]) -> Result<Arc<RuleSet>, Failed> {
    let before = parse_text("bodies.conf", BODIES).map_err(|errors| format!("{errors:?}"))?;
    let host = Host {
        defaults: vec![Directive::RequestBodyAccess(true)],
        before,
        ..Host::default()
    };
    let compiled = Compiled::of(packs, host);
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

/// Rules that are installed on the host are added by a pack that names their place.
fn beside_crs() -> Result<(), Failed> {
    let ask = |rules: &Arc<RuleSet>, target: &str| {
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n");
        Run::of_bytes(rules, request.as_bytes()).status
    };
    let (sqli, jndi) = ("/?q=1'+union+select+1,2--+-", "/?q=$%7Bjndi:ldap://x%7D");
    let blocking = compiled(&[crs("block")?, pack()?])?;
    assert_eq!(ask(&blocking, sqli), Some(403));
    assert_eq!(ask(&blocking, "/?q=fine"), Some(200));
    let detecting = compiled(&[crs("detect")?, pack()?])?;
    assert_eq!(ask(&detecting, sqli), Some(200));
    assert_eq!(ask(&detecting, jndi), Some(403));
    Ok(())
}

fn crs(mode: &str) -> Result<Pack, Failed> {
    let folder = tempfile::tempdir()?;
    let manifest = format!(
        "name = \"crs\"\nversion = \"3.3.4\"\nclew = \"0.1\"\ndescription = \"CRS\"\nmode = \"{mode}\"\n\
         [rules]\nfiles = [\"{CRS}\"]\n"
    );
    std::fs::write(folder.path().join("pack.toml"), manifest)?;
    let pack = Pack::of_contents(folder.path(), Contents::of_folder(folder.path())?)?;
    let found = check(&pack);
    match found.iter().find(|it| it.severity == Severity::Error) {
        Some(error) => Err(error.to_string().into()),
        None => Ok(pack),
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
