//! From the report of a request to exclusions: this rule does not look at this target, at this path.

use clew_protocol::report::{Outcome, REPORT_TEXT_BYTES, Report, RuleMatch};
use clew_rules::body::normal::Target;

use super::Exception;

/// A rule is not to look at a target, at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleException {
    /// The path as `REQUEST_FILENAME` has it: percent-decoded, without a query.
    pub path: String,
    /// The rule.
    pub rule: u64,
    /// The target, for example `ARGS:q`.
    pub target: String,
    /// The request that it was written for.
    pub request: String,
}

impl RuleException {
    /// As SecLang.
    pub fn text(&self, id: u64) -> String {
        let Self {
            path,
            rule,
            target,
            request,
        } = self;
        format!(
            "# For request {request}.\nSecRule REQUEST_FILENAME \"@streq {path}\" \\\n    \
             \"id:{id},phase:1,pass,nolog,t:none,ctl:ruleRemoveTargetById={rule};{target}\"\n"
        )
    }
}

pub(super) fn exception(report: &Report) -> Exception {
    let mut exception = Exception::default();
    if let Some(reason) = unfit(report) {
        exception.left.push(reason.to_owned());
        return exception;
    }
    let path = match path(&report.target) {
        Ok(path) => path,
        Err(reason) => {
            exception.left.push(reason);
            return exception;
        }
    };
    for found in deciding(report) {
        match target(found) {
            Err(reason) => exception.left.push(format!("rule {}: {reason}", found.id)),
            Ok(target) => {
                if !target.contains(':') {
                    let text = format!(
                        "rule {} does not look at {target} at all any more at {path}",
                        found.id
                    );
                    exception.warnings.push(text);
                }
                exception.rules.push(RuleException {
                    path: path.clone(),
                    rule: found.id,
                    target,
                    request: report.id.to_string(),
                });
            }
        }
    }
    if report.matches_cut > 0 {
        exception.warnings.push(format!(
            "{} more rules matched than the report has",
            report.matches_cut
        ));
    }
    if !exception.rules.is_empty() {
        let text = "a report has the first target alone at which a rule matched: where others did as well, the request \
                    is stopped again, and its next report says where";
        exception.warnings.push(text.to_owned());
    }
    exception
}

fn unfit(report: &Report) -> Option<&'static str> {
    match report.outcome {
        Outcome::Detected | Outcome::Denied => None,
        Outcome::Malformed => {
            Some("no rule has refused it, but its form or size; see [limits] of the configuration")
        }
        Outcome::Banned => Some("no rule has refused it, its source was banned; see clew bans"),
        Outcome::Limited => {
            Some("no rule has refused it, its source asked too often; raise the [[limit]]")
        }
        Outcome::Cancelled => Some(
            "it was stopped for what it did; give the incident instead (clew incidents show ID --json)",
        ),
    }
}

/// The matches that have stopped the request; where nothing was stopped, or a score was, all.
fn deciding(report: &Report) -> impl Iterator<Item = &RuleMatch> {
    let stopping = |it: &RuleMatch| it.disruptive && target(it).is_ok();
    let narrow = report.outcome == Outcome::Denied && report.matches.iter().any(stopping);
    report
        .matches
        .iter()
        .filter(move |it| !narrow || it.disruptive)
}

fn path(target: &str) -> Result<String, String> {
    let filename = Target::new(target.as_bytes()).filename().into_owned();
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"\\%`".contains(byte);
    let fits = target.len() < REPORT_TEXT_BYTES
        && filename.first() == Some(&b'/')
        && filename.iter().all(plain);
    match String::from_utf8(filename) {
        Ok(path) if fits => Ok(path),
        _ => Err("its path is too long, or holds characters that no ordinary path has: write the exception by hand".to_owned()),
    }
}

/// What is taken away from a rule. Names come from clients: only those pass that mean nothing else in a rule.
fn target(found: &RuleMatch) -> Result<String, &'static str> {
    if found.id == 0 {
        return Err("it is a limit of the engine itself, which has no exceptions");
    }
    let (collection, name) = match found.variable.split_once(':') {
        Some((collection, name)) => (collection, Some(name)),
        None => (found.variable.as_str(), None),
    };
    let fits = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-[]$".contains(&byte);
        !name.is_empty() && name.len() <= 256 && name.bytes().all(plain)
    };
    match (collection, name) {
        (
            "TX" | "RULE" | "MATCHED_VAR" | "MATCHED_VARS" | "MATCHED_VAR_NAME"
            | "MATCHED_VARS_NAMES",
            _,
        ) => Err("it counts what other rules have found; those are excepted"),
        ("XML", Some("/*" | "//@*")) => Ok(found.variable.clone()),
        (
            "ARGS"
            | "ARGS_GET"
            | "ARGS_POST"
            | "ARGS_NAMES"
            | "ARGS_GET_NAMES"
            | "ARGS_POST_NAMES"
            | "REQUEST_HEADERS"
            | "REQUEST_HEADERS_NAMES"
            | "REQUEST_COOKIES"
            | "REQUEST_COOKIES_NAMES"
            | "FILES"
            | "FILES_NAMES"
            | "MULTIPART_FILENAME"
            | "MULTIPART_NAME"
            | "MULTIPART_PART_HEADERS"
            | "RESPONSE_HEADERS",
            Some(name),
        ) if fits(name) => Ok(found.variable.clone()),
        (_, Some(_)) => Err("the target's name is no ordinary one; write the exception by hand"),
        (
            "REQUEST_URI" | "REQUEST_URI_RAW" | "REQUEST_LINE" | "REQUEST_FILENAME"
            | "REQUEST_BASENAME" | "QUERY_STRING" | "REQUEST_BODY" | "REQUEST_METHOD"
            | "RESPONSE_BODY" | "RESPONSE_STATUS",
            None,
        ) => Ok(collection.to_owned()),
        _ => Err(
            "what it matched is no target that can be excepted by itself; write the exception by hand",
        ),
    }
}
