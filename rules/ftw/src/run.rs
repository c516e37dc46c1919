//! Runs tests against a rule set.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use clew_rules::engine::{Connection, Now, RuleSet, Transaction, Verdict};
use clew_rules::regex::Pattern;

use super::request::bytes;
use super::server::{Answer, Refusal, Request};
use super::suite::{Output, Stage, Test};

/// What a test came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as expected.
    Passed,
    /// Its file says that it is not to be run.
    Disabled,
    /// What is not as expected.
    Failed(String),
}

/// What came of one request.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The status that the client got; `None`: no answer, or none that is HTTP/1.
    pub status: Option<u16>,
    /// A line for each rule that matched.
    pub log: Vec<String>,
    /// Ids of the rules that matched.
    pub ids: Vec<u64>,
    /// The body of the answer.
    pub body: Vec<u8>,
    /// Numbers of all rules that matched, those without a line among them.
    pub matched: Vec<u32>,
    /// What is in `TX` at the end, by name; nothing where that cannot be seen.
    pub tx: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Run {
    /// Sends the request of a stage.
    pub fn of(rules: &Arc<RuleSet>, stage: &Stage) -> Self {
        Self::of_bytes(rules, &bytes(stage))
    }

    /// Sends a request.
    pub fn of_bytes(rules: &Arc<RuleSet>, bytes: &[u8]) -> Self {
        let (connection, now) = local();
        Self::again(&mut rules.transaction(connection, now, b"ftw"), bytes)
    }

    /// Sends a request through a transaction that was used before.
    pub fn again(transaction: &mut Transaction, bytes: &[u8]) -> Self {
        match Request::read(bytes) {
            Ok(request) => Self::through(transaction, &request),
            Err(Refusal::Status(status)) => Self {
                status: Some(status),
                ..Self::default()
            },
            Err(Refusal::Silence) => Self::default(),
        }
    }

    fn through(transaction: &mut Transaction, request: &Request) -> Self {
        let (connection, now) = local();
        transaction.reset(connection, now, b"ftw");
        let answer = inspected(transaction, request);
        transaction.finish(&mut || false);
        // A request without a version is answered without a status line.
        let status = (!request.version.is_empty()).then_some(answer.status);
        Self {
            status,
            log: transaction.matches().map(|m| m.log_line()).collect(),
            ids: transaction
                .matches()
                .filter_map(|m| m.rule)
                .map(|rule| rule.id)
                .collect(),
            body: answer.body,
            matched: transaction.matched_rules().to_vec(),
            tx: transaction
                .tx_values()
                .map(|(name, value)| (name.to_vec(), value.into_owned()))
                .collect(),
        }
    }

    fn contains(&self, pattern: &str) -> Result<bool, String> {
        let compiled = Pattern::compile(pattern).map_err(|e| format!("'{pattern}': {e}"))?;
        Ok(self
            .log
            .iter()
            .any(|line| compiled.is_match(line.as_bytes())))
    }

    /// What is not as expected.
    ///
    /// # Errors
    ///
    /// The first difference, as a sentence.
    pub fn check(&self, output: &Output) -> Result<(), String> {
        match (output.expect_error, self.status) {
            (Some(true), None) => return Ok(()),
            (Some(true), Some(status)) => {
                return Err(format!("no answer was expected, but it was {status}"));
            }
            _ => {}
        }
        if let Some(status) = self
            .status
            .filter(|status| !output.status.is_empty() && !output.status.contains(status))
        {
            return Err(format!(
                "the status is {status}, not one of {:?}",
                output.status
            ));
        }
        for pattern in [&output.log_contains, &output.log.match_regex]
            .into_iter()
            .flatten()
        {
            if !self.contains(pattern)? {
                return Err(format!(
                    "no line of the log matches {pattern}; rules were {:?}",
                    self.ids
                ));
            }
        }
        for pattern in [&output.no_log_contains, &output.log.no_match_regex]
            .into_iter()
            .flatten()
        {
            if self.contains(pattern)? {
                return Err(format!(
                    "a line of the log matches {pattern}; rules were {:?}",
                    self.ids
                ));
            }
        }
        self.check_ids(output)
    }

    fn check_ids(&self, output: &Output) -> Result<(), String> {
        if let Some(id) = output
            .log
            .expect_ids
            .iter()
            .find(|id| !self.ids.contains(id))
        {
            return Err(format!(
                "rule {id} did not match; rules were {:?}",
                self.ids
            ));
        }
        if let Some(id) = output
            .log
            .no_expect_ids
            .iter()
            .find(|id| self.ids.contains(id))
        {
            return Err(format!("rule {id} matched; rules were {:?}", self.ids));
        }
        let Some(text) = &output.response_contains else {
            return Ok(());
        };
        let pattern = Pattern::compile(text).map_err(|e| format!("'{text}': {e}"))?;
        if pattern.is_match(&self.body) {
            Ok(())
        } else {
            Err(format!("the answer does not match {text}"))
        }
    }
}

impl Test {
    /// Runs all stages; the first that differs decides.
    pub fn run(&self, rules: &Arc<RuleSet>) -> Outcome {
        if !self.enabled {
            return Outcome::Disabled;
        }
        for stage in &self.stages {
            if let Err(difference) = Run::of(rules, stage).check(&stage.output) {
                return Outcome::Failed(difference);
            }
        }
        Outcome::Passed
    }
}

/// Where the requests of tests come from, and when.
fn local() -> (Connection, Now) {
    let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let connection = Connection {
        client: (home, 54_321),
        server: (home, 80),
    };
    let now = Now {
        unix: Duration::from_secs(1_700_000_000),
        monotonic: Duration::ZERO,
    };
    (connection, now)
}

/// The way of a request through the phases, as a proxy goes it.
fn inspected(transaction: &mut Transaction, request: &Request) -> Answer {
    let never = &mut || false;
    transaction.request_line(&request.method, &request.target, &request.version);
    for (name, value) in &request.headers {
        transaction.request_header(name, value);
    }
    if let Some(blocked) = blocked(&transaction.request_headers_done(never)) {
        return blocked;
    }
    if let Some(blocked) = blocked(&transaction.request_body(&request.body)) {
        return blocked;
    }
    if let Some(blocked) = blocked(&transaction.request_body_done(never)) {
        return blocked;
    }
    let answer = Answer::to(request);
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    if let Some(blocked) =
        blocked(&transaction.response_head(answer.status, b"HTTP/1.1", headers, never))
    {
        return blocked;
    }
    if let Some(blocked) = blocked(&transaction.response_body(&answer.body)) {
        return blocked;
    }
    blocked(&transaction.response_body_done(never)).unwrap_or(answer)
}

fn blocked(verdict: &Verdict) -> Option<Answer> {
    match verdict {
        Verdict::Pass => None,
        Verdict::Intervention(intervention) => Some(Answer {
            status: intervention.status,
            ..Answer::default()
        }),
    }
}
