//! Rules that skip others as long as a variable of `TX` is small: CRS's paranoia levels.
//!
//! `SecRule TX:EXECUTING_PARANOIA_LEVEL "@lt 2" "...,skipAfter:END"` leaves out more than half of all rules
//! at level 1. What is left out need not be looked for: there is one plan for each outcome.

use std::collections::HashMap;
use std::ops::Range;

use super::super::Phase;
use super::super::number::{Comparison, Operand};
use super::super::ruleset::{Disruptive, Rule, written};
use super::super::tx::{CAPTURES, TxNames};

/// Rules that compare the same variable and skip others.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) slot: u16,
    /// Where the outcome of a rule changes, ascending.
    bounds: Box<[i64]>,
    rules: Box<[Guarding]>,
}

#[derive(Clone, Debug)]
struct Guarding {
    number: u32,
    phase: usize,
    /// What it skips when it matches.
    skipped: Range<usize>,
    comparison: Comparison,
    operand: i64,
    negated: bool,
    /// It leaves no record.
    is_silent: bool,
}

/// Outcomes beyond which there is no guard: each has a plan.
const CLASSES: usize = 8;

impl Guard {
    /// The variable that guards most rules, if there is one.
    pub(super) fn of(phases: &[Box<[Rule]>; Phase::COUNT], names: &TxNames) -> Option<Self> {
        let mut by_slot: HashMap<u16, Vec<Guarding>> = HashMap::new();
        for (phase, rules) in phases.iter().enumerate() {
            for (index, rule) in rules.iter().enumerate() {
                let is_sound = |(slot, guarding): &(u16, Guarding)| {
                    *slot >= CAPTURES
                        && Some(*slot) != names.fickle()
                        && !is_entered(rules, index, &guarding.skipped)
                        // It guards by what the variable was when it was asked: set later in
                        // the phase, it would be taken for having guarded by that.
                        && !written(&rules[index..], names).contains(slot)
                };
                if let Some((slot, guarding)) = guarding(phase, index, rule).filter(is_sound) {
                    by_slot.entry(slot).or_default().push(guarding);
                }
            }
        }
        let skips = |rules: &Vec<Guarding>| rules.iter().map(|g| g.skipped.len()).sum::<usize>();
        let (slot, rules) = by_slot
            .into_iter()
            .max_by_key(|(slot, rules)| (skips(rules), *slot))?;
        let mut bounds: Vec<i64> = rules.iter().map(Guarding::bound).collect();
        bounds.sort_unstable();
        bounds.dedup();
        (bounds.len() < CLASSES).then(|| Self {
            slot,
            bounds: bounds.into(),
            rules: rules.into(),
        })
    }

    pub(super) fn classes(&self) -> usize {
        self.bounds.len() + 1
    }

    /// The class of a value: all values of a class have the same outcomes.
    pub(super) fn class(&self, value: i64) -> usize {
        self.bounds.partition_point(|bound| *bound <= value)
    }

    /// Numbers of the guarding rules.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.rules.iter().map(|rule| rule.number)
    }

    /// Up to which rule of a phase the variable may still be set.
    pub(super) fn settled(&self, rules: &[Rule], names: &TxNames) -> usize {
        let sets = |rule: &Rule| written(std::slice::from_ref(rule), names).contains(&self.slot);
        let last = rules.iter().rposition(sets);
        last.map_or(0, |last| last + 1)
    }

    /// What is known of a rule in a class of the variable's values.
    pub(super) fn reach(&self, class: usize, phase: usize, index: usize) -> Reach {
        let value = match class.checked_sub(1) {
            Some(bound) => self.bounds[bound],
            None => self.bounds[0].saturating_sub(1),
        };
        let of_phase = || self.rules.iter().filter(|rule| rule.phase == phase);
        if of_phase().any(|rule| rule.skipped.contains(&index) && rule.matches(value)) {
            return Reach::Skipped;
        }
        match of_phase().find(|rule| rule.skipped.start == index + 1 && rule.is_silent) {
            Some(rule) if rule.matches(value) => Reach::Skips,
            Some(_) => Reach::Passes,
            None => Reach::Open,
        }
    }
}

/// What is known of a rule before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing.
    Open,
    /// It is never run.
    Skipped,
    /// It is run and does not match.
    Passes,
    /// It matches, and all that follows from it is that others are skipped.
    Skips,
}

impl Guarding {
    fn matches(&self, value: i64) -> bool {
        self.comparison.holds(value, self.operand) != self.negated
    }

    fn bound(&self) -> i64 {
        match self.comparison {
            Comparison::Lt | Comparison::Ge | Comparison::Eq => self.operand,
            Comparison::Le | Comparison::Gt => self.operand.saturating_add(1),
        }
    }
}

/// A rule that does nothing but compare and skip.
fn guarding(phase: usize, index: usize, rule: &Rule) -> Option<(u16, Guarding)> {
    let [link] = &*rule.links else { return None };
    let [quick] = &*link.quick else { return None };
    if quick.count || quick.comparison == Comparison::Eq {
        return None;
    }
    let Operand::Constant(operand) = quick.operand else {
        return None;
    };
    let skipped = index + 1..rule.next? as usize;
    let plain =
        rule.disruptive == Disruptive::Pass && link.effects.is_empty() && !skipped.is_empty();
    let guarding = Guarding {
        number: rule.number,
        phase,
        skipped,
        comparison: quick.comparison,
        operand,
        negated: link.negated,
        is_silent: !rule.log && rule.severity == u8::MAX,
    };
    plain.then_some((quick.slot, guarding))
}

/// Whether another rule leads into what this one skips.
fn is_entered(rules: &[Rule], guard: usize, skipped: &Range<usize>) -> bool {
    let others = rules.iter().enumerate().filter(|(index, _)| *index < guard);
    others
        .filter_map(|(_, rule)| rule.next)
        .any(|next| skipped.contains(&(next as usize)))
}
