//! Which values a target means.

use std::borrow::Cow;

use super::super::collections::Collection;
use super::super::number::integer;
use super::super::ruleset::{Key, RuleSet, Target};
use super::super::tx::TxValue;
use super::super::values::ValueId;
use super::super::variable::{Kind, Variable};
use super::calendar::Calendar;
use super::state::{Candidate, List, Name, NameKey, State, Subject};

/// Where the members of a collection are.
struct Source {
    lists: &'static [List],
    /// Whether the names are the values.
    names: bool,
}

fn source(variable: Variable) -> Option<Source> {
    use List as L;
    use Variable as V;
    let (lists, names): (&'static [List], bool) = match variable {
        V::Args => (&[L::ArgsGet, L::ArgsPost], false),
        V::ArgsGet => (&[L::ArgsGet], false),
        V::ArgsPost => (&[L::ArgsPost], false),
        V::ArgsNames => (&[L::ArgsGet, L::ArgsPost], true),
        V::ArgsGetNames => (&[L::ArgsGet], true),
        V::ArgsPostNames => (&[L::ArgsPost], true),
        V::RequestHeaders => (&[L::RequestHeaders], false),
        V::RequestHeadersNames => (&[L::RequestHeaders], true),
        V::RequestCookies => (&[L::RequestCookies], false),
        V::RequestCookiesNames => (&[L::RequestCookies], true),
        V::ResponseHeaders => (&[L::ResponseHeaders], false),
        V::ResponseHeadersNames => (&[L::ResponseHeaders], true),
        V::Files | V::MultipartFilename => (&[L::Files], false),
        V::FilesNames => (&[L::Files], true),
        V::FilesSizes => (&[L::FilesSizes], false),
        V::FilesTmpContent => (&[L::FilesContent], false),
        V::MultipartName => (&[L::PartNames], true),
        V::MultipartPartHeaders => (&[L::PartHeaders], false),
        V::Geo => (&[L::Geo], false),
        V::Env => (&[L::Env], false),
        // Clew never writes uploads to files.
        V::FilesTmpNames => (&[], false),
        _ => return None,
    };
    Some(Source { lists, names })
}

impl State {
    /// Adds the values that `target` means to `out`.
    pub(super) fn collect(&mut self, rules: &RuleSet, target: &Target, out: &mut Vec<Candidate>) {
        let before = out.len();
        self.members(rules, target, out);
        if self.narrowed.contains(self.current) {
            self.narrow(rules, before, out);
        }
        if target.count {
            let count = (out.len() - before) as i64;
            out.truncate(before);
            let name = Name {
                variable: target.variable,
                key: NameKey::Count,
            };
            out.push(Candidate {
                name,
                subject: Subject::Number(count),
            });
        }
    }

    fn members(&mut self, rules: &RuleSet, target: &Target, out: &mut Vec<Candidate>) {
        if let Some(source) = source(target.variable) {
            for list in source.lists {
                self.list_members(rules, target, *list, source.names, out);
            }
            return;
        }
        match target.variable {
            Variable::Tx => self.tx_members(rules, target, out),
            Variable::Ip => self.persistent_members(rules, Collection::Ip, target, out),
            Variable::Global => self.persistent_members(rules, Collection::Global, target, out),
            Variable::Session => self.persistent_members(rules, Collection::Session, target, out),
            Variable::User => self.persistent_members(rules, Collection::User, target, out),
            Variable::Resource => self.persistent_members(rules, Collection::Resource, target, out),
            Variable::MatchedVars => self.matched_vars(rules, target, out),
            Variable::MatchedVarsNames => self.matched_vars_names(rules, target, out),
            Variable::Rule => self.rule_member(rules, target, out),
            Variable::Xml => self.xml(target, out),
            Variable::Json if self.processor == Some(super::super::Processor::Json) => {
                self.list_members(rules, target, List::ArgsPost, false, out);
            }
            Variable::Json => {}
            scalar => {
                if let Some(value) = self.scalar_value(rules, scalar).some() {
                    out.push(Candidate {
                        name: Name {
                            variable: scalar,
                            key: NameKey::None,
                        },
                        subject: Subject::Value(value),
                    });
                }
            }
        }
    }

