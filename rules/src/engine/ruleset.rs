//! Compiled rules. Nothing in a [`RuleSet`] changes once it is made: all workers share one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::classes::Classes;
use super::collections::Collection;
use super::filter::Filter;
use super::macros::Macro;
use super::name_pattern::NamePattern;
use super::number::{Comparison, Operand};
use super::pipeline::{NodeId, Pipelines, ROOT};
use super::segment::Segment;
use super::settings::Settings;
use super::tx::TxNames;
use super::variable::Variable;
use super::{CompileError, Options, Phase};
use crate::body::BodyLimits;
use crate::body::xml::XPath;
use crate::operator::Operator;
use crate::seclang::ast::RuleEngine;
use crate::transformation::UnicodeMap;

/// Rules, ready to be evaluated. Made by [`compile`](super::compile::compile).
pub struct RuleSet {
    /// Another one for each rule set of the process, from 1 on.
    pub(super) serial: u64,
    pub(super) phases: [Box<[Rule]>; Phase::COUNT],
    /// What is known of each rule, by its number.
    pub(super) info: Box<[RuleInfo]>,
    /// Runs of rules whose outcome is known, in order.
    pub(super) segments: [Box<[Segment]>; Phase::COUNT],
    pub(super) filter: Filter,
    pub(super) pipelines: Pipelines,
    /// Patterns of `/regex/` selectors.
    pub(super) selectors: Box<[NamePattern]>,
    /// For each of `selectors` the slots of `TX` whose names, spelled out in rules, it means.
    pub(super) tx_selected: Box<[Box<[u16]>]>,
    /// Targets that `ctl:ruleRemoveTarget...` takes away.
    pub(super) removals: Box<[Removal]>,
    /// XPath expressions that rules ask `XML` for.
    pub(super) xpaths: Box<[(Box<str>, XPath)]>,
    /// Variables that rules look at, by their numbers.
    pub(super) read: Box<[bool]>,
    pub(super) tx: TxNames,
    pub(super) settings: Settings,
    pub(super) limits: BodyLimits,
    pub(super) unicode: Option<UnicodeMap>,
    pub(super) options: Options,
    pub(super) warnings: Vec<CompileError>,
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet")
            .field("rules", &self.info.len())
            .finish_non_exhaustive()
    }
}

impl RuleSet {
    /// What is not wrong but suspicious: rules that can never match, directives without effect.
    pub fn warnings(&self) -> &[CompileError] {
        &self.warnings
    }

    /// The rules, in the order of their files. A chain counts as one.
    pub fn rules(&self) -> &[RuleInfo] {
        &self.info
    }

    /// `SecRuleEngine`, body access, limits and what else the configuration sets.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a rule looks at this variable.
    pub fn reads(&self, variable: Variable) -> bool {
        self.read[variable.index()]
    }

    /// How the rule with this id is evaluated: transformations, operator, and what a value must
    /// have for the rule to be run at all. A line for each link of its chain.
    pub fn explain(&self, id: u64) -> Option<String> {
        let phases = self.phases.iter().enumerate();
        let all = phases.flat_map(|(phase, rules)| {
            rules
                .iter()
                .enumerate()
                .map(move |(index, rule)| (phase, index, rule))
        });
        let (phase, index, rule) = all
            .into_iter()
            .find(|(_, _, rule)| self.info[rule.number as usize].id == id)?;
        let filter = self.filter.plans[0].explain(phase, index);
        let segment = |it: &Segment| (it.start..it.end).contains(&index);
        let is_settled = self.segments[phase].iter().any(segment);
        let filter = match filter {
            Some(needs) => format!("run for values with {needs}"),
            None if is_settled => "settled when it is loaded".to_owned(),
            None => "always run".to_owned(),
        };
        let mut text = format!("phase {}, {filter}\n", phase + 1);
        for link in &rule.links {
            text.push_str(&self.explain_link(link));
        }
        Some(text)
    }

    fn explain_link(&self, link: &Link) -> String {
        let steps: Vec<&str> = self
            .pipelines
            .list(link.node)
            .into_iter()
            .map(|t| t.name())
            .collect();
        let names: Vec<&str> = link
            .targets
            .iter()
            .map(|target| target.variable.name())
            .collect();
        let test = match &link.test {
            Test::Always => "always matches",
            Test::Operator(asked) => asked.operator.name(),
            Test::MacroRx(_) => "rx with macros",
            Test::Geo => "geoLookup",
            Test::Rbl(_) => "rbl",
        };
        let not = if link.negated { "not " } else { "" };
        format!(
            "  {} | {} | {not}{test} | {} effects\n",
            names.join(" "),
            steps.join(" "),
            link.effects.len()
        )
    }
}

