//! What a match changes.

use super::super::collections::{Change, Collection};
use super::super::number::canonical;
use super::super::ruleset::{Assign, Ctl, Effect, Key, Place, RuleSet};
use super::super::tx::{CAPTURES, TxValue};
use super::super::values::ValueId;
use super::super::variable::Variable;
use super::state::{List, Mask, NameKey, State};

impl State {
    pub(super) fn carry_out(&mut self, rules: &RuleSet, effect: &Effect) {
        match effect {
            Effect::Set(place, assign) => self.set(rules, place, assign),
            Effect::SetEnv(name, value) => {
                let (name, value) = (self.expanded(rules, name), self.expanded(rules, value));
                let same = |m: &super::state::Member| {
                    self.values
                        .get(m.key)
                        .eq_ignore_ascii_case(self.values.get(name))
                };
                let others = self
                    .list(List::Env)
                    .iter()
                    .filter(|m| !same(m))
                    .copied()
                    .collect();
                self.lists[List::Env as usize] = others;
                self.add(List::Env, name, value);
            }
            Effect::Expire(collection, name, seconds) => {
                let name = self.expanded(rules, name);
                let seconds = self.operand(rules, seconds);
                let name = self.values.get(name).to_vec();
                self.expire(rules, *collection, &name, seconds);
            }
            Effect::Deprecate {
                collection,
                name,
                by,
                period,
            } => {
                let name = self.expanded(rules, name);
                let name = self.values.get(name).to_vec();
                self.deprecate(rules, *collection, &name, *by, *period);
            }
            Effect::Open(collection, key) => {
                let key = self.expanded(rules, key);
                self.open_with(*collection, key);
            }
            Effect::Mask(variable, Key::Name(name)) => {
                let key = Some(self.values.push(name));
                self.masks.push(Mask {
                    variable: *variable,
                    key,
                });
            }
            Effect::Mask(..) => {}
            Effect::MaskMatched => self.mask_matched(),
            Effect::Ctl(ctl) => self.control(rules, ctl),
        }
    }

    fn open_with(&mut self, collection: Collection, key: ValueId) {
        match collection {
            Collection::Session => self.scalars[Variable::Sessionid.index()] = key,
            Collection::User => self.scalars[Variable::Userid.index()] = key,
            _ => {}
        }
        let key = self.values.get(key).to_vec();
        self.open(collection, &key);
    }

    fn mask_matched(&mut self) {
        if let Some((name, _)) = self.last_match {
            let key = if let NameKey::Value(id) = name.key {
                Some(id)
            } else {
                None
            };
            self.masks.push(Mask {
                variable: name.variable,
                key,
            });
        }
    }

    fn set(&mut self, rules: &RuleSet, place: &Place, assign: &Assign) {
        match place {
            Place::Tx(slot) => self.set_tx(rules, *slot, assign),
            Place::TxNamed(name) => {
                let mut text = std::mem::take(&mut self.text);
                text.clear();
                self.expand(rules, name, &mut text);
                let slot = self.tx.slot(&text, &rules.tx);
                self.text = text;
                if let Some(slot) = slot {
                    self.set_tx(rules, slot, assign);
                }
            }
            Place::Persistent(collection, name) => {
                let mut text = Vec::new();
                self.expand(rules, name, &mut text);
                self.set_persistent(rules, *collection, &text, assign);
            }
        }
    }

    fn set_tx(&mut self, rules: &RuleSet, slot: u16, assign: &Assign) {
        let value = match assign {
            Assign::Unset => TxValue::Unset,
            Assign::Number(number) => TxValue::Number(*number),
            Assign::Text(text) => match text.tx_slot() {
                Some(from) => self.copied(from),
                None => TxValue::Text(self.expanded(rules, text)),
            },
            Assign::Add(by) => {
                let by = self.operand(rules, by);
                TxValue::Number(self.tx.get(slot).number(&self.values).saturating_add(by))
            }
            Assign::Subtract(by) => {
                let by = self.operand(rules, by);
                TxValue::Number(self.tx.get(slot).number(&self.values).saturating_sub(by))
            }
        };
        self.tx.set(slot, self.as_number(value));
        self.plan_stale |= rules.filter.guarded() == Some(slot);
    }

