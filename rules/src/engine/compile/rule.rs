//! Drafts become rules, in the order of each phase.

use super::super::Phase;
use super::super::macros::Macro;
use super::super::ruleset::{Disruptive, Link, Quick, Rule, RuleInfo, Test};
use super::Compiler;
use super::actions::{Actions, Way};
use super::catalogue::Catalogue;
use super::draft::{Draft, DraftLink, Drafts};
use crate::seclang::ast::Spanned;

/// What comes out.
pub(super) struct Compiled {
    pub(super) phases: [Box<[Rule]>; Phase::COUNT],
    pub(super) info: Vec<RuleInfo>,
}

/// Compiles all drafts.
pub(super) fn phases(
    drafts: &Drafts,
    catalogue: &Catalogue,
    compiler: &mut Compiler<'_>,
) -> Compiled {
    let info = drafts
        .rules
        .iter()
        .map(|draft| compiler.info(draft))
        .collect();
    let phases = Phase::ALL.map(|phase| compiler.phase(phase, drafts, catalogue));
    Compiled { phases, info }
}

impl Compiler<'_> {
    fn phase(&mut self, phase: Phase, drafts: &Drafts, catalogue: &Catalogue) -> Box<[Rule]> {
        let numbers: Vec<usize> = (0..drafts.rules.len())
            .filter(|n| drafts.rules[*n].phase == phase && !drafts.removed[*n])
            .collect();
        let rules = numbers.iter().enumerate().map(|(index, number)| {
            let next = self.next(index, &numbers, drafts);
            self.rule(*number, next, &drafts.rules[*number], catalogue)
        });
        rules.collect()
    }

    /// Where `skip` and `skipAfter` lead, as an index into the phase.
    fn next(&mut self, index: usize, numbers: &[usize], drafts: &Drafts) -> Option<u32> {
        let number = numbers[index];
        let actions = &drafts.rules[number].links[0].actions;
        if let Some(skip) = actions.skip {
            return Some(
                u32::try_from(index)
                    .ok()?
                    .saturating_add(1)
                    .saturating_add(skip),
            );
        }
        let after = actions.skip_after.as_ref()?;
        let Some(before) = marker(drafts, number, &after.node) else {
            self.warning(
                after.at,
                format!(
                    "there is no SecMarker {} after this rule: the rest of the phase is skipped",
                    after.node
                ),
            );
            return Some(numbers.len() as u32);
        };
        Some(numbers.partition_point(|n| *n < before) as u32)
    }

    fn rule(
        &mut self,
        number: usize,
        next: Option<u32>,
        draft: &Draft,
        catalogue: &Catalogue,
    ) -> Rule {
        let actions = &draft.links[0].actions;
        let links: Vec<Link> = draft
            .links
            .iter()
            .filter_map(|link| self.link(link, draft, catalogue))
            .collect();
        let disruptive = self.disruptive(actions, &draft.default);
        let log = actions.log.or(draft.default.log).unwrap_or(true);
        Rule {
            number: number as u32,
            links: links.into(),
            disruptive,
            next,
            log,
            severity: severity(draft).unwrap_or(u8::MAX),
        }
    }

    fn link(&mut self, draft: &DraftLink, rule: &Draft, catalogue: &Catalogue) -> Option<Link> {
        let actions = &draft.actions;
        let targets = self.targets(&draft.variables);
        self.warn_unreachable(draft, rule, &targets);
        let effects = self.effects(&actions.effects, catalogue);
        let list = actions.pipeline(&rule.default);
        let node = self
            .pipelines
            .intern(&list)
            .ok_or_else(|| "there are more than 65,535 lists of transformations".to_owned());
        let node = self.check(draft.at, node)?;
        let (test, negated) = match &draft.operator {
            None => (Test::Always, false),
            Some(written) => (self.test(written)?, written.node.negated),
        };
        let multi = actions
            .multi_match
            .then(|| self.pipelines.path(node).into());
        let quick = Quick::of(&targets, node, &test);
        Some(Link {
            targets: targets.into(),
            quick,
            node,
            multi,
            test,
            negated,
            capture: actions.capture,
            effects: effects.into(),
        })
    }

    fn warn_unreachable(
        &mut self,
        draft: &DraftLink,
        rule: &Draft,
        targets: &[super::super::ruleset::Target],
    ) {
        if draft.operator.is_none() {
            return;
        }
        let reachable = targets
            .iter()
            .any(|t| t.count || t.variable.available() <= rule.phase);
        if targets.is_empty() {
            self.warning(
                draft.at,
                "all variables of this rule are excluded: it never matches",
            );
        } else if !reachable {
            let name = targets[0].variable.name();
            let (has, phase) = (
                targets[0].variable.available().number(),
                rule.phase.number(),
            );
            self.warning(draft.at, format!("{name} has no value before phase {has}: this rule in phase {phase} never matches"));
        }
    }

    fn disruptive(&mut self, actions: &Actions, default: &Actions) -> Disruptive {
        let inherited = default.disruptive.as_ref();
        let way = actions
            .disruptive
            .as_ref()
            .filter(|way| way.node != Way::Block)
            .or(inherited);
        let status = actions.status.or(default.status);
        match way {
            None => Disruptive::Pass,
            Some(Spanned { at, node: way }) => match way {
                Way::Pass | Way::Block => Disruptive::Pass,
                Way::Allow(scope) => Disruptive::Allow(*scope),
                Way::Deny => Disruptive::Deny(status.unwrap_or(403)),
                Way::Drop => Disruptive::Drop(status.unwrap_or(403)),
                Way::Redirect(target) => {
                    let status = status.filter(|s| (300..400).contains(s)).unwrap_or(302);
                    let target = Macro::parse(target, &mut self.names);
                    let target = self.check(*at, target).unwrap_or_default();
                    Disruptive::Redirect(status, Box::new(target))
                }
            },
        }
    }

    fn info(&mut self, draft: &Draft) -> RuleInfo {
        let first = &draft.links[0].actions;
        let all = || draft.links.iter().map(|link| &link.actions);
        // A link may give its own message; the last counts.
        let message = all().filter_map(|a| a.message.as_ref()).next_back();
        let logdata = all().filter_map(|a| a.logdata.as_ref()).next_back();
        RuleInfo {
            id: first.id.unwrap_or_default(),
            phase: draft.phase,
            file: self.file(draft.at),
            line: draft.at.line,
            severity: severity(draft),
            tags: all()
                .flat_map(|a| &a.tags)
                .map(|tag| tag.node.as_str().into())
                .collect(),
            message: message.map(|m| m.node.as_str().into()),
            version: first.version.as_deref().map(Into::into),
            revision: first.revision.as_deref().map(Into::into),
            maturity: first.maturity.unwrap_or_default(),
            accuracy: first.accuracy.unwrap_or_default(),
            operator: draft.links.last().map(written).unwrap_or_default().into(),
            msg: self.macros(message),
            logdata: self.macros(logdata),
        }
    }

    fn macros(&mut self, text: Option<&Spanned<String>>) -> Option<Macro> {
        let text = text?;
        let parsed = Macro::parse(&text.node, &mut self.names);
        self.check(text.at, parsed)
    }
}

/// How many rules stand before the marker `name`, of those markers that come after rule `number`.
/// As in ModSecurity, the id of a rule serves as a marker, too.
fn marker(drafts: &Drafts, number: usize, name: &str) -> Option<usize> {
    let marked = drafts
        .markers
        .iter()
        .find(|(marker, before)| marker == name && *before > number);
    if let Some((_, before)) = marked {
        return Some(*before);
    }
    let id = name.parse::<u64>().ok()?;
    let rule = drafts
        .rules
        .iter()
        .position(|draft| draft.links[0].actions.id == Some(id))?;
    (rule > number).then_some(rule + 1)
}

/// A link may give its own severity; the last counts.
fn severity(draft: &Draft) -> Option<u8> {
    draft
        .links
        .iter()
        .filter_map(|link| link.actions.severity)
        .next_back()
}

fn written(link: &DraftLink) -> String {
    match &link.operator {
        None => "unconditionalMatch".to_owned(),
        Some(operator) => {
            let not = if operator.node.negated { "!" } else { "" };
            format!("{not}@{} {}", operator.node.name, operator.node.argument)
        }
    }
}
