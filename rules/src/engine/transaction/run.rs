//! The rules of a phase, in order.

use super::super::Phase;
use super::super::classes;
use super::super::ruleset::{Allow, Asked, Disruptive, Link, Quick, Rule, RuleSet, Test};
use super::super::segment::{Known, Segment};
use super::super::settings::OutOfTime;
use super::super::tx::{LIMITS_EXCEEDED, TxValue};
use super::super::values::ValueId;
use super::super::variable::Variable;
use super::super::verdict::{Disruption, Intervention, Verdict};
use super::candidates::Next;
use super::state::{Candidate, List, Name, NameKey, State, Subject};
use super::work::Work;
use regex_automata::{Anchored, Input};

use crate::operator::{Operator, Rx};
use crate::regex::Search;
use crate::seclang::ast::RuleEngine;

impl State {
    /// Runs a phase.
    pub(super) fn run(&mut self, rules: &RuleSet, phase: Phase, work: &mut Work<'_>) -> Verdict {
        self.is_straight &= self.coming == phase.index();
        self.coming = phase.index() + 1;
        if !self.runs(phase) {
            self.is_straight = false;
            return self.verdict();
        }
        let list = &rules.phases[phase.index()];
        let mut segments = rules.segments[phase.index()].iter().peekable();
        self.is_scanned = false;
        let mut at = 0;
        while let Some(Next { index, gate, skips }) = self.next(rules, phase, at, work) {
            while segments.next_if(|it| it.start < index).is_some() {}
            if self.is_straight
                && !self.is_restricted
                && let Some(segment) = segments.next_if(|it| it.start == index)
            {
                self.settle(rules, segment);
                at = segment.end;
                if self.plan_stale && self.is_scanned {
                    self.scan_new(rules, work);
                }
                continue;
            }
            let rule = &list[index];
            at = index + 1;
            if skips {
                at = self.skip(rules, rule).unwrap_or(at);
                continue;
            }
            if !self.removed.contains(rule.number) && self.chain(rules, rule, gate, work) {
                at = self.follow(rules, rule, phase).unwrap_or(at);
                if self.ended(phase) {
                    self.is_straight = false;
                    break;
                }
                if self.plan_stale && self.is_scanned {
                    self.scan_new(rules, work);
                }
            }
            if work.exhausted() {
                break;
            }
        }
        if work.exhausted() {
            self.is_straight = false;
            self.out_of_time(rules, phase);
        }
        if self.allowed == Some(Allow::Phase) {
            self.allowed = None;
        }
        self.verdict()
    }

    /// What a segment's rules come to.
    fn settle(&mut self, rules: &RuleSet, segment: &Segment) {
        for (slot, known) in &segment.tx {
            let value = match known {
                Known::Unset => TxValue::Unset,
                Known::Number(number) => TxValue::Number(*number),
                Known::Text(text, classes) => TxValue::Text(self.values.push_known(text, *classes)),
            };
            self.tx.set(*slot, value);
            self.plan_stale |= rules.filter.guarded() == Some(*slot);
        }
        self.fired.extend_from_slice(&segment.fired);
        self.highest_severity = self.highest_severity.min(segment.highest_severity);
        if let Some(last) = &segment.last_match {
            let name = Name {
                variable: Variable::Tx,
                key: last.slot.map_or(NameKey::Count, NameKey::Slot),
            };
            let subject = match &last.value {
                Known::Number(number) => Subject::Number(*number),
                Known::Text(text, classes) => {
                    Subject::Value(self.values.push_known(text, *classes))
                }
                Known::Unset => Subject::Value(ValueId::EMPTY),
            };
            self.last_match = Some((name, subject));
        }
    }

    /// A rule that is known to match, and only skips others.
    fn skip(&mut self, rules: &RuleSet, rule: &Rule) -> Option<usize> {
        self.fired.push(rule.number);
        if let Some(slot) = rules.filter.guarded() {
            let name = Name {
                variable: Variable::Tx,
                key: NameKey::Slot(slot),
            };
            self.last_match = Some((
                name,
                Subject::Number(self.tx.get(slot).number(&self.values)),
            ));
        }
        rule.next.map(|next| next as usize)
    }

    fn runs(&self, phase: Phase) -> bool {
        if self.engine == RuleEngine::Off {
            return false;
        }
        if phase == Phase::Logging {
            return true;
        }
        !self.is_allowed(phase) && self.intervention.is_none()
    }