/// A number that no rule set has had.
pub(super) fn next_serial() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// What a rule says of itself.
#[derive(Clone, Debug)]
pub struct RuleInfo {
    /// Its id; 0 for a `SecAction` or rule without one.
    pub id: u64,
    /// Its phase.
    pub phase: Phase,
    /// The file it stands in.
    pub file: Arc<PathBuf>,
    /// 1-based.
    pub line: u32,
    /// 0 (emergency) to 7 (debug).
    pub severity: Option<u8>,
    /// Its tags, macros not expanded.
    pub tags: Box<[Box<str>]>,
    /// `msg`, macros not expanded.
    pub message: Option<Box<str>>,
    /// `ver`.
    pub version: Option<Box<str>>,
    /// `rev`.
    pub revision: Option<Box<str>>,
    /// `maturity`.
    pub maturity: u8,
    /// `accuracy`.
    pub accuracy: u8,
    /// The operator of its last link, as written.
    pub operator: Box<str>,
    pub(super) msg: Option<Macro>,
    pub(super) logdata: Option<Macro>,
}

/// A rule with all that is chained to it.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Index of its [`RuleInfo`].
    pub(super) number: u32,
    /// The rule itself and what is chained to it; never empty.
    pub(super) links: Box<[Link]>,
    pub(super) disruptive: Disruptive,
    /// The rule to go on with, an index into the phase, after a match.
    pub(super) next: Option<u32>,
    /// Whether a match is recorded.
    pub(super) log: bool,
    /// That of its [`RuleInfo`]; 255: none.
    pub(super) severity: u8,
}

/// One `SecRule` of a chain.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) targets: Box<[Target]>,
    /// Of the many rules that only compare numbers in `TX`: all that is needed for it. Empty for others.
    pub(super) quick: Box<[Quick]>,
    pub(super) node: NodeId,
    /// `multiMatch`: the nodes on the way to `node`, the root first.
    pub(super) multi: Option<Box<[NodeId]>>,
    pub(super) test: Test,
    pub(super) negated: bool,
    pub(super) capture: bool,
    pub(super) effects: Box<[Effect]>,
}

/// `TX:name`, or `&TX:name`, compared with a number.
#[derive(Clone, Debug)]
pub(super) struct Quick {
    pub(super) slot: u16,
    pub(super) count: bool,
    pub(super) comparison: Comparison,
    pub(super) operand: Operand,
}

impl Quick {
    /// One for each target; none where another kind of target is among them.
    pub(super) fn of(targets: &[Target], node: NodeId, test: &Test) -> Box<[Self]> {
        let (ROOT, Test::Operator(asked)) = (node, test) else {
            return Box::default();
        };
        let Some((comparison, operand)) = &asked.number else {
            return Box::default();
        };
        let quick = targets.iter().map(|target| match target {
            Target {
                variable: Variable::Tx,
                key: Key::Slot(slot),
                count,
                excluded,
            } if excluded.is_empty() => Some(Self {
                slot: *slot,
                count: *count,
                comparison: *comparison,
                operand: operand.clone(),
            }),
            _ => None,
        });
        quick.collect::<Option<_>>().unwrap_or_default()
    }
}

/// What is asked of each value.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// `SecAction`: matches without a value.
    Always,
    Operator(Box<Asked>),
    /// An `@rx` with macros: compiled when it is asked.
    MacroRx(Macro),
    /// `@geoLookup`.
    Geo,
    /// `@rbl`: the zone.
    Rbl(Box<str>),
}

/// An operator with its argument.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) operator: Operator,
    pub(super) argument: Macro,
    /// `^.*$`: matches every value, as a whole.
    pub(super) everything: bool,
    /// Of an `@rx`: the bytes with which a match begins that does not begin where the value does.
    /// `None`: it may begin with any.
    pub(super) begins: Option<Classes>,
    /// For values that are numbers already.
    pub(super) number: Option<(Comparison, Operand)>,
}

