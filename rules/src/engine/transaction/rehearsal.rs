//! What rules come to that look at nothing a request brings: they are run once, when they are loaded.

use super::super::Phase;
use super::super::classes::classes;
use super::super::filter::Scanner;
use super::super::macros::{Macro, Part};
use super::super::number::Operand;
use super::super::ruleset::{
    Assign, Disruptive, Effect, Key, Link, Place, Rule, RuleSet, Test, written,
};
use super::super::segment::{Known, KnownMatch, Segment};
use super::super::tx::{CAPTURES, TxValue};
use super::super::values::ValueId;
use super::super::variable::Variable;
use super::Now;
use super::state::{Name, NameKey, State, Subject};
use super::work::Work;
use crate::operator::Operator;

/// Fewer rules than this are run one by one.
const FEW: usize = 2;

/// The segments of each phase, in order; none where rules are to be run as they are written.
pub(in super::super) fn rehearse(rules: &RuleSet) -> [Box<[Segment]>; Phase::COUNT] {
    if !rules.options.prefilter {
        return Default::default();
    }
    let mut rehearsal = Rehearsal::new(rules);
    Phase::ALL.map(|phase| rehearsal.phase(phase).into())
}

struct Rehearsal<'r> {
    rules: &'r RuleSet,
    state: State,
    /// For each slot of `TX` whether requests have a say in it.
    open: Vec<bool>,
    /// Nothing is known any more.
    is_lost: bool,
}

/// A segment that goes on.
struct Draft {
    start: usize,
    before: Vec<Known>,
    fired: usize,
    rules: usize,
}

/// What becomes of a rule.
enum Outcome {
    /// The same for each request; and it leaves no trace but in `TX` and among those that matched.
    Settled { matched: bool },
    /// It has to be run.
    Live,
}

impl<'r> Rehearsal<'r> {
    fn new(rules: &'r RuleSet) -> Self {
        let mut state = State::default();
        let nobody = state.connection;
        state.reset(rules, nobody, Now::default(), b"");
        let mut open = vec![false; rules.tx.len()];
        open[..usize::from(CAPTURES)].fill(true);
        // The engine itself sets it.
        if let Some(slot) = rules.tx.fickle() {
            open[usize::from(slot)] = true;
        }
        Self {
            rules,
            state,
            open,
            is_lost: false,
        }
    }

    fn phase(&mut self, phase: Phase) -> Vec<Segment> {
        let list = &self.rules.phases[phase.index()];
        let mut segments = Vec::new();
        let mut draft: Option<Draft> = None;
        // Where live rules lead, and the slots that what they skip may set.
        let mut joins: Vec<(usize, Vec<u16>)> = Vec::new();
        let mut at = 0;
        while let Some(rule) = list.get(at).filter(|_| !self.is_lost) {
            for (_, slots) in joins.iter().filter(|(join, _)| *join == at) {
                segments.extend(draft.take().and_then(|it| self.close(it, at)));
                self.open(slots);
            }
            let next = rule.next.map_or(at + 1, |next| next as usize);
            let is_known = rule
                .links
                .first()
                .is_some_and(|link| self.is_about_known(link));
            let begun = match draft.take() {
                None if is_known => Some(self.draft(at)),
                begun => begun,
            };
            let outcome = if is_known {
                self.outcome(rule)
            } else {
                Outcome::Live
            };
            match outcome {
                Outcome::Settled { matched } => {
                    draft = begun.map(|it| Draft {
                        rules: it.rules + 1,
                        ..it
                    });
                    let to = if matched { next } else { at + 1 };
                    // Others may lead into what is left out.
                    self.is_lost |= joins.iter().any(|(join, _)| (at + 1..to).contains(join));
                    at = to;
                }
                Outcome::Live => {
                    segments.extend(begun.and_then(|it| self.close(it, at)));
                    self.open(&written(std::slice::from_ref(rule), &self.rules.tx));
                    if next > at + 1 {
                        let skipped = &list[at + 1..next.min(list.len())];
                        joins.push((next, written(skipped, &self.rules.tx)));
                    }
                    at += 1;
                }
            }
        }
        segments.extend(draft.and_then(|it| self.close(it, at)));
        // What leads to the end of the phase.
        for (_, slots) in joins.iter().filter(|(join, _)| *join >= list.len()) {
            self.open(slots);
        }
        segments
    }

    fn draft(&self, start: usize) -> Draft {
        Draft {
            start,
            before: self.all(),
            fired: self.state.fired.len(),
            rules: 0,
        }
    }

    fn close(&mut self, draft: Draft, end: usize) -> Option<Segment> {
        let last_match = self.state.last_match.take().map(|(name, subject)| {
            let slot = match name.key {
                NameKey::Slot(slot) => Some(slot),
                _ => None,
            };
            let value = match subject {
                Subject::Number(number) => Known::Number(number),
                Subject::Value(id) => self.text(id),
            };
            KnownMatch { slot, value }
        });
        let highest_severity = std::mem::replace(&mut self.state.highest_severity, u8::MAX);
        let changed = draft.before.iter().zip(self.all()).enumerate();
        let changed = changed.filter(|(_, (before, now))| **before != *now);
        (draft.rules >= FEW).then(|| Segment {
            start: draft.start,
            end,
            tx: changed.map(|(slot, (_, now))| (slot as u16, now)).collect(),
            fired: self.state.fired[draft.fired..].into(),
            last_match,
            highest_severity,
        })
    }