    /// `%{tx.name}` alone: the same value, or the empty text.
    fn copied(&self, from: u16) -> TxValue {
        match self.tx.get(from) {
            TxValue::Unset => TxValue::Text(ValueId::EMPTY),
            value => value,
        }
    }

    fn as_number(&self, value: TxValue) -> TxValue {
        match value {
            TxValue::Text(id) if self.values.len(id) < 20 => {
                canonical(self.values.get(id)).map_or(value, TxValue::Number)
            }
            value => value,
        }
    }

    fn set_persistent(
        &mut self,
        rules: &RuleSet,
        collection: Collection,
        name: &[u8],
        assign: &Assign,
    ) {
        match assign {
            Assign::Unset => self.change(rules, collection, name, Change::Unset),
            Assign::Number(number) => self.change(
                rules,
                collection,
                name,
                Change::Set(number.to_string().as_bytes()),
            ),
            Assign::Text(text) => {
                let mut out = Vec::new();
                self.expand(rules, text, &mut out);
                self.change(rules, collection, name, Change::Set(&out));
            }
            Assign::Add(by) => {
                let by = self.operand(rules, by);
                self.change(rules, collection, name, Change::Add(by));
            }
            Assign::Subtract(by) => {
                let by = self.operand(rules, by);
                self.change(rules, collection, name, Change::Add(by.saturating_neg()));
            }
        }
    }

    fn control(&mut self, rules: &RuleSet, ctl: &Ctl) {
        match ctl {
            Ctl::RuleEngine(engine) => self.engine = *engine,
            Ctl::RequestBodyAccess(on) => self.request_body_access = *on,
            Ctl::RequestBodyLimit(bytes) => self.request_body_limit = *bytes,
            Ctl::RequestBodyProcessor(processor) => self.set_processor(*processor),
            Ctl::ForceRequestBodyVariable(on) => self.force_request_body_variable = *on,
            Ctl::ResponseBodyAccess(on) => self.response_body_access = *on,
            Ctl::ResponseBodyLimit(bytes) => self.response_body_limit = *bytes,
            Ctl::RemoveRules(numbers) => {
                numbers
                    .iter()
                    .for_each(|number| self.removed.insert(*number));
                self.plan_stale = true;
                self.is_restricted = true;
            }
            Ctl::RemoveTarget(index) => {
                if !self.removals.contains(index) {
                    self.removals.push(*index);
                    let removal = &rules.removals[usize::from(*index)];
                    removal
                        .rules
                        .iter()
                        .for_each(|number| self.narrowed.insert(*number));
                    self.plan_stale = true;
                    self.is_restricted = true;
                }
            }
        }
    }

    /// `capture`: what the operator found in `value` becomes `TX:0` to `TX:9`.
    pub(super) fn capture(&mut self, value: ValueId) {
        let groups = self.found.len() as u16;
        for slot in 0..CAPTURES {
            let captured = if slot < groups.max(1) {
                self.captured(value, usize::from(slot))
            } else {
                TxValue::Unset
            };
            self.tx.set(slot, captured);
        }
    }

    fn captured(&mut self, value: ValueId, index: usize) -> TxValue {
        let bytes = self.values.get(value);
        let Some(group) = self.found.group(index, bytes) else {
            return TxValue::Unset;
        };
        let range = self
            .found
            .range(index)
            .filter(|range| bytes.get(range.clone()).is_some_and(|part| part == group));
        let id = match range {
            Some(range) => self.values.part(value, range),
            None => {
                let shown = group.to_vec();
                self.values.push(&shown)
            }
        };
        TxValue::Text(id)
    }

    /// `TX:name`, from inside of the engine.
    pub(super) fn set_tx_named(&mut self, rules: &RuleSet, name: &[u8], text: &[u8]) {
        if let Some(slot) = self.tx.slot(name, &rules.tx) {
            let value = TxValue::Text(self.values.push(text));
            self.tx.set(slot, self.as_number(value));
        }
    }
}
