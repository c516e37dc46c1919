use std::time::Duration;

use super::*;
use crate::limit::{Key, LimitAction};

const LEAST: &str = "name = \"shop\"\nversion = \"1.2.3\"\nclew = \"0.1\"\ndescription = \"Rules of the shop\"\nmode = \"block\"\n";

fn with(more: &str) -> Result<Manifest, Vec<ManifestError>> {
    Manifest::parse(&format!("{LEAST}{more}"))
}

fn errors(text: &str) -> String {
    let list = Manifest::parse(text).expect_err(text);
    let lines: Vec<_> = list.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn the_least_pack_has_the_rules_of_its_folder() {
    let manifest = with("").expect("valid");
    assert_eq!(manifest.id().to_string(), "shop@1.2.3");
    assert_eq!(
        manifest.rules,
        [RuleSource::Inside("rules/*.conf".to_owned())]
    );
    assert!(!manifest.first && manifest.limits.is_empty());
}

#[test]
fn all_that_a_pack_can_say_is_read() {
    let manifest = with(
        "first = true
[rules]
files = [\"rules/a.conf\", \"/usr/share/modsecurity-crs/owasp-crs.load\"]
[[exec]]
path = \"/bin/sh\"
arguments = [\"sh\", \"-c\", \"uptime\"]
service = \"shop\"
[[connect]]
network = \"10.0.0.0/8\"
port = 5432
[[files]]
protect = [\"/etc/shadow\"]
web_root = [\"/srv/www\"]
refuse_writes = true
[ban]
seconds = 600
escalation = 4
[[limit]]
name = \"login\"
key = \"token\"
header = \"X-Api-Key\"
path = \"/login\"
methods = [\"post\"]
requests = 5
seconds = 60
action = \"ban\"
",
    )
    .expect("valid");
    assert!(
        matches!(&manifest.rules[1], RuleSource::Outside(path) if path.ends_with("owasp-crs.load"))
    );
    let ban = manifest.policy.ban.as_ref().expect("ban");
    assert_eq!(ban.span, Some(Duration::from_secs(600)));
    assert_eq!(manifest.policy.lines().len(), 4);
    let limit = &manifest.limits[0];
    assert_eq!(limit.name, "shop/login");
    assert_eq!(limit.key, Key::Token("x-api-key".to_owned()));
    assert_eq!((limit.status, limit.action), (429, LimitAction::Ban));
    assert!(limit.applies("POST", "/login/x") && !limit.applies("GET", "/login"));
}

#[test]
fn every_error_is_told_not_only_the_first() {
    let text = "name = \"Shop\"\nversion = \"1\"\nclew = \"99\"\ndescription = \"\"\nmode = \"block\"\n\
        [rules]\nfiles = [\"../x.conf\"]\n[[exec]]\npath = \"sh\"\n[[files]]\nrefuse_writes = true\n\
        [ban]\nescalation = 0\n[[limit]]\nname = \"a\"\nrequests = 0\nseconds = 0\nstatus = 200\npath = \"x\"\n";
    let errors = errors(text);
    for part in [
        "\"Shop\" is no name",
        "version \"1\" is not like 1.2.3",
        "needs Clew 99.0.0",
        "description must",
        "leaves the pack",
        "sh must be written out from /",
        "neither protect nor web_root",
        "escalation must be",
        "requests must be",
        "seconds must be",
        "status must be",
        "must begin with /",
    ] {
        assert!(errors.contains(part), "{part}\n{errors}");
    }
}

#[test]
fn unknown_keys_name_the_nearest() {
    let text = errors(&format!("{LEAST}[[limit]]\nname = \"a\"\nrequest = 5\n"));
    assert!(
        text.contains("pack.toml:8") && text.contains("did you mean `requests`?"),
        "{text}"
    );
}

#[test]
fn a_header_needs_a_token_and_names_are_given_once() {
    let limit = "[[limit]]\nname = \"a\"\nrequests = 1\nseconds = 1\nheader = \"x\"\n";
    let text = errors(&format!("{LEAST}{limit}{limit}"));
    assert!(
        text.contains("needs key") && text.contains("two limits"),
        "{text}"
    );
}
