//! A pack's own tests: FTW suites below `tests/`, run in process.

use clew_ftw::{Outcome, Run, Stage, Suite, Test};
use clew_rules::engine::RuleSet;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::compiled::alone;
use crate::pack::Pack;
use crate::rules::PackRules;

/// Where suites are.
pub(crate) const FOLDER: &str = "tests";

/// A test that did not come out as its suite says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its title.
    pub test: String,
    /// What is different, as a sentence.
    pub reason: String,
}

/// What the tests of a pack came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trial {
    /// How many are as expected.
    pub passed: usize,
    /// How many are not to be run.
    pub disabled: usize,
    /// Those that are not as expected.
    pub failures: Vec<Failure>,
}

impl Trial {
    /// Runs the tests of a pack against its own rules, in its own mode. A request of which nothing is expected
    /// (no id, no line of the log, no status that refuses) is benign: no rule of the pack may match it and say so.
    ///
    /// # Errors
    ///
    /// Its rules do not compile, or a suite cannot be read.
    pub fn of(pack: &Pack) -> Result<Self, Vec<String>> {
        let suites = suites(pack)?;
        let rules = alone(pack)?.rules;
        let own = PackRules::load(pack)?.listed();
        let own: BTreeSet<u64> = own.into_iter().map(|rule| rule.id).collect();
        let mut trial = Self::default();
        for test in suites.iter().flat_map(|suite| &suite.tests) {
            trial.note(test, &rules, &own);
        }
        Ok(trial)
    }

    /// Whether there was a test, and all are as expected.
    pub fn passes(&self) -> bool {
        self.passed > 0 && self.failures.is_empty()
    }

    fn note(&mut self, test: &Test, rules: &Arc<RuleSet>, own: &BTreeSet<u64>) {
        let outcome = match test.run(rules) {
            Outcome::Passed => benign(test, rules, own),
            other => other,
        };
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Disabled => self.disabled += 1,
            Outcome::Failed(reason) => self.failures.push(Failure {
                test: test.title.clone(),
                reason,
            }),
        }
    }
}

fn benign(test: &Test, rules: &Arc<RuleSet>, own: &BTreeSet<u64>) -> Outcome {
    for stage in test.stages.iter().filter(|stage| expects_nothing(stage)) {
        let run = Run::of(rules, stage);
        if let Some(id) = run.ids.iter().find(|id| own.contains(id)) {
            let text = format!("nothing is expected of this request, but rule {id} matched it");
            return Outcome::Failed(text);
        }
    }
    Outcome::Passed
}

fn expects_nothing(stage: &Stage) -> bool {
    let output = &stage.output;
    output.log.expect_ids.is_empty()
        && output.log_contains.is_none()
        && output.log.match_regex.is_none()
        && output.expect_error.is_none()
        && !output
            .status
            .iter()
            .any(|status| *status >= 400 && *status != 404)
}

/// The suites of a pack, in the order of their names.
///
/// # Errors
///
/// Each that cannot be read.
pub(crate) fn suites(pack: &Pack) -> Result<Vec<Suite>, Vec<String>> {
    let prefix = format!("{FOLDER}/");
    let (mut suites, mut errors) = (Vec::new(), Vec::new());
    for (name, _) in pack.contents.iter() {
        let is_suite = name.ends_with(".yaml") || name.ends_with(".yml");
        if !name.starts_with(&prefix) || !is_suite {
            continue;
        }
        match clew_ftw::load(&pack.root().join(name)) {
            Ok(found) => suites.extend(found),
            Err(error) => errors.push(pack.shown(&error.to_string())),
        }
    }
    match errors.is_empty() {
        true => Ok(suites),
        false => Err(errors),
    }
}

/// The ids of rules that tests speak of: in titles (`942100-1`), in what they expect.
pub(crate) fn named(suites: &[Suite]) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    for test in suites.iter().flat_map(|suite| &suite.tests) {
        ids.extend(
            test.title
                .split('-')
                .next()
                .and_then(|it| it.parse::<u64>().ok()),
        );
        for output in test.stages.iter().map(|stage| &stage.output) {
            ids.extend(&output.log.expect_ids);
            let texts = output.log_contains.iter().chain(&output.log.match_regex);
            let words = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_digit()));
            ids.extend(words.filter_map(|word| word.parse::<u64>().ok()));
        }
    }
    ids
}
