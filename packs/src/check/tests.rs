use super::*;
use crate::Trial;
use crate::testing::{folder, manifest, open, whole, write};

fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let text = manifest("one", "1.0.0", "block");
    let mut all = vec![("pack.toml", text.as_str())];
    all.extend_from_slice(files);
    check(&open(&folder(&all)))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[track_caller]
fn found(files: &[(&str, &str)], part: &str) {
    let list = findings(files);
    assert!(list.iter().any(|it| it.contains(part)), "{part}: {list:#?}");
}

#[test]
fn a_sound_pack_has_no_findings_and_passes() {
    let pack = whole("one", "1.0.0", "block", 1, "bad");
    assert_eq!(check(&open(&pack)), []);
    let trial = Trial::of(&open(&pack)).expect("tests");
    assert_eq!((trial.passed, trial.passes()), (2, true));
}

#[test]
fn all_errors_are_told_with_their_places() {
    let rules = "SecRule ARGS \"@rx (\" \"id:1,phase:2,deny\"\nSecRuleEngine On\nSecRule ARGS \"@nosuch\" \"id:2\"\n";
    let list = findings(&[("rules/a.conf", rules)]);
    assert!(
        list.iter()
            .any(|it| it.contains("rules/a.conf:2:1: SecRuleEngine")),
        "{list:#?}"
    );
    let rules = "SecRule ARGS \"@rx (\" \"id:1,phase:2,deny\"\nSecRule ARGS \"@nosuch x\" \"id:2,phase:2,pass\"\n";
    let list = findings(&[("rules/a.conf", rules)]);
    for line in ["a.conf:1:", "a.conf:2:", "there are no tests"] {
        assert!(list.iter().any(|it| it.contains(line)), "{line}: {list:#?}");
    }
}

#[test]
fn what_is_wrong_is_found() {
    let rule = "SecRule ARGS \"@contains x\" \"id:1,phase:2,deny\"\n";
    found(
        &[("rules/a.conf", rule), ("rules/b.conf", rule)],
        "b.conf:1:1: the id 1 is used already",
    );
    found(&[("rules/a.conf", rule)], "there are no tests");
    found(
        &[("rules/a.conf", rule), ("tests/a.yaml", "tests: [")],
        "tests/a.yaml",
    );
    found(
        &[
            ("rules/a.conf", rule),
            ("tests/a.yaml", "tests:\n- test_title: '2-1'\n"),
        ],
        "no test names rule 1",
    );
    found(
        &[("rules/a.conf", rule), ("data/x.data", "x")],
        "data/x.data: nothing reads this file",
    );
    found(&[("rules/a.conf", "Include /etc/hostname\n")], "hostname");
    found(
        &[(
            "rules/a.conf",
            "SecRule ARGS \"@pmFromFile /etc/hostname\" \"id:1,phase:2,pass\"\n",
        )],
        "outside of the pack",
    );
    found(
        &[(
            "rules/a.conf",
            "SecRule ARGS \"@pmFromFile /dev/zero\" \"id:1,phase:2,pass\"\n",
        )],
        "no regular file",
    );
    found(
        &[(
            "rules/a.conf",
            "SecAction \"id:1,phase:1,pass,nolog,skipAfter:END\"\n",
        )],
        "skipAfter:END would skip",
    );
    found(&[], "it does nothing");
}

#[test]
fn data_that_a_rule_reads_is_used() {
    let rule = "SecRule ARGS \"@pmFromFile ../data/x.data\" \"id:1,phase:2,nolog,pass\"\n";
    assert_eq!(
        findings(&[
            ("rules/a.conf", rule),
            ("data/x.data", "x"),
            ("README.md", "x")
        ]),
        Vec::<String>::new()
    );
}

#[test]
fn a_benign_request_that_a_rule_matches_fails() {
    let pack = whole("one", "1.0.0", "block", 1, "bad");
    let test = "tests:\n- test_title: '1-9'\n  stages:\n  - input:\n      uri: /?q=bad\n      headers:\n        Host: a\n    output:\n      log:\n        no_expect_ids: [2]\n";
    write(pack.path(), &[("tests/z.yaml", test)]);
    let trial = Trial::of(&open(&pack)).expect("tests");
    assert!(
        trial.failures[0].reason.contains("rule 1 matched"),
        "{trial:?}"
    );
}
