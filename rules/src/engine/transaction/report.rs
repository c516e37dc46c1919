//! What matched, for the log.

use super::super::record::Match;
use super::super::ruleset::RuleSet;
use super::super::values::ValueId;
use super::super::variable::Variable;
use super::state::{Name, NameKey, RECORDS, Recorded, State};

/// What stands in place of a value that `sanitiseArg` and its kin hide.
const MASKED: &[u8] = b"********";

impl State {
    /// The record of a rule that matches now.
    pub(super) fn recorded(&mut self, rules: &RuleSet, number: u32) -> Recorded {
        let info = &rules.info[number as usize];
        let message = info
            .msg
            .as_ref()
            .map_or(ValueId::EMPTY, |text| self.expanded(rules, text));
        let masked = self
            .last_match
            .is_some_and(|(name, _)| self.is_masked(name));
        let data = match &info.logdata {
            Some(_) if masked => self.values.push(MASKED),
            Some(text) => self.expanded(rules, text),
            None => ValueId::EMPTY,
        };
        let (variable, value) = match self.last_match {
            Some((name, subject)) if !self.matched.is_empty() => {
                (self.name_value(rules, name), self.value_of(subject))
            }
            _ => (ValueId::EMPTY, ValueId::EMPTY),
        };
        let value = if masked {
            self.values.push(MASKED)
        } else {
            value
        };
        Recorded {
            number,
            message,
            data,
            variable,
            value,
            matches: self.matched.len().max(1) as u32,
            disruptive: false,
        }
    }

    fn is_masked(&self, name: Name) -> bool {
        let same = |key: Option<ValueId>| match (key, name.key) {
            (None, _) => true,
            (Some(masked), NameKey::Value(id)) => self
                .values
                .get(masked)
                .eq_ignore_ascii_case(self.values.get(id)),
            (Some(_), _) => false,
        };
        self.masks
            .iter()
            .any(|mask| covers(mask.variable, name.variable) && same(mask.key))
    }

    pub(super) fn keep(&mut self, record: Recorded) {
        if self.records.len() < RECORDS {
            self.records.push(record);
        }
    }

    /// A record of the engine itself.
    pub(super) fn record_limit(&mut self, message: &[u8], disruptive: bool) {
        let message = self.values.push(message);
        let nothing = ValueId::EMPTY;
        self.keep(Recorded {
            number: u32::MAX,
            message,
            data: nothing,
            variable: nothing,
            value: nothing,
            matches: 1,
            disruptive,
        });
    }

    pub(super) fn matches<'t>(&'t self, rules: &'t RuleSet) -> impl Iterator<Item = Match<'t>> {
        let shown = rules.options.shown_bytes;
        self.records.iter().map(move |record| Match {
            rule: rules.info.get(record.number as usize),
            message: self.values.get(record.message),
            data: cut(self.values.get(record.data), shown),
            variable: self.values.get(record.variable),
            value: cut(self.values.get(record.value), shown),
            matches: record.matches,
            disruptive: record.disruptive,
            uri: self.values.get(self.scalar(Variable::RequestUri)),
            host: self.values.get(self.scalar(Variable::ServerName)),
            unique_id: self.values.get(self.scalar(Variable::UniqueId)),
        })
    }
}

fn covers(masked: Variable, name: Variable) -> bool {
    use Variable as V;
    masked == name || masked == V::Args && matches!(name, V::ArgsGet | V::ArgsPost)
}

fn cut(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[..bytes.len().min(at)]
}
