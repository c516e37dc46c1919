use clew_ftw::Run;
use clew_rules::seclang::parse_text;

use super::*;
use crate::testing::{folder, manifest, open, whole};

fn status(rules: &Arc<RuleSet>, query: &str) -> Option<u16> {
    let request = format!("GET /?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
    Run::of_bytes(rules, request.as_bytes()).status
}

fn host() -> Host {
    Host {
        defaults: vec![Directive::RequestBodyAccess(true)],
        before: parse_text("bodies.conf", BODIES).expect("bodies"),
        ..Host::default()
    }
}

#[test]
fn a_pack_blocks_or_detects_as_its_mode_says() {
    let (one, two) = (
        whole("one", "1.0.0", "block", 1, "bad"),
        whole("two", "2.0.0", "detect", 2, "odd"),
    );
    let packs = [open(&one), open(&two)];
    let compiled = Compiled::of(&packs, host()).expect("compiled");
    assert_eq!(status(&compiled.rules, "q=bad"), Some(403));
    assert_eq!(status(&compiled.rules, "q=odd"), Some(200));
    let run = Run::of_bytes(&compiled.rules, b"GET /?q=odd HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(run.ids, [2], "it is logged all the same");
    assert_eq!(compiled.packs[1].version, "2.0.0");
    let only = [open(&two)];
    let engine = Compiled::of(&only, host())
        .expect("compiled")
        .rules
        .settings()
        .engine;
    assert_eq!(engine, RuleEngine::DetectionOnly);
}

#[test]
fn files_of_the_configuration_keep_their_own_engine() {
    let one = whole("one", "1.0.0", "block", 1, "bad");
    let rule = "SecRule ARGS \"@contains own\" \"id:7,phase:2,deny,status:401\"\n";
    let of = |text: &str, overrides: Vec<Directive>| {
        let files = Some(parse_text("own.conf", text).expect("rules"));
        let host = Host {
            files,
            overrides,
            ..host()
        };
        Compiled::of(&[open(&one)], host).expect("compiled").rules
    };
    assert_eq!(
        status(&of(rule, vec![]), "q=own"),
        Some(200),
        "DetectionOnly is the default"
    );
    let on = of(&format!("SecRuleEngine On\n{rule}"), vec![]);
    assert_eq!(
        (status(&on, "q=own"), status(&on, "q=bad")),
        (Some(401), Some(403))
    );
    let quiet = of(rule, vec![Directive::RuleEngine(RuleEngine::DetectionOnly)]);
    assert_eq!(
        status(&quiet, "q=bad"),
        Some(200),
        "the configuration wins over packs"
    );
    let off = of(&format!("SecRuleEngine Off\n{rule}"), vec![]);
    assert_eq!((off.rules().len(), status(&off, "q=bad")), (5, Some(403)));
}

#[test]
fn without_packs_the_files_are_as_they_are() {
    let text =
        "SecRuleEngine On\nSecRule ARGS \"@contains own\" \"id:7,phase:2,deny,status:401\"\n";
    let files = Some(parse_text("own.conf", text).expect("rules"));
    let compiled = Compiled::of(&[], Host { files, ..host() }).expect("compiled");
    assert_eq!(status(&compiled.rules, "q=own"), Some(401));
    assert!(compiled.packs.is_empty());
}

#[test]
fn ids_of_two_packs_name_both() {
    let (one, two) = (
        whole("one", "1.0.0", "block", 5, "bad"),
        whole("two", "2.0.0", "detect", 5, "odd"),
    );
    let errors = Compiled::of(&[open(&one), open(&two)], host()).expect_err("shared");
    let text = errors[0].to_string();
    assert!(
        text.contains("rule 5 is in pack one@1.0.0") && text.contains("and in pack two@2.0.0"),
        "{text}"
    );
    assert_eq!(errors.len(), 1);
}

#[test]
fn default_actions_and_open_chains_end_with_their_pack() {
    let manifest_one = manifest("one", "1.0.0", "block");
    let text = "SecDefaultAction \"phase:2,deny,status:410,log\"\nSecRule ARGS \"@contains one\" \"id:1,phase:2,block\"\n";
    let one = folder(&[("pack.toml", &manifest_one), ("rules/a.conf", text)]);
    let manifest_two = manifest("two", "1.0.0", "block");
    let text = "SecRule ARGS \"@contains two\" \"id:2,phase:2,block\"\n";
    let two = folder(&[("pack.toml", &manifest_two), ("rules/a.conf", text)]);
    let rules = Compiled::of(&[open(&one), open(&two)], host())
        .expect("compiled")
        .rules;
    assert_eq!(
        (status(&rules, "q=one"), status(&rules, "q=two")),
        (Some(410), Some(200))
    );
    let text = "SecRule ARGS \"@contains one\" \"id:1,phase:2,deny,chain\"\n";
    let open_chain = folder(&[("pack.toml", &manifest_one), ("rules/a.conf", text)]);
    let errors = Compiled::of(&[open(&open_chain), open(&two)], host()).expect_err("open");
    assert!(
        errors[0].to_string().contains("no rule follows it"),
        "{}",
        errors[0]
    );
}

#[test]
fn errors_in_a_later_pack_name_its_file() {
    let one = whole("one", "1.0.0", "block", 1, "bad");
    let manifest = manifest("two", "1.0.0", "block");
    let text = "\n\nSecRule ARGS \"@nosuch x\" \"id:2,phase:2,pass\"\n";
    let two = folder(&[("pack.toml", &manifest), ("rules/a.conf", text)]);
    let errors = Compiled::of(&[open(&one), open(&two)], host()).expect_err("operator");
    assert!(
        errors[0].to_string().contains("rules/a.conf:3:"),
        "{}",
        errors[0]
    );
}

#[test]
fn packs_that_say_first_run_before_the_others() {
    let one = whole("one", "1.0.0", "block", 1, "bad");
    let text = format!("{}first = true\n", manifest("exceptions", "1.0.0", "block"));
    let rule = "SecRule REQUEST_FILENAME \"@streq /free\" \"id:9,phase:1,pass,nolog,ctl:ruleRemoveTargetById=1;ARGS:q\"\n";
    let free = folder(&[("pack.toml", &text), ("rules/a.conf", rule)]);
    let rules = Compiled::of(&[open(&one), open(&free)], host())
        .expect("compiled")
        .rules;
    let asked = |path: &str| {
        Run::of_bytes(
            &rules,
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        )
        .status
    };
    assert_eq!(
        (
            asked("/free?q=bad"),
            asked("/other?q=bad"),
            asked("/free?p=bad")
        ),
        (Some(404), Some(403), Some(403))
    );
    let ids: Vec<u64> = rules.rules().iter().map(|it| it.id).collect();
    assert_eq!(ids[ids.len() - 2..], [9, 1]);
}

#[test]
fn a_pack_that_detects_changes_nothing_for_others() {
    let one = whole("one", "1.0.0", "block", 1, "bad");
    let text = manifest("two", "1.0.0", "detect");
    let rule = "SecAction \"id:8,phase:1,allow,ctl:ruleEngine=Off\"\nSecRule ARGS \"@contains x\" \"id:9,phase:1,drop,chain\"\nSecRule ARGS \"@contains y\" \"block\"\n";
    let two = folder(&[("pack.toml", &text), ("rules/a.conf", rule)]);
    let rules = Compiled::of(&[open(&two), open(&one)], host())
        .expect("compiled")
        .rules;
    assert_eq!(
        (status(&rules, "q=bad"), status(&rules, "q=xy")),
        (Some(403), Some(200))
    );
}