    fn list_members(
        &mut self,
        rules: &RuleSet,
        target: &Target,
        list: List,
        names: bool,
        out: &mut Vec<Candidate>,
    ) {
        if let (Key::Name(wanted), []) = (&target.key, &*target.excluded) {
            self.named_members(target.variable, wanted, list, names, out);
            return;
        }
        let mut members = std::mem::take(&mut self.lists[list as usize]);
        for member in &mut members {
            let mut chosen = |key: &Key| match key {
                Key::Regex(index) if *index < 32 => {
                    let bit = 1 << index;
                    if member.asked & bit == 0 {
                        member.asked |= bit;
                        let is = rules.selectors[usize::from(*index)]
                            .is_match(self.values.get(member.key));
                        member.selected |= if is { bit } else { 0 };
                    }
                    member.selected & bit != 0
                }
                key => selects(rules, key, self.values.get(member.key)),
            };
            if chosen(&target.key) && !target.excluded.iter().any(&mut chosen) {
                let name = Name {
                    variable: target.variable,
                    key: NameKey::Value(member.key),
                };
                let value = if names { member.key } else { member.value };
                out.push(Candidate {
                    name,
                    subject: Subject::Value(value),
                });
            }
        }
        self.lists[list as usize] = members;
    }

    /// The most common case of `list_members`: a header of this name.
    fn named_members(
        &self,
        variable: Variable,
        wanted: &[u8],
        list: List,
        names: bool,
        out: &mut Vec<Candidate>,
    ) {
        for member in self.list(list) {
            if self.values.len(member.key) == wanted.len()
                && self.values.get(member.key).eq_ignore_ascii_case(wanted)
            {
                let name = Name {
                    variable,
                    key: NameKey::Value(member.key),
                };
                let value = if names { member.key } else { member.value };
                out.push(Candidate {
                    name,
                    subject: Subject::Value(value),
                });
            }
        }
    }

    fn tx_members(&mut self, rules: &RuleSet, target: &Target, out: &mut Vec<Candidate>) {
        match target.key {
            Key::Slot(slot) => out.extend(tx_candidate(slot, self.tx.get(slot))),
            Key::Regex(index) if target.excluded.is_empty() => {
                let known = &rules.tx_selected[usize::from(index)];
                out.extend(
                    known
                        .iter()
                        .filter_map(|slot| tx_candidate(*slot, self.tx.get(*slot))),
                );
                let selector = &rules.selectors[usize::from(index)];
                self.tx.select(index, selector, |slot, value| {
                    out.extend(tx_candidate(slot, value))
                });
            }
            _ => self.tx_chosen(rules, target, out),
        }
    }

    fn tx_chosen(&self, rules: &RuleSet, target: &Target, out: &mut Vec<Candidate>) {
        for (slot, value) in self.tx.set_values() {
            let name = self.tx.name(slot, &rules.tx);
            let chosen = |key: &Key| *key == Key::Slot(slot) || selects(rules, key, name);
            if chosen(&target.key) && !target.excluded.iter().any(chosen) {
                out.extend(tx_candidate(slot, value));
            }
        }
    }

    fn persistent_members(
        &mut self,
        rules: &RuleSet,
        collection: Collection,
        target: &Target,
        out: &mut Vec<Candidate>,
    ) {
        let chosen = |name: &[u8]| {
            let of = |key: &Key| selects(rules, key, name);
            of(&target.key) && !target.excluded.iter().any(of)
        };
        for (name, value) in self.persistent(rules, collection, chosen) {
            let key = NameKey::Value(self.values.push(&name));
            let subject = Subject::Value(self.values.push(&value));
            let name = Name {
                variable: target.variable,
                key,
            };
            out.push(Candidate { name, subject });
        }
    }

    fn matched_vars(&mut self, rules: &RuleSet, target: &Target, out: &mut Vec<Candidate>) {
        for index in 0..self.matched.len() {
            let (name, subject) = self.matched[index];
            if self.matched_chosen(rules, target, name) {
                out.push(Candidate { name, subject });
            }
        }
    }

    fn matched_vars_names(&mut self, rules: &RuleSet, target: &Target, out: &mut Vec<Candidate>) {
        for index in 0..self.matched.len() {
            let (name, _) = self.matched[index];
            if self.matched_chosen(rules, target, name) {
                let text = self.name_value(rules, name);
                let name = Name {
                    variable: target.variable,
                    key: NameKey::Value(text),
                };
                out.push(Candidate {
                    name,
                    subject: Subject::Value(text),
                });
            }
        }
    }