/// One variable of a rule, without what is excluded from it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) variable: Variable,
    pub(super) key: Key,
    /// `&`.
    pub(super) count: bool,
    pub(super) excluded: Box<[Key]>,
}

/// Which members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    All,
    /// In lower case.
    Name(Box<[u8]>),
    /// A member of `TX`.
    Slot(u16),
    /// Index into `RuleSet::selectors`.
    Regex(u16),
    /// Index into `RuleSet::xpaths`.
    XPath(u16),
}

/// `ctl:ruleRemoveTargetById` and its kin.
#[derive(Clone, Debug)]
pub(super) struct Removal {
    /// Numbers of the rules, ascending.
    pub(super) rules: Box<[u32]>,
    pub(super) variable: Variable,
    pub(super) key: Key,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Disruptive {
    Pass,
    Allow(Allow),
    Deny(u16),
    Drop(u16),
    Redirect(u16, Box<Macro>),
}

impl PartialEq for Macro {
    /// Only asked whether a disruptive action is `pass`.
    fn eq(&self, other: &Self) -> bool {
        self.constant().is_some() && self.constant() == other.constant()
    }
}

/// How far `allow` reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Allow {
    /// The rest of the phase.
    Phase,
    /// The rest of the request phases.
    Request,
    /// All but logging.
    Everything,
}

/// What a match changes. Carried out in the order of the rule.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Set(Place, Assign),
    SetEnv(Macro, Macro),
    Expire(Collection, Macro, Operand),
    /// Takes `by` off for each `period` seconds since the record was changed.
    Deprecate {
        collection: Collection,
        name: Macro,
        by: i64,
        period: u64,
    },
    /// `initcol`, `setuid`, `setsid`, `setrsc`.
    Open(Collection, Macro),
    /// `sanitiseArg` and its kin: this member is not shown in records.
    Mask(Variable, Key),
    /// `sanitiseMatched`.
    MaskMatched,
    Ctl(Ctl),
}

/// The slots of `TX` that rules may set, but for what they capture.
pub(super) fn written(rules: &[Rule], names: &TxNames) -> Vec<u16> {
    let links = rules.iter().flat_map(|rule| &rule.links);
    let mut slots = Vec::new();
    for effect in links.flat_map(|link| &link.effects) {
        match effect {
            Effect::Set(Place::Tx(slot), _) => slots.push(*slot),
            Effect::Set(Place::TxNamed(name), _) => {
                let all = 0..names.len() as u16;
                slots.extend(all.filter(|slot| names.begins(*slot, name.beginning())));
            }
            _ => {}
        }
    }
    slots
}

/// Where `setvar` writes.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Tx(u16),
    TxNamed(Macro),
    Persistent(Collection, Macro),
}

/// What `setvar` writes.
#[derive(Clone, Debug)]
pub(super) enum Assign {
    Unset,
    Number(i64),
    Text(Macro),
    Add(Operand),
    Subtract(Operand),
}

/// `ctl` options that change the transaction; others are read and have no effect.
#[derive(Clone, Debug)]
pub(super) enum Ctl {
    RuleEngine(RuleEngine),
    RequestBodyAccess(bool),
    RequestBodyLimit(u64),
    RequestBodyProcessor(Processor),
    ForceRequestBodyVariable(bool),
    ResponseBodyAccess(bool),
    ResponseBodyLimit(u64),
    /// Numbers of the rules.
    RemoveRules(Box<[u32]>),
    /// Index into `RuleSet::removals`.
    RemoveTarget(u16),
}

/// Who reads a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the reference manual")]
pub enum Processor {
    Urlencoded,
    Multipart,
    Json,
    Xml,
    /// Clew's own: GraphQL over JSON and GET.
    GraphQl,
}

impl Processor {
    /// `REQBODY_PROCESSOR`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Urlencoded => "URLENCODED",
            Self::Multipart => "MULTIPART",
            Self::Json => "JSON",
            Self::Xml => "XML",
            Self::GraphQl => "GRAPHQL",
        }
    }

    /// The processor that `ctl:requestBodyProcessor` names so.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Urlencoded,
            Self::Multipart,
            Self::Json,
            Self::Xml,
            Self::GraphQl,
        ];
        all.into_iter()
            .find(|p| p.name().eq_ignore_ascii_case(name))
    }
}