    /// Whether the rest of a phase is left out. What `allow:phase` says ends with its phase.
    fn is_allowed(&self, phase: Phase) -> bool {
        match self.allowed {
            Some(Allow::Everything | Allow::Phase) => true,
            Some(Allow::Request) => phase.is_request(),
            None => false,
        }
    }

    /// Whether the match that was just followed ended the phase.
    fn ended(&self, phase: Phase) -> bool {
        let stopped =
            phase != Phase::Logging && (self.intervention.is_some() || self.is_allowed(phase));
        stopped || self.engine == RuleEngine::Off
    }

    /// A rule with all that is chained to it.
    fn chain(
        &mut self,
        rules: &RuleSet,
        rule: &Rule,
        gate: Option<u32>,
        work: &mut Work<'_>,
    ) -> bool {
        self.current = rule.number;
        self.matched.clear();
        if self.draft.is_some() {
            self.draft = None;
        }
        let mut gate = gate;
        for link in &rule.links {
            if !self.link(rules, rule, link, gate, work) {
                return false;
            }
            gate = None;
        }
        true
    }

    /// `gate`: only values that the filter marked for the rule at this place are asked about; `None`: all.
    pub(super) fn link(
        &mut self,
        rules: &RuleSet,
        rule: &Rule,
        link: &Link,
        gate: Option<u32>,
        work: &mut Work<'_>,
    ) -> bool {
        if matches!(link.test, Test::Always) {
            link.effects
                .iter()
                .for_each(|effect| self.carry_out(rules, effect));
            return true;
        }
        if !link.quick.is_empty()
            && let Some(answer) = self.quick(rules, rule, link)
        {
            return answer;
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        link.targets
            .iter()
            .for_each(|target| self.collect(rules, target, &mut candidates));
        if let Some(place) = gate {
            let bit = classes::bloom(place);
            candidates.retain(|candidate| matches!(candidate.subject, Subject::Value(id) if self.values.bloom(id) & bit != 0));
        }
        let mut matched = false;
        if !candidates.is_empty() {
            self.set_argument(rules, &link.test);
            for candidate in &candidates {
                let matches = self.candidate(rules, rule, link, candidate, work);
                if let (Some(place), false, Subject::Value(id)) = (gate, matches, candidate.subject)
                    && !work.exhausted()
                {
                    let (values, marked) = (&self.values, &self.marked);
                    work.scanner.rule_out(place, id, values, marked);
                }
                matched |= matches;
            }
        }
        self.candidates = candidates;
        matched
    }

    /// Numbers in `TX`, compared. `None`: one is a text, or a target was taken from the rule.
    fn quick(&mut self, rules: &RuleSet, rule: &Rule, link: &Link) -> Option<bool> {
        let is_text =
            |quick: &Quick| !quick.count && matches!(self.tx.get(quick.slot), TxValue::Text(_));
        if link.quick.iter().any(is_text) || self.narrowed.contains(self.current) {
            return None;
        }
        // A match of one may set what the next one is about.
        let alone = link.quick.len() == 1 || link.effects.is_empty();
        alone.then(|| {
            let all = link.quick.iter();
            all.fold(false, |any, quick| {
                any | self.compare(rules, rule, link, quick)
            })
        })
    }

    fn compare(&mut self, rules: &RuleSet, rule: &Rule, link: &Link, quick: &Quick) -> bool {
        let (number, key) = match self.tx.get(quick.slot) {
            value if quick.count => (i64::from(value != TxValue::Unset), NameKey::Count),
            TxValue::Number(number) => (number, NameKey::Slot(quick.slot)),
            TxValue::Unset | TxValue::Text(_) => return false,
        };
        let operand = self.operand(rules, &quick.operand);
        let matched = quick.comparison.holds(number, operand) != link.negated;
        if matched {
            let name = Name {
                variable: Variable::Tx,
                key,
            };
            self.matched_value(rules, rule, link, name, Subject::Number(number));
        }
        matched
    }

    /// Expands the operator's argument, once for all values.
    fn set_argument(&mut self, rules: &RuleSet, test: &Test) {
        let text = match test {
            Test::Operator(asked) => &asked.argument,
            Test::MacroRx(text) => text,
            Test::Always | Test::Geo | Test::Rbl(_) => return,
        };
        if text.constant().is_none() {
            let mut argument = std::mem::take(&mut self.argument);
            argument.clear();
            self.expand(rules, text, &mut argument);
            self.argument = argument;
        }
    }

    fn candidate(
        &mut self,
        rules: &RuleSet,
        rule: &Rule,
        link: &Link,
        candidate: &Candidate,
        work: &mut Work<'_>,
    ) -> bool {
        if let (Subject::Number(number), Test::Operator(asked)) = (candidate.subject, &link.test)
            && link.node == super::super::pipeline::ROOT
            && let Some((comparison, operand)) = &asked.number
        {
            let operand = self.operand(rules, operand);
            if comparison.holds(number, operand) == link.negated {
                return false;
            }
            self.matched_value(rules, rule, link, candidate.name, candidate.subject);
            return true;
        }
        let value = self.value_of(candidate.subject);
        match &link.multi {
            None => {
                let value = self.values.transformed(
                    value,
                    link.node,
                    &rules.pipelines,
                    rules.unicode.as_ref(),
                );
                self.ask(rules, rule, link, candidate.name, value, work)
            }
            Some(path) => self.multi_match(rules, rule, link, candidate.name, value, path, work),
        }
    }

    /// `multiMatch`: the value, and what each transformation made of it.
    #[allow(
        clippy::too_many_arguments,
        reason = "one step of the evaluation, with all that it needs"
    )]
    fn multi_match(
        &mut self,
        rules: &RuleSet,
        rule: &Rule,
        link: &Link,
        name: Name,
        value: ValueId,
        path: &[super::super::pipeline::NodeId],
        work: &mut Work<'_>,
    ) -> bool {
        let mut before = ValueId::NONE;
        let mut matched = false;
        for node in path {
            let now =
                self.values
                    .transformed(value, *node, &rules.pipelines, rules.unicode.as_ref());
            if now != before {
                matched |= self.ask(rules, rule, link, name, now, work);
                before = now;
            }
        }
        matched
    }

    fn ask(
        &mut self,
        rules: &RuleSet,
        rule: &Rule,
        link: &Link,
        name: Name,
        value: ValueId,
        work: &mut Work<'_>,
    ) -> bool {
        if !work.allows(self.values.len(value)) {
            return false;
        }
        match self.answer(rules, link, value) {
            Search::LimitExceeded => self.note_limit(rules),
            Search::Match if !link.negated => {}
            Search::NoMatch if link.negated => {}
            Search::Match | Search::NoMatch => return false,
        }
        if link.capture && !link.negated {
            self.capture(value);
        }
        self.matched_value(rules, rule, link, name, Subject::Value(value));
        true
    }

    /// A search that gave up is a match, negated or not, and rules can know.
    fn note_limit(&mut self, rules: &RuleSet) {
        self.set_flag(Variable::MscPcreLimitsExceeded, true);
        self.set_tx_named(rules, LIMITS_EXCEEDED, b"1");
    }

    fn answer(&mut self, rules: &RuleSet, link: &Link, value: ValueId) -> Search {
        match &link.test {
            Test::Always => Search::Match,
            Test::Operator(asked) => self.operator_answer(asked, link.capture, value),
            Test::MacroRx(_) => self.macro_rx_answer(value),
            Test::Geo => found(self.geo(rules, value)),
            Test::Rbl(zone) => found(self.listed(rules, zone, value)),
        }
    }

    fn operator_answer(&mut self, asked: &Asked, capture: bool, value: ValueId) -> Search {
        let bytes = self.values.get(value);
        if asked.everything {
            self.found.clear();
            self.found.push(0..bytes.len());
            return Search::Match;
        }
        if let (Operator::Rx(rx), Some(begins)) = (&asked.operator, asked.begins)
            && self.values.classes(value) & begins == 0
            && !begins_at_start(rx, bytes)
        {
            return Search::NoMatch;
        }
        if let Operator::Rx(rx) = &asked.operator
            && !capture
        {
            return rx.pattern().search(bytes);
        }
        let argument = asked.argument.constant().unwrap_or(&self.argument);
        let holds = asked.operator.matches(bytes, argument, &mut self.found);
        if self.found.limit_exceeded() {
            Search::LimitExceeded
        } else {
            found(holds)
        }
    }

    fn macro_rx_answer(&mut self, value: ValueId) -> Search {
        if self
            .macro_rx
            .as_ref()
            .is_none_or(|(text, _)| *text != self.argument)
        {
            let Ok(rx) = Rx::compile(&String::from_utf8_lossy(&self.argument)) else {
                return Search::NoMatch;
            };
            self.macro_rx = Some((self.argument.clone(), rx));
        }
        let Some((_, rx)) = &self.macro_rx else {
            return Search::NoMatch;
        };
        let holds = rx.matches(self.values.get(value), &mut self.found);
        if self.found.limit_exceeded() {
            Search::LimitExceeded
        } else {
            found(holds)
        }
    }

    fn geo(&mut self, rules: &RuleSet, value: ValueId) -> bool {
        let address = std::str::from_utf8(self.values.get(value))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let (Some(geo), Some(address)) = (&rules.options.geo, address) else {
            return false;
        };
        let mut record = Vec::new();
        let known = geo.lookup(address, &mut record);
        self.lists[List::Geo as usize].clear();
        for (name, value) in record {
            let (name, value) = (
                self.values.push(name.as_bytes()),
                self.values.push(value.as_bytes()),
            );
            self.add(List::Geo, name, value);
        }
        known
    }

    fn listed(&mut self, rules: &RuleSet, zone: &str, value: ValueId) -> bool {
        let Some(list) = &rules.options.block_list else {
            return false;
        };
        let Some(text) = list.listed(zone, self.values.get(value)) else {
            return false;
        };
        self.found.clear();
        let id = self.values.push(text.as_bytes());
        self.tx.set(0, TxValue::Text(id));
        true
    }

    /// A value matched: what does not depend on the rest of the chain happens now.
    fn matched_value(
        &mut self,
        rules: &RuleSet,
        rule: &Rule,
        link: &Link,
        name: Name,
        value: Subject,
    ) {
        self.last_match = Some((name, value));
        self.matched.push((name, value));
        link.effects
            .iter()
            .for_each(|effect| self.carry_out(rules, effect));
        if rule.log && rule.links.len() == 1 {
            match &mut self.draft {
                Some(draft) => draft.matches += 1,
                None => self.draft = Some(self.recorded(rules, rule.number)),
            }
        }
    }

    /// What follows from a match of the whole chain. The answer: where to go on.
    fn follow(&mut self, rules: &RuleSet, rule: &Rule, phase: Phase) -> Option<usize> {
        self.fired.push(rule.number);
        self.highest_severity = self.highest_severity.min(rule.severity);
        let disruptive = self.engine == RuleEngine::On
            && phase != Phase::Logging
            && rule.disruptive != Disruptive::Pass;
        if rule.log {
            let mut record = self
                .draft
                .take()
                .unwrap_or_else(|| self.recorded(rules, rule.number));
            record.disruptive = disruptive;
            self.keep(record);
        }
        if disruptive {
            self.disrupt(rules, rule, rules.info[rule.number as usize].id, phase);
        }
        rule.next.map(|next| next as usize)
    }

    fn disrupt(&mut self, rules: &RuleSet, rule: &Rule, id: u64, phase: Phase) {
        let (action, status) = match &rule.disruptive {
            Disruptive::Pass => return,
            Disruptive::Allow(scope) => {
                self.allowed = Some(*scope);
                return;
            }
            Disruptive::Deny(status) => (Disruption::Deny, *status),
            Disruptive::Drop(status) => (Disruption::Drop, *status),
            Disruptive::Redirect(status, target) => {
                let target = self.expanded(rules, target);
                let target = String::from_utf8_lossy(self.values.get(target)).into_owned();
                (Disruption::Redirect(target), *status)
            }
        };
        self.intervention = Some(Intervention {
            action,
            status,
            rule: id,
            phase,
        });
    }

    fn out_of_time(&mut self, rules: &RuleSet, phase: Phase) {
        let deny = match rules.options.out_of_time {
            OutOfTime::Deny(status) if self.engine == RuleEngine::On && phase != Phase::Logging => {
                Some(status)
            }
            _ => None,
        };
        self.record_limit(
            b"Out of time: the rest of the rules was not run",
            deny.is_some(),
        );
        if let Some(status) = deny {
            self.intervention = Some(Intervention {
                action: Disruption::Deny,
                status,
                rule: 0,
                phase,
            });
        }
    }
}

fn found(holds: bool) -> Search {
    if holds {
        Search::Match
    } else {
        Search::NoMatch
    }
}

/// Whether a pattern matches at the start of a value.
fn begins_at_start(rx: &Rx, bytes: &[u8]) -> bool {
    let input = Input::new(bytes).anchored(Anchored::Yes).earliest(true);
    rx.pattern().regex().search_half(&input).is_some()
}
