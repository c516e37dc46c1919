//! Which rules could match at all: asked of each value once, instead of each rule of each value.
//!
//! A rule is *filtered* when it only looks at values that do not change while rules run, and when its
//! operator requires something of them (`requirement`): that one of some strings occurs, that a byte of
//! some set does, or a length. `plan` says for each value which filtered rules look at it and
//! through which transformations. When a phase begins, `scan` takes each new value, and what the
//! transformations make of it where that differs, once past all strings (`atoms`). The rules
//! whose requirement is met are *candidates*; only they and those that are not filtered are run.
//!
//! Invariant: the filter only decides whether an operator is called. Negated operators, operands with
//! macros, counts, and variables that rules write are never filtered. What cannot be told is a candidate.

mod atoms;
mod beginning;
mod bytes;
mod demand;
mod explain;
mod guard;
mod injection;
mod memo;
mod plan;
mod rare;
mod requirement;
mod sample;
mod scan;

use demand::demand;
use guard::{Guard, Reach};
use plan::{Demands, Sources, plan};

pub(super) use beginning::first_bytes;
pub(super) use plan::{Channel, Plan};
pub(super) use scan::{Lens, Marked, Scanner};

use super::Phase;
use super::pipeline::Pipelines;
use super::ruleset::Rule;
use super::tx::{TxNames, TxValue};
use requirement::Requirement;

/// Rules that are rather always run than that values are scanned before it is known which plan holds.
const EARLY: usize = 32;

/// Leaves the first rules of a phase unfiltered, up to the one that settles which plan holds.
fn wait(demands: &mut [Option<Requirement>], settled: usize) {
    let early = &mut demands[..settled];
    if early.iter().flatten().count() <= EARLY {
        early.fill(None);
    }
}

/// The plans of a rule set.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    /// The first for all rules; the others for those that the guard lets through.
    pub(super) plans: Box<[Plan]>,
    guard: Option<Guard>,
}

impl Filter {
    pub(super) fn new(
        phases: &[Box<[Rule]>; Phase::COUNT],
        pipelines: &Pipelines,
        xpaths: usize,
        names: &TxNames,
    ) -> Self {
        let guard = Guard::of(phases, names);
        let mut demands: Demands = std::array::from_fn(|phase| {
            phases[phase]
                .iter()
                .map(|rule| rule.links.first().and_then(demand))
                .collect()
        });
        if let Some(guard) = &guard {
            phases
                .iter()
                .zip(&mut demands)
                .for_each(|(rules, demands)| wait(demands, guard.settled(rules, names)));
        }
        let sources = Sources {
            phases,
            demands: &demands,
            pipelines,
            xpaths,
        };
        let mut plans = vec![plan(sources, |_, _| Reach::Open)];
        if let Some(guard) = &guard {
            plans.extend(
                (0..guard.classes())
                    .map(|class| plan(sources, |phase, index| guard.reach(class, phase, index))),
            );
        }
        Self {
            plans: plans.into(),
            guard,
        }
    }

    /// Which plan holds while the guarded variable has this value and no guarding rule is `out` of order.
    pub(super) fn choose(
        &self,
        value: impl Fn(u16) -> TxValue,
        out: impl Fn(u32) -> bool,
    ) -> usize {
        let Some(guard) = &self.guard else { return 0 };
        match value(guard.slot) {
            TxValue::Number(number) if !guard.numbers().any(out) => 1 + guard.class(number),
            _ => 0,
        }
    }

    /// The variable of `TX` on which the choice depends.
    pub(super) fn guarded(&self) -> Option<u16> {
        self.guard.as_ref().map(|guard| guard.slot)
    }
}