    /// All of `TX`.
    fn all(&self) -> Vec<Known> {
        let slots = 0..self.open.len() as u16;
        slots
            .map(|slot| self.known(self.state.tx.get(slot)))
            .collect()
    }

    fn known(&self, value: TxValue) -> Known {
        match value {
            TxValue::Unset => Known::Unset,
            TxValue::Number(number) => Known::Number(number),
            TxValue::Text(id) => self.text(id),
        }
    }

    fn text(&self, id: ValueId) -> Known {
        let bytes = self.state.values.get(id);
        Known::Text(bytes.into(), classes(bytes))
    }

    /// Runs a rule, as far as it is about nothing but what is known; if it has to be run for each
    /// request, nothing of it is kept.
    fn outcome(&mut self, rule: &Rule) -> Outcome {
        let slots = 0..self.open.len() as u16;
        let before: Vec<TxValue> = slots.map(|slot| self.state.tx.get(slot)).collect();
        let last_match = self.state.last_match;
        self.state.current = rule.number;
        self.state.matched.clear();
        let mut matched = true;
        for link in &rule.links {
            match self.link(rule, link) {
                Some(true) => {}
                Some(false) => {
                    matched = false;
                    break;
                }
                None => {
                    self.restore(&before, last_match);
                    return Outcome::Live;
                }
            }
        }
        self.state.draft = None;
        if matched && (rule.log || rule.disruptive != Disruptive::Pass) {
            self.restore(&before, last_match);
            return Outcome::Live;
        }
        if matched {
            self.state.fired.push(rule.number);
            self.state.highest_severity = self.state.highest_severity.min(rule.severity);
        }
        Outcome::Settled { matched }
    }

    fn restore(&mut self, before: &[TxValue], last_match: Option<(Name, Subject)>) {
        for (slot, value) in before.iter().enumerate() {
            self.state.tx.set(slot as u16, *value);
        }
        self.state.last_match = last_match;
        self.state.draft = None;
    }

    /// Whether a link matches; `None`: that, or what follows from it, depends on the request.
    fn link(&mut self, rule: &Rule, link: &Link) -> Option<bool> {
        if !self.is_about_known(link) {
            return None;
        }
        let bare = Link {
            effects: Box::default(),
            ..link.clone()
        };
        let never = &mut || false;
        let mut scanner = Scanner::default();
        let mut work = Work::new(&mut scanner, never);
        if !self.state.link(self.rules, rule, &bare, None, &mut work) {
            return Some(false);
        }
        if !link
            .effects
            .iter()
            .all(|effect| self.is_known_effect(effect))
        {
            return None;
        }
        link.effects
            .iter()
            .for_each(|effect| self.state.carry_out(self.rules, effect));
        Some(true)
    }

    fn is_about_known(&self, link: &Link) -> bool {
        let is_known = match &link.test {
            Test::Always => true,
            Test::Operator(asked) => {
                let is_pure = asked.number.is_some()
                    || matches!(asked.operator, Operator::Text(_) | Operator::Rx(_));
                is_pure && self.is_known_text(&asked.argument)
            }
            Test::MacroRx(_) | Test::Geo | Test::Rbl(_) => false,
        };
        // With more than one target effects are carried out more than once.
        let targets = &link.targets;
        let is_plain = !link.capture
            && link.multi.is_none()
            && (targets.len() == 1 || link.effects.is_empty());
        is_known
            && (is_plain || matches!(link.test, Test::Always))
            && targets.iter().all(|target| match target.key {
                Key::Slot(slot) => {
                    target.variable == Variable::Tx
                        && target.excluded.is_empty()
                        && self.is_known(slot)
                }
                _ => false,
            })
    }

    fn is_known(&self, slot: u16) -> bool {
        self.open.get(usize::from(slot)) == Some(&false)
    }

    fn is_known_text(&self, text: &Macro) -> bool {
        text.parts().iter().all(|part| match part {
            Part::Text(_) => true,
            Part::Tx(slot) => self.is_known(*slot),
            Part::Variable(_) | Part::Member(..) => false,
        })
    }

    fn is_known_number(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Constant(_) => true,
            Operand::Tx(slot) => self.is_known(*slot),
            Operand::Macro(text) => self.is_known_text(text),
        }
    }

    fn is_known_effect(&self, effect: &Effect) -> bool {
        let Effect::Set(Place::Tx(slot), assign) = effect else {
            return false;
        };
        match assign {
            Assign::Unset | Assign::Number(_) => self.is_known(*slot),
            Assign::Text(text) => self.is_known(*slot) && self.is_known_text(text),
            Assign::Add(by) | Assign::Subtract(by) => {
                self.is_known(*slot) && self.is_known_number(by)
            }
        }
    }

    /// From here on, requests have a say in these.
    fn open(&mut self, slots: &[u16]) {
        for slot in slots {
            self.open[usize::from(*slot)] = true;
        }
    }
}
