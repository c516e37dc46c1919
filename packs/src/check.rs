//! Everything that can be wrong with a pack, told at once.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use crate::compiled::alone;
use crate::pack::Pack;
use crate::rules::PackRules;
use crate::trial::{FOLDER, named, suites};
use crate::{FILE, RuleSource};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but probably not as it is meant.
    Warning,
    /// It does not work.
    Error,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is and what to do, with file, line and column where there are some.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.message)
    }
}

/// Looks at a pack: whether its rules compile, their ids, tests, data files. (What is wrong with its manifest or its
/// files is found when it is opened.)
pub fn check(pack: &Pack) -> Vec<Finding> {
    let mut findings = Findings::default();
    let tested = match suites(pack) {
        Ok(suites) => suites,
        Err(errors) => {
            findings.errors(errors);
            Vec::new()
        }
    };
    let count: usize = tested.iter().map(|suite| suite.tests.len()).sum();
    match PackRules::load(pack) {
        Err(errors) => findings.errors(errors),
        Ok(rules) => {
            findings.ids(pack, &rules);
            findings.compiled(pack);
            findings.tests(pack, &rules, count, &named(&tested));
            findings.idle_files(pack, &rules);
        }
    }
    findings.empty(pack);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn error(&mut self, message: String) {
        let severity = Severity::Error;
        self.0.push(Finding { severity, message });
    }

    fn warning(&mut self, message: String) {
        let severity = Severity::Warning;
        self.0.push(Finding { severity, message });
    }

    fn errors(&mut self, messages: Vec<String>) {
        messages.into_iter().for_each(|it| self.error(it));
    }

    /// Ids that are used twice: what compiling says of them too, but it says it only of packs that parse.
    fn ids(&mut self, pack: &Pack, rules: &PackRules) {
        let mut known = HashMap::new();
        for rule in rules.listed().into_iter().filter(|rule| rule.id != 0) {
            if let Some(first) = known.insert(rule.id, rule.place.clone()) {
                let text = format!(
                    "{}: the id {} is used already, at {first}",
                    rule.place, rule.id
                );
                self.error(pack.shown(&text));
            }
        }
    }

    fn compiled(&mut self, pack: &Pack) {
        match alone(pack) {
            // Told by `ids` already, with both places.
            Err(errors) => self.errors(
                errors
                    .into_iter()
                    .filter(|it| !it.contains("is used already"))
                    .collect(),
            ),
            Ok(compiled) => {
                for warning in compiled.rules.warnings() {
                    self.warning(pack.shown(&warning.to_string()));
                }
            }
        }
    }

    /// Rules of the host have tests of their own.
    fn tests(&mut self, pack: &Pack, rules: &PackRules, count: usize, named: &BTreeSet<u64>) {
        let inside = |file: u32| {
            let file = rules.ast.files.get(file as usize);
            file.is_some_and(|it| it.starts_with(pack.root()))
        };
        let listed = rules.listed().into_iter();
        let speaking: Vec<_> = listed
            .filter(|rule| rule.speaks && inside(rule.file))
            .collect();
        if !speaking.is_empty() && count == 0 {
            self.error(format!(
                "there are no tests; put suites (FTW) into {FOLDER}/"
            ));
            return;
        }
        for rule in speaking.iter().filter(|rule| !named.contains(&rule.id)) {
            let text = format!("{}: no test names rule {}", rule.place, rule.id);
            self.warning(pack.shown(&text));
        }
    }

    fn idle_files(&mut self, pack: &Pack, rules: &PackRules) {
        let default = [RuleSource::Inside("rules/*.conf".to_owned())];
        for pattern in rules.idle.iter().filter(|_| pack.manifest.rules != default) {
            self.warning(format!("rules.files: {pattern:?} names no file"));
        }
        for (name, _) in pack.contents.iter() {
            let prose = name.ends_with(".md") || name.starts_with("LICENSE");
            let used = name == FILE || prose || rules.read.contains(name);
            if !used && !name.starts_with(&format!("{FOLDER}/")) {
                self.warning(format!("{name}: nothing reads this file"));
            }
        }
    }

    fn empty(&mut self, pack: &Pack) {
        let manifest = &pack.manifest;
        let rules = pack
            .contents
            .iter()
            .any(|(name, _)| name.ends_with(".conf"));
        let outside = manifest
            .rules
            .iter()
            .any(|it| matches!(it, RuleSource::Outside(_)));
        if !rules && !outside && manifest.limits.is_empty() && manifest.policy.lines().is_empty() {
            self.warning("it has neither rules nor policy nor limits: it does nothing".to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
