//! Macros and names become text.

use super::super::macros::{Macro, Part};
use super::super::number::Operand;
use super::super::ruleset::RuleSet;
use super::super::tx::TxValue;
use super::super::values::{Digits, ValueId};
use super::super::variable::Variable;
use super::state::{Name, NameKey, State};

/// The longest text that macros expand to; what lies beyond is cut off. `setvar:'tx.a=%{tx.a}%{tx.a}'`
/// in a few rules would double without end.
const EXPANDED_BYTES: usize = 64 << 10;

impl State {
    /// Appends the text to `out`.
    pub(super) fn expand(&mut self, rules: &RuleSet, text: &Macro, out: &mut Vec<u8>) {
        let from = out.len();
        for part in text.parts() {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Tx(slot) => self.write_tx(*slot, out),
                Part::Variable(variable) => {
                    let id = self.scalar_value(rules, *variable);
                    out.extend_from_slice(self.values.get(id));
                }
                Part::Member(Variable::Rule, member) => {
                    self.write_rule_member(rules, member, out);
                }
                Part::Member(variable, key) => {
                    let id = self.first(rules, *variable, key);
                    out.extend_from_slice(self.values.get(id));
                }
            }
        }
        out.truncate(from + EXPANDED_BYTES);
    }

    /// The text as a value of the transaction.
    pub(super) fn expanded(&mut self, rules: &RuleSet, text: &Macro) -> ValueId {
        if let Some(constant) = text.constant() {
            return self.values.push_known(constant, text.constant_classes());
        }
        let mut out = std::mem::take(&mut self.text);
        out.clear();
        self.expand(rules, text, &mut out);
        let id = self.values.push(&out);
        self.text = out;
        id
    }

    pub(super) fn operand(&mut self, rules: &RuleSet, operand: &Operand) -> i64 {
        match operand {
            Operand::Constant(number) => *number,
            Operand::Tx(slot) => self.tx.get(*slot).number(&self.values),
            Operand::Macro(text) => {
                let mut out = Vec::new();
                self.expand(rules, text, &mut out);
                super::super::number::integer(&out)
            }
        }
    }

    fn write_tx(&self, slot: u16, out: &mut Vec<u8>) {
        match self.tx.get(slot) {
            TxValue::Unset => {}
            TxValue::Number(number) => out.extend_from_slice(Digits::default().text(number)),
            TxValue::Text(id) => out.extend_from_slice(self.values.get(id)),
        }
    }

    /// `RULE.msg` and its kin, of the rule that is running. Macros in a message are not expanded again.
    pub(super) fn write_rule_member(
        &self,
        rules: &RuleSet,
        member: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(info) = rules.info.get(self.current as usize) else {
            return false;
        };
        match member {
            b"id" => out.extend_from_slice(info.id.to_string().as_bytes()),
            b"msg" => out.extend_from_slice(info.message.as_deref().unwrap_or_default().as_bytes()),
            b"rev" => {
                out.extend_from_slice(info.revision.as_deref().unwrap_or_default().as_bytes())
            }
            b"severity" => match info.severity {
                Some(severity) => out.extend_from_slice(severity.to_string().as_bytes()),
                None => return false,
            },
            _ => return false,
        }
        true
    }

    /// Appends a name as rules and logs know it: `ARGS:foo`.
    pub(super) fn write_name(&self, rules: &RuleSet, name: Name, out: &mut Vec<u8>) {
        if name.key == NameKey::Count {
            out.push(b'&');
        }
        out.extend_from_slice(name.variable.name().as_bytes());
        let key = match name.key {
            NameKey::None | NameKey::Count => return,
            NameKey::Value(id) => self.values.get(id),
            NameKey::Slot(slot) => self.tx.name(slot, &rules.tx),
        };
        // A matched variable's own name says it all.
        if name.variable == Variable::MatchedVarsNames {
            out.clear();
        } else {
            out.push(b':');
        }
        out.extend_from_slice(key);
    }

    /// A name as a value.
    pub(super) fn name_value(&mut self, rules: &RuleSet, name: Name) -> ValueId {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        self.write_name(rules, name, &mut text);
        let id = self.values.push(&text);
        self.text = text;
        id
    }
}
