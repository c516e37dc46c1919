//! `clew rules`: what it says, and how it ends.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Test;
use crate::stage::CLEW;

pub(crate) const TESTS: &[Test] = &[
    ("rules_are_checked", rules_are_checked),
    ("requests_are_judged", requests_are_judged),
    ("suites_are_run", suites_are_run),
    ("a_rule_is_explained", a_rule_is_explained),
    (
        "what_nobody_reads_is_no_failure",
        what_nobody_reads_is_no_failure,
    ),
];

const RULES: &str = r#"
SecRuleEngine On
SecRule ARGS "@rx (?i)union\s+select" "id:7,phase:2,deny,status:406,msg:'SQL',t:none,t:urlDecodeUni"
"#;
const ATTACK: &str = "GET /?q=1%20UNION%20select%202 HTTP/1.1\r\nHost: a\r\n\r\n";

/// The command with these arguments, `rules.conf` at hand and `input` on its standard input.
fn clew(rules: &str, arguments: &[&str], input: &str) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("rules.conf"), rules)?;
    std::fs::write(folder.path().join("suite.yaml"), SUITE)?;
    let mut child = Command::new(CLEW)
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    // Commands that read no input may have ended.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Ok(child.wait_with_output()?)
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn rules_are_checked() -> Result<()> {
    let good = clew(RULES, &["rules", "check", "rules.conf"], "")?;
    ensure!(
        good.status.success() && said(&good).contains("1 rules in 1 files"),
        "{}",
        said(&good)
    );
    let text =
        "SecRule ARGS \"@rx (\" \"id:1,phase:2\"\nSecRule ARGS \"@nope x\" \"id:2,phase:2\"\n";
    let bad = clew(text, &["rules", "check", "."], "")?;
    ensure!(!bad.status.success());
    for place in ["rules.conf:1:", "rules.conf:2:", "2 errors"] {
        ensure!(said(&bad).contains(place), "no {place} in {}", said(&bad));
    }
    Ok(())
}

fn requests_are_judged() -> Result<()> {
    let arguments = ["rules", "eval", "--rules", "rules.conf", "--json"];
    let judged = clew(RULES, &arguments, ATTACK)?;
    let line: serde_json::Value = serde_json::from_slice(&judged.stdout)?;
    ensure!(
        line["verdict"] == "block" && line["status"] == 406,
        "{line}"
    );
    ensure!(
        line["rules"][0]["id"] == 7 && line["rules"][0]["variable"] == "ARGS:q",
        "{line}"
    );
    let benign = clew(
        RULES,
        &arguments,
        "GET /?q=union HTTP/1.1\r\nHost: a\r\n\r\n",
    )?;
    ensure!(said(&benign).contains("\"pass\""), "{}", said(&benign));
    Ok(())
}

const SUITE: &str = "
rule_id: 7
tests:
  - test_id: 1
    stages:
      - input: {uri: '/?q=1+union+select', headers: {Host: a}}
        output: {status: 406, log: {expect_ids: [7]}}
  - test_id: 2
    stages:
      - input: {uri: '/?q=select', headers: {Host: a}}
        output: {log: {no_expect_ids: [7]}}
";

fn suites_are_run() -> Result<()> {
    let arguments = [
        "rules",
        "test",
        "--rules",
        "rules.conf",
        "--tests",
        "suite.yaml",
    ];
    let passed = clew(RULES, &arguments, "")?;
    ensure!(
        passed.status.success() && said(&passed).contains("2 passed, 0 failed"),
        "{}",
        said(&passed)
    );
    let failed = clew("SecRuleEngine On\n", &arguments, "")?;
    ensure!(
        !failed.status.success() && said(&failed).contains("FAILED 7-1"),
        "{}",
        said(&failed)
    );
    Ok(())
}

fn a_rule_is_explained() -> Result<()> {
    let known = clew(
        RULES,
        &["rules", "explain", "7", "--rules", "rules.conf"],
        "",
    )?;
    ensure!(
        known.status.success() && said(&known).contains("urlDecodeUni"),
        "{}",
        said(&known)
    );
    let unknown = clew(
        RULES,
        &["rules", "explain", "8", "--rules", "rules.conf"],
        "",
    )?;
    ensure!(
        !unknown.status.success() && said(&unknown).contains("no rule 8"),
        "{}",
        said(&unknown)
    );
    Ok(())
}

/// As with `clew ... | head -1`: more is printed than a pipe holds, and its reader has gone.
fn what_nobody_reads_is_no_failure() -> Result<()> {
    for words in [&["check", "--schema"][..], &["completions", "bash"]] {
        let mut child = Command::new(CLEW)
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.is_empty(),
            "{words:?}: {said}"
        );
    }
    Ok(())
}