    fn matched_chosen(&self, rules: &RuleSet, target: &Target, name: Name) -> bool {
        if target.key == Key::All && target.excluded.is_empty() {
            return true;
        }
        let mut text = Vec::new();
        self.write_name(rules, name, &mut text);
        let chosen = |key: &Key| selects(rules, key, &text);
        chosen(&target.key) && !target.excluded.iter().any(chosen)
    }

    fn rule_member(&mut self, rules: &RuleSet, target: &Target, out: &mut Vec<Candidate>) {
        let Key::Name(member) = &target.key else {
            return;
        };
        let mut text = Vec::new();
        if self.write_rule_member(rules, member, &mut text) {
            let (key, value) = (self.values.push(member), self.values.push(&text));
            out.push(Candidate {
                name: Name {
                    variable: Variable::Rule,
                    key: NameKey::Value(key),
                },
                subject: Subject::Value(value),
            });
        }
    }

    fn xml(&mut self, target: &Target, out: &mut Vec<Candidate>) {
        let Key::XPath(index) = target.key else {
            return;
        };
        let found = self.xml.get(usize::from(index)).into_iter().flatten();
        out.extend(found.map(|member| Candidate {
            name: Name {
                variable: Variable::Xml,
                key: NameKey::Value(member.key),
            },
            subject: Subject::Value(member.value),
        }));
    }

    /// Takes out what `ctl:ruleRemoveTarget...` took from the rule that is running.
    fn narrow(&self, rules: &RuleSet, from: usize, out: &mut Vec<Candidate>) {
        let removals = self
            .removals
            .iter()
            .map(|index| &rules.removals[usize::from(*index)]);
        let removals: Vec<_> = removals
            .filter(|r| r.rules.binary_search(&self.current).is_ok())
            .collect();
        let mut index = 0;
        out.retain(|candidate| {
            index += 1;
            index <= from
                || !removals.iter().any(|r| {
                    r.variable == candidate.name.variable
                        && self.is_called(rules, candidate.name, &r.key)
                })
        });
    }

    pub(super) fn is_called(&self, rules: &RuleSet, name: Name, key: &Key) -> bool {
        match (name.key, key) {
            (_, Key::All | Key::XPath(_)) => true,
            (NameKey::Value(id), key) => selects(rules, key, self.values.get(id)),
            (NameKey::Slot(slot), Key::Slot(wanted)) => slot == *wanted,
            (NameKey::Slot(slot), key) => selects(rules, key, self.tx.name(slot, &rules.tx)),
            (NameKey::None | NameKey::Count, _) => false,
        }
    }

    /// The value of a variable that has one.
    pub(super) fn scalar_value(&mut self, rules: &RuleSet, variable: Variable) -> ValueId {
        match variable {
            Variable::Duration => {
                let micros = self
                    .now
                    .monotonic
                    .saturating_sub(self.started.monotonic)
                    .as_micros();
                self.values
                    .push_number(i64::try_from(micros).unwrap_or(i64::MAX))
            }
            Variable::HighestSeverity => self.values.push_number(self.highest_severity.into()),
            Variable::MatchedVar => self
                .last_match
                .map_or(ValueId::NONE, |(_, subject)| self.value_of(subject)),
            Variable::MatchedVarName => match self.last_match {
                Some((name, _)) => self.name_value(rules, name),
                None => ValueId::NONE,
            },
            stored if self.scalar(stored).is_some() => self.scalar(stored),
            derived => {
                let value = self.derive(derived);
                if !derived.changes_within_phase() && self.keeps(derived) {
                    self.scalars[derived.index()] = value;
                }
                value
            }
        }
    }

    /// Sizes grow when the body comes.
    fn keeps(&self, variable: Variable) -> bool {
        !matches!(
            variable,
            Variable::ArgsCombinedSize | Variable::FilesCombinedSize
        )
    }

