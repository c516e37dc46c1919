//! New values are scanned before the first filtered rule of a phase; then only some rules are run.

use super::super::Phase;
use super::super::filter::{Channel, Lens, Plan};
use super::super::ruleset::RuleSet;
use super::super::values::ValueId;
use super::state::{List, Member, State};
use super::work::Work;

/// A rule that has to be run.
#[derive(Clone, Copy)]
pub(super) struct Next {
    /// Its index in the phase.
    pub(super) index: usize,
    /// Its place among all rules, where only values that the filter marked for it have to be asked about.
    pub(super) gate: Option<u32>,
    /// It is known to match, and only skips others.
    pub(super) skips: bool,
}

/// So many names of a list are likely to come again with other requests; where there are more, as in
/// JSON, they would only make each other forgotten.
const REPEATED_NAMES: usize = 32;

impl State {
    /// The next rule of a phase at or after `at` that has to be run.
    pub(super) fn next(
        &mut self,
        rules: &RuleSet,
        phase: Phase,
        at: usize,
        work: &mut Work<'_>,
    ) -> Option<Next> {
        let count = rules.phases[phase.index()].len();
        if !rules.options.prefilter {
            let next = Next {
                index: at,
                gate: None,
                skips: false,
            };
            return (at < count).then_some(next);
        }
        if self.is_scanned {
            return self.pending(&rules.filter.plans[self.plan], phase, at, count, true);
        }
        // Rules before the first filtered one may still decide which plan holds.
        let known = if self.plan_stale || self.plan == usize::MAX {
            0
        } else {
            self.plan
        };
        let first = rules.filter.plans[0].first[phase.index()];
        match self.pending(&rules.filter.plans[known], phase, at, count, false) {
            Some(next) if next.index < first => Some(next),
            next if first == usize::MAX => next,
            _ => {
                self.scan_new(rules, work);
                self.pending(&rules.filter.plans[self.plan], phase, at, count, true)
            }
        }
    }

    fn pending(
        &self,
        plan: &Plan,
        phase: Phase,
        at: usize,
        count: usize,
        scanned: bool,
    ) -> Option<Next> {
        let offset = plan.offsets[phase.index()];
        let mut from = at;
        while from < count {
            let word = (offset + from) / 64;
            let always = plan.always[word];
            let candidates = if scanned {
                self.marked.candidates(word)
            } else {
                0
            };
            let open = (always | candidates) & (u64::MAX << (from % 64));
            if open != 0 {
                let bit = open.trailing_zeros();
                let is_filtered = always >> bit & 1 == 0;
                let gate = is_filtered.then_some(word as u32 * 64 + bit);
                let skips = plan.skips[word] >> bit & 1 == 1;
                return Some(Next {
                    index: from / 64 * 64 + bit as usize,
                    gate,
                    skips,
                });
            }
            from = (from / 64 + 1) * 64;
        }
        None
    }

    /// Scans the values that have come since the last phase.
    pub(super) fn scan_new(&mut self, rules: &RuleSet, work: &mut Work<'_>) {
        self.choose_plan(rules);
        let plan = &rules.filter.plans[self.plan];
        work.scanner.fit(plan);
        for list in 0..List::COUNT {
            self.scan_list(rules, plan, list, work);
        }
        for (variable, channel) in &plan.scalars {
            let index = variable.index();
            if self.scanned_scalars >> index & 1 == 0 && self.scalar(*variable).is_some() {
                self.scanned_scalars |= 1 << index;
                self.scan_value(rules, plan, channel, self.scalar(*variable), work);
            }
        }
        for (index, channel) in plan.xpaths.iter().enumerate().skip(self.scanned_xml) {
            let members = std::mem::take(&mut self.xml[index]);
            if !members.is_empty() {
                self.scanned_xml = index + 1;
                members
                    .iter()
                    .for_each(|member| self.scan_value(rules, plan, channel, member.value, work));
            }
            self.xml[index] = members;
        }
        self.is_scanned = true;
    }

    /// The plan that holds now. When it was another one before, all values are scanned again, for all rules.
    fn choose_plan(&mut self, rules: &RuleSet) {
        self.plan_stale = false;
        let out = |number| {
            self.is_restricted && (self.removed.contains(number) || self.narrowed.contains(number))
        };
        let chosen = rules.filter.choose(|slot| self.tx.get(slot), out);
        let chosen = match self.plan {
            usize::MAX => chosen,
            before if before == chosen => return,
            0 => {
                // What was scanned for all rules holds for some, too.
                self.plan = chosen;
                return;
            }
            _ => 0,
        };
        self.plan = chosen;
        self.marked.reset(&rules.filter.plans[chosen]);
        self.scanned = [0; List::COUNT];
        self.scanned_xml = 0;
        self.scanned_scalars = 0;
    }

    fn scan_list(&mut self, rules: &RuleSet, plan: &Plan, list: usize, work: &mut Work<'_>) {
        let from = std::mem::replace(&mut self.scanned[list], self.lists[list].len());
        let list_plan = &plan.lists[list];
        // Headers do; arguments and cookies are as many as there are users.
        let repeats =
            list == List::RequestHeaders as usize || list == List::ResponseHeaders as usize;
        for index in from..self.lists[list].len() {
            let Member { key, value, .. } = self.lists[list][index];
            let channel = list_plan.channel(self.values.get(key));
            self.scan_member(rules, plan, channel, value, work, repeats);
            let first = index < REPEATED_NAMES;
            self.scan_member(rules, plan, &list_plan.names, key, work, first);
        }
    }

    /// `repeats`: other requests are likely to have the same.
    fn scan_member(
        &mut self,
        rules: &RuleSet,
        plan: &Plan,
        channel: &Channel,
        id: ValueId,
        work: &mut Work<'_>,
        repeats: bool,
    ) {
        if !repeats {
            self.scan_value(rules, plan, channel, id, work);
        } else if channel.nodes != 0 && work.allows(self.values.len(id)) {
            let (values, marked) = (&mut self.values, &mut self.marked);
            work.scanner
                .known_value(Lens::of(rules, plan), channel, values, marked, id);
        }
    }

    fn scan_value(
        &mut self,
        rules: &RuleSet,
        plan: &Plan,
        channel: &Channel,
        id: ValueId,
        work: &mut Work<'_>,
    ) {
        if channel.nodes != 0 && work.allows(self.values.len(id)) {
            let (values, marked) = (&mut self.values, &mut self.marked);
            work.scanner
                .value(Lens::of(rules, plan), channel, values, marked, id);
        }
    }
}