    /// What is only made when it is asked for.
    fn derive(&mut self, variable: Variable) -> ValueId {
        let date = Calendar::at(self.now.unix);
        let number = match variable {
            Variable::Time => {
                let text = format!("{:02}:{:02}:{:02}", date.hour, date.minute, date.second);
                return self.values.push(text.as_bytes());
            }
            Variable::TimeEpoch => i64::try_from(self.now.unix.as_secs()).unwrap_or(i64::MAX),
            Variable::TimeYear => date.year,
            // As C's tm_mon: January is 0.
            Variable::TimeMon => date.month - 1,
            Variable::TimeDay => date.day,
            Variable::TimeHour => date.hour,
            Variable::TimeMin => date.minute,
            Variable::TimeSec => date.second,
            Variable::TimeWday => date.weekday,
            Variable::ArgsCombinedSize => self.combined(&[List::ArgsGet, List::ArgsPost], true),
            Variable::FilesCombinedSize => {
                let sizes = self.list(List::FilesSizes).iter();
                sizes
                    .map(|m| integer(self.values.get(m.value)))
                    .fold(0, i64::saturating_add)
            }
            Variable::FullRequestLength => self.full_request().len() as i64,
            Variable::FullRequest => {
                let full = self.full_request();
                return self.values.push(&full);
            }
            // The number by which rules know the engine; of ModSecurity 3.0.9 it would be this.
            Variable::ModsecBuild => 30_009_000,
            _ => return ValueId::NONE,
        };
        self.values.push_number(number)
    }

    fn combined(&self, lists: &[List], names: bool) -> i64 {
        let members = lists.iter().flat_map(|list| self.list(*list));
        let length = |m: &super::state::Member| {
            self.values.len(m.value) + if names { self.values.len(m.key) } else { 0 }
        };
        members.map(|m| length(m) as i64).sum()
    }

    fn full_request(&self) -> Vec<u8> {
        let mut full = self.values.get(self.scalar(Variable::RequestLine)).to_vec();
        full.extend_from_slice(b"\r\n");
        for member in self.list(List::RequestHeaders) {
            full.extend_from_slice(self.values.get(member.key));
            full.extend_from_slice(b": ");
            full.extend_from_slice(self.values.get(member.value));
            full.extend_from_slice(b"\r\n");
        }
        full.extend_from_slice(b"\r\n");
        full.extend_from_slice(&self.body);
        full
    }

    /// A variable of `TX` as a number, for callers outside.
    pub(super) fn tx_number(&self, rules: &RuleSet, name: &str) -> i64 {
        let slot = rules.tx.known(name.as_bytes());
        slot.map_or(0, |slot| self.tx.get(slot).number(&self.values))
    }

    /// All variables of `TX` that are set, for callers outside.
    pub(super) fn tx_values<'t>(
        &'t self,
        rules: &'t RuleSet,
    ) -> impl Iterator<Item = (&'t [u8], Cow<'t, [u8]>)> {
        self.tx.set_values().map(|(slot, value)| {
            let value: Cow<'_, [u8]> = match value {
                TxValue::Unset => Cow::default(),
                TxValue::Number(number) => number.to_string().into_bytes().into(),
                TxValue::Text(id) => self.values.get(id).into(),
            };
            (self.tx.name(slot, &rules.tx), value)
        })
    }

    /// The first value of a member, for macros.
    pub(super) fn first(&mut self, rules: &RuleSet, variable: Variable, key: &[u8]) -> ValueId {
        debug_assert_eq!(variable.kind(), Kind::Collection);
        let target = Target {
            variable,
            key: Key::Name(key.into()),
            count: false,
            excluded: Box::default(),
        };
        let mut out = Vec::new();
        self.members(rules, &target, &mut out);
        out.first()
            .map_or(ValueId::NONE, |candidate| self.value_of(candidate.subject))
    }
}

fn tx_candidate(slot: u16, value: TxValue) -> Option<Candidate> {
    let subject = match value {
        TxValue::Unset => return None,
        TxValue::Number(number) => Subject::Number(number),
        TxValue::Text(id) => Subject::Value(id),
    };
    Some(Candidate {
        name: Name {
            variable: Variable::Tx,
            key: NameKey::Slot(slot),
        },
        subject,
    })
}

/// Whether a selector means a member of this name.
fn selects(rules: &RuleSet, key: &Key, name: &[u8]) -> bool {
    match key {
        Key::All | Key::XPath(_) => true,
        Key::Name(wanted) => wanted.eq_ignore_ascii_case(name),
        Key::Regex(index) => rules.selectors[usize::from(*index)].is_match(name),
        Key::Slot(_) => false,
    }
}
