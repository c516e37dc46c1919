//! Which filtered rules look at which values.

use std::collections::HashMap;

use super::super::Phase;
use super::super::classes::{self, Classes};
use super::super::names::{NameTable, hash};
use super::super::pipeline::{NodeId, Pipelines};
use super::super::ruleset::{Key, Rule, Target};
use super::super::transaction::List;
use super::super::variable::Variable;
use super::atoms::{Atoms, AtomsBuilder};
use super::guard::Reach;
use super::rare::Rare;
use super::requirement::Requirement;
use crate::transformation::Transformation;

/// Nodes of the tree of transformations, as bits. Rules with a node beyond are not filtered.
pub(super) type Nodes = u128;

/// What is known before a request comes, for the rules that can be reached.
#[derive(Clone, Debug)]
pub(in super::super) struct Plan {
    pub(super) specs: Box<[Spec]>,
    /// What each spec was made from.
    pub(super) requirements: Box<[Requirement]>,
    /// Strings that request values are searched for, and those for response values.
    pub(super) atoms: [Atoms; 2],
    pub(in super::super) lists: Box<[ListPlan]>,
    pub(in super::super) scalars: Box<[(Variable, Channel)]>,
    pub(in super::super) xpaths: Box<[Channel]>,
    /// Where the rules of a phase begin in bit sets over all rules; a multiple of 64.
    pub(in super::super) offsets: [usize; Phase::COUNT],
    /// Rules that are always run.
    pub(in super::super) always: Box<[u64]>,
    /// Those of them that are known to match and only skip others.
    pub(in super::super) skips: Box<[u64]>,
    /// The first filtered rule of each phase.
    pub(in super::super) first: [usize; Phase::COUNT],
}

/// How many sets of bytes a spec has; those that say nothing hold for all.
pub(super) const SETS: usize = 3;

/// What one filtered rule requires.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// The rule's bit in sets over all rules.
    pub(super) place: u32,
    /// Through which lists of transformations it looks.
    pub(super) nodes: Nodes,
    /// A byte of each must be there.
    pub(super) sets: [Classes; SETS],
    pub(super) min_len: u32,
    pub(super) max_len: u32,
    /// A bit for each clause.
    pub(super) clauses: u8,
    /// What libinjection could take for SQL.
    pub(super) sql: bool,
}

/// The specs that look at a value.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Channel {
    /// As bits.
    pub(super) specs: Box<[u64]>,
    /// Those without strings.
    pub(super) loose: Loose,
    pub(super) stages: Box<[Stage]>,
    /// For each class the stages, as bits, that it triggers.
    pub(super) triggered: Box<[u128]>,
    /// Of all stages.
    pub(super) triggers: Classes,
    /// Of all stages.
    pub(in super::super) nodes: Nodes,
    /// Index into `Plan::atoms`.
    pub(super) side: usize,
    pub(super) has_strings: bool,
    /// Tells of most long values that they have no string; only where they are likely to be long.
    pub(super) rare: Option<Rare>,
}

/// Specs without strings, turned so that one look at a value's bytes asks all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Loose {
    /// Numbers of specs.
    pub(super) specs: Box<[u16]>,
    /// For each bit of a value's classes the specs, as bits, that have it in their first set. Empty
    /// where there are few specs, or more than 128.
    pub(super) by_class: Box<[u128]>,
    /// The classes of which `by_class` tells something.
    pub(super) classes: Classes,
    /// Specs, as bits, whose first set tells nothing.
    pub(super) open: u128,
}

/// Fewer specs than this are asked one by one.
const FEW: usize = 6;

impl Loose {
    fn of(numbers: Vec<u16>, specs: &[Spec]) -> Self {
        let mut loose = Self {
            specs: numbers.into(),
            ..Self::default()
        };
        if !(FEW..=128).contains(&loose.specs.len()) {
            return loose;
        }
        let mut by_class = vec![0_u128; 128];
        for (index, number) in loose.specs.iter().enumerate() {
            let set = specs[usize::from(*number)].sets[0];
            if set == Classes::MAX {
                loose.open |= 1 << index;
                continue;
            }
            loose.classes |= set;
            let members = (0..128).filter(|class| set >> class & 1 == 1);
            members.for_each(|class| by_class[class] |= 1 << index);
        }
        loose.by_class = by_class.into();
        loose
    }
}

/// A list of transformations, without `lowercase` at its end: the filter has no case.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) node: NodeId,
    pub(super) triggers: Classes,
    /// All nodes that come to this.
    pub(super) nodes: Nodes,
    /// The specs that look through it.
    pub(super) specs: Box<[u16]>,
    /// The least that one of them requires, bytes.
    pub(super) min_len: u32,
    /// Classes that trigger what makes values longer.
    pub(super) growing: Classes,
    /// Classes that trigger what can make any bytes.
    pub(super) opening: Classes,
    /// What the others can put in.
    pub(super) added: Classes,
    /// A value that only this sets it off for need not be transformed: what differs then no spec asks for.
    pub(super) alike: Classes,
}

impl Stage {
    /// Whether what it makes of a value of these classes and length can meet a spec at all.
    pub(super) fn may_meet(&self, specs: &[Spec], here: Classes, length: u32) -> bool {
        if here & self.growing == 0 && length < self.min_len {
            return false;
        }
        let bound = here | self.added;
        let meets = |number: &u16| {
            specs[usize::from(*number)]
                .sets
                .iter()
                .all(|set| set & bound != 0)
        };
        here & self.opening != 0 || self.specs.iter().any(meets)
    }
}

/// What looks at the members of a list.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct ListPlan {
    /// At members whose name no rule spells out.
    pub(in super::super) values: Channel,
    /// At the names.
    pub(in super::super) names: Channel,
    /// At members of this name.
    named: Vec<(Box<[u8]>, Channel)>,
    table: NameTable,
    /// The lengths that those names have, and the classes of their first bytes.
    lengths: u64,
    first: Classes,
}

/// The longest name that rules spell out and members have: a longer one is looked at like any other,
/// so rules that spell it out are not filtered.
const NAME_BYTES: usize = 63;

impl ListPlan {
    /// What looks at the value of a member of this name.
    pub(in super::super) fn channel(&self, name: &[u8]) -> &Channel {
        let Some(first) = name.first().filter(|_| name.len() <= NAME_BYTES) else {
            return &self.values;
        };
        if self.lengths >> name.len() & 1 == 0 || self.first & classes::bit(*first) == 0 {
            return &self.values;
        }
        let known = self.table.find(hash(name), |number| {
            self.named[number].0.eq_ignore_ascii_case(name)
        });
        known.map_or(&self.values, |number| &self.named[number].1)
    }
}

/// What the rules of each phase require; `None`: nothing is known.
pub(super) type Demands = [Vec<Option<Requirement>>; Phase::COUNT];

/// What a plan is made from.
#[derive(Clone, Copy)]
pub(super) struct Sources<'s> {
    pub(super) phases: &'s [Box<[Rule]>; Phase::COUNT],
    pub(super) demands: &'s Demands,
    pub(super) pipelines: &'s Pipelines,
    pub(super) xpaths: usize,
}

/// Makes a plan; `reach` says what is known of each rule, by phase and index.
pub(super) fn plan(sources: Sources<'_>, reach: impl Fn(usize, usize) -> Reach) -> Plan {
    let mut planner = Planner::new(sources);
    for (phase, rules) in sources.phases.iter().enumerate() {
        for index in 0..rules.len() {
            let place = planner.offsets[phase] + index;
            let (word, bit) = (place / 64, 1 << (place % 64));
            match reach(phase, index) {
                Reach::Skipped | Reach::Passes => {}
                Reach::Skips => {
                    planner.always[word] |= bit;
                    planner.skips[word] |= bit;
                }
                Reach::Open => {
                    let requirement = sources.demands[phase][index].as_ref();
                    if requirement.is_some_and(|r| planner.add(&rules[index], r, place)) {
                        planner.first[phase] = planner.first[phase].min(index);
                    } else {
                        planner.always[word] |= bit;
                    }
                }
            }
        }
    }
    planner.finish()
}

/// Where the values of a target are.
enum Place {
    Values(&'static [List]),
    Names(&'static [List]),
    Scalar(Variable),
}

struct Planner<'p> {
    pipelines: &'p Pipelines,
    offsets: [usize; Phase::COUNT],
    always: Vec<u64>,
    skips: Vec<u64>,
    first: [usize; Phase::COUNT],
    specs: Vec<Spec>,
    requirements: Vec<Requirement>,
    atoms: [AtomsBuilder; 2],
    lists: Vec<ListDraft>,
    scalars: HashMap<Variable, Vec<u16>>,
    xpaths: Vec<Vec<u16>>,
}

/// Specs by what they look at.
#[derive(Clone, Default)]
struct ListDraft {
    values: Vec<u16>,
    names: Vec<u16>,
    named: HashMap<Box<[u8]>, Vec<u16>>,
}

impl<'p> Planner<'p> {
    fn new(sources: Sources<'p>) -> Self {
        let mut offsets = [0; Phase::COUNT];
        let mut end = 0;
        for (offset, rules) in offsets.iter_mut().zip(sources.phases) {
            *offset = end;
            end += rules.len().next_multiple_of(64);
        }
        Self {
            pipelines: sources.pipelines,
            offsets,
            always: vec![0; end / 64],
            skips: vec![0; end / 64],
            first: [usize::MAX; Phase::COUNT],
            specs: Vec::new(),
            requirements: Vec::new(),
            atoms: Default::default(),
            lists: vec![ListDraft::default(); List::COUNT],
            scalars: HashMap::new(),
            xpaths: vec![Vec::new(); sources.xpaths],
        }
    }

    /// Adds a rule; `false`: it cannot be filtered.
    fn add(&mut self, rule: &Rule, requirement: &Requirement, place: usize) -> bool {
        let Some(link) = rule.links.first() else {
            return false;
        };
        let nodes = match &link.multi {
            Some(path) => path.iter().map(|node| bit(*node)).sum::<Option<Nodes>>(),
            None => bit(link.node),
        };
        let places: Option<Vec<Place>> = link.targets.iter().map(place_of).collect();
        let number = u16::try_from(self.specs.len());
        let (Some(nodes), Some(places), Ok(number)) = (nodes, places, number) else {
            return false;
        };
        self.add_strings(requirement, number, &places);
        for (target, place) in link.targets.iter().zip(&places) {
            self.add_target(target, place, number);
        }
        let spec = Self::spec(requirement, nodes, place);
        self.specs.push(spec);
        self.requirements.push(requirement.clone());
        true
    }

    fn spec(requirement: &Requirement, nodes: Nodes, place: usize) -> Spec {
        let mut sets = [Classes::MAX; SETS];
        for (slot, set) in sets.iter_mut().zip(&requirement.sets) {
            *slot = set.iter().fold(0, |all, byte| all | classes::bit(byte));
        }
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        Spec {
            place: place as u32,
            nodes,
            sets,
            min_len: length(requirement.min_len),
            max_len: requirement.max_len.map_or(u32::MAX, length),
            clauses: ((1_u16 << requirement.clauses.len()) - 1) as u8,
            sql: requirement.sql,
        }
    }

    fn add_strings(&mut self, requirement: &Requirement, number: u16, places: &[Place]) {
        for (index, clause) in requirement.clauses.iter().enumerate() {
            for side in 0..2 {
                if places.iter().any(|place| side_of(place) == side) {
                    clause
                        .iter()
                        .for_each(|string| self.atoms[side].add(string, number, 1 << index));
                }
            }
        }
    }

    fn add_target(&mut self, target: &Target, place: &Place, number: u16) {
        match place {
            Place::Scalar(Variable::Xml) => {
                if let Key::XPath(index) = target.key {
                    self.xpaths[usize::from(index)].push(number);
                }
            }
            Place::Scalar(variable) => self.scalars.entry(*variable).or_default().push(number),
            Place::Names(lists) => lists
                .iter()
                .for_each(|list| self.lists[*list as usize].names.push(number)),
            Place::Values(lists) => {
                for list in *lists {
                    let draft = &mut self.lists[*list as usize];
                    match &target.key {
                        Key::Name(name) => {
                            draft.named.entry(name.clone()).or_default().push(number)
                        }
                        _ => draft.values.push(number),
                    }
                }
            }
        }
    }

    fn finish(self) -> Plan {
        let build = |builder: AtomsBuilder| builder.build();
        let [request, response] = self.atoms;
        let atoms = match (build(request), build(response)) {
            (Some(request), Some(response)) => [request, response],
            // Never seen; then nothing is filtered.
            _ => return unfiltered(self.offsets, self.always.len()),
        };
        let channels = Channels {
            specs: &self.specs,
            requirements: &self.requirements,
            pipelines: self.pipelines,
        };
        let lists = self.lists.iter().enumerate().map(|(index, draft)| {
            channels.list(draft, usize::from(index == List::ResponseHeaders as usize))
        });
        let lists = lists.collect();
        let scalars = self
            .scalars
            .iter()
            .map(|(variable, specs)| (*variable, channels.of_scalar(specs, side(*variable))))
            .collect();
        let xpaths = self
            .xpaths
            .iter()
            .map(|specs| channels.of(specs, 0))
            .collect();
        Plan {
            specs: self.specs.into(),
            requirements: self.requirements.into(),
            atoms,
            lists,
            scalars,
            xpaths,
            offsets: self.offsets,
            always: self.always.into(),
            skips: self.skips.into(),
            first: self.first,
        }
    }
}

fn unfiltered(offsets: [usize; Phase::COUNT], words: usize) -> Plan {
    Plan {
        specs: Box::default(),
        requirements: Box::default(),
        atoms: Default::default(),
        lists: vec![ListPlan::default(); List::COUNT].into(),
        scalars: Box::default(),
        xpaths: Box::default(),
        offsets,
        always: vec![u64::MAX; words].into(),
        skips: vec![0; words].into(),
        first: [usize::MAX; Phase::COUNT],
    }
}

struct Channels<'c> {
    specs: &'c [Spec],
    requirements: &'c [Requirement],
    pipelines: &'c Pipelines,
}

impl Channels<'_> {
    fn list(&self, draft: &ListDraft, side: usize) -> ListPlan {
        let mut table = NameTable::default();
        let named = draft.named.iter().map(|(name, specs)| {
            table.add(hash(name));
            let all: Vec<u16> = draft.values.iter().chain(specs).copied().collect();
            (name.clone(), self.of(&all, side))
        });
        let named = named.collect();
        let lengths = draft
            .named
            .keys()
            .fold(0, |all, name| all | 1 << name.len());
        let first = draft.named.keys().filter_map(|name| name.first());
        ListPlan {
            values: self.of(&draft.values, side),
            names: self.of(&draft.names, side),
            named,
            table,
            lengths,
            first: first.fold(0, |all, byte| all | classes::bit(*byte)),
        }
    }

    fn of(&self, numbers: &[u16], side: usize) -> Channel {
        let mut specs = vec![0_u64; self.specs.len().div_ceil(64)];
        let mut loose = Vec::new();
        let mut nodes: Nodes = 0;
        for number in numbers {
            let spec = &self.specs[usize::from(*number)];
            specs[usize::from(*number) / 64] |= 1 << (*number % 64);
            nodes |= spec.nodes;
            if spec.clauses == 0 && !loose.contains(number) {
                loose.push(*number);
            }
        }
        let stages = self.stages(nodes, numbers);
        let triggers = stages.iter().fold(0, |all, stage| all | stage.triggers);
        let triggered = (0..128).map(|class| {
            let of_class = stages
                .iter()
                .enumerate()
                .filter(|(_, stage)| stage.triggers >> class & 1 == 1);
            of_class.fold(0, |all, (index, _)| all | 1 << index)
        });
        let triggered = triggered.collect();
        let has_strings = numbers
            .iter()
            .any(|number| self.specs[usize::from(*number)].clauses != 0);
        let loose = Loose::of(loose, self.specs);
        Channel {
            specs: specs.into(),
            loose,
            stages: stages.into(),
            triggered,
            triggers,
            nodes,
            side,
            has_strings,
            rare: None,
        }
    }

    /// Of a variable that may be the whole of a body.
    fn of_scalar(&self, numbers: &[u16], side: usize) -> Channel {
        let with_strings = numbers.iter().map(|number| usize::from(*number));
        let with_strings = with_strings.filter(|number| self.specs[*number].clauses != 0);
        Channel {
            rare: Rare::of(with_strings.map(|number| &self.requirements[number])),
            ..self.of(numbers, side)
        }
    }

    fn stages(&self, nodes: Nodes, numbers: &[u16]) -> Vec<Stage> {
        let mut stages: Vec<Stage> = Vec::new();
        for index in (0..128_u16).filter(|index| nodes >> index & 1 == 1) {
            let node = self.without_lowercase(NodeId(index));
            match stages.iter_mut().find(|stage| stage.node == node) {
                Some(stage) => stage.nodes |= 1 << index,
                None => stages.push(self.stage(node, 1 << index)),
            }
        }
        for stage in &mut stages {
            let looks = |number: &&u16| self.specs[usize::from(**number)].nodes & stage.nodes != 0;
            stage.specs = numbers.iter().filter(looks).copied().collect();
            let lengths = stage
                .specs
                .iter()
                .map(|number| self.specs[usize::from(*number)].min_len);
            stage.min_len = lengths.min().unwrap_or(0);
            stage.alike = self.alike(stage);
        }
        stages
    }

    fn stage(&self, node: NodeId, nodes: Nodes) -> Stage {
        let list = self.pipelines.list(node);
        let triggered = |chosen: &dyn Fn(Transformation) -> bool| {
            let chosen = list.iter().filter(|t| chosen(**t));
            chosen.fold(0, |all, t| all | classes::triggers(*t))
        };
        let growing = triggered(&classes::may_grow);
        let opening = triggered(&|t| classes::may_add(t).is_none());
        let added = list
            .iter()
            .filter_map(|t| classes::may_add(*t))
            .fold(0, |all, more| all | more);
        // What is put in must not set off what can make any bytes.
        let opening = if added & (opening | growing) != 0 {
            Classes::MAX
        } else {
            opening
        };
        Stage {
            node,
            triggers: classes::without_case(self.pipelines.node(node).triggers),
            nodes,
            specs: Box::default(),
            min_len: 0,
            growing: if opening == Classes::MAX {
                opening
            } else {
                growing
            },
            opening,
            added,
            alike: 0,
        }
    }

    /// Where a stage takes `+` for a space and does nothing else with it, and neither is in a string: `+`.
    fn alike(&self, stage: &Stage) -> Classes {
        use Transformation as T;
        let list = self.pipelines.list(stage.node);
        let decodes = |t: &&T| matches!(t, T::UrlDecode | T::UrlDecodeUni);
        let minds = |t: &T| classes::triggers(*t) & classes::BLANKS != 0;
        let mut knows = stage.specs.iter().map(|number| {
            let strings = self.requirements[usize::from(*number)].clauses.iter();
            let mut bytes = strings.flatten().flatten();
            self.specs[usize::from(*number)].sql || bytes.any(|byte| matches!(byte, b' ' | b'+'))
        });
        let is_alike = list.iter().any(|t| decodes(&t))
            && !list.iter().filter(|t| !decodes(t)).any(minds)
            && !knows.any(|knows| knows);
        if is_alike { classes::bit(b'+') } else { 0 }
    }

    fn without_lowercase(&self, node: NodeId) -> NodeId {
        let mut at = node;
        while at != super::super::pipeline::ROOT
            && self.pipelines.node(at).transformation == Transformation::Lowercase
        {
            at = self.pipelines.node(at).parent;
        }
        at
    }
}

fn bit(node: NodeId) -> Option<Nodes> {
    (node.0 < 128).then(|| 1 << node.0)
}

fn side(variable: Variable) -> usize {
    usize::from(variable.available() > Phase::RequestBody)
}

fn side_of(place: &Place) -> usize {
    match place {
        Place::Scalar(variable) => side(*variable),
        Place::Values(lists) | Place::Names(lists) => {
            usize::from(lists.contains(&List::ResponseHeaders))
        }
    }
}

/// Where a target's values are, if they do not change while rules run.
fn place_of(target: &Target) -> Option<Place> {
    use List as L;
    use Variable as V;
    let spelled = |name: &[u8]| (1..=NAME_BYTES).contains(&name.len());
    if target.count || matches!(&target.key, Key::Name(name) if !spelled(name)) {
        return None;
    }
    Some(match target.variable {
        V::Args => Place::Values(&[L::ArgsGet, L::ArgsPost]),
        V::ArgsGet => Place::Values(&[L::ArgsGet]),
        V::ArgsPost => Place::Values(&[L::ArgsPost]),
        V::ArgsNames => Place::Names(&[L::ArgsGet, L::ArgsPost]),
        V::ArgsGetNames => Place::Names(&[L::ArgsGet]),
        V::ArgsPostNames => Place::Names(&[L::ArgsPost]),
        V::RequestHeaders => Place::Values(&[L::RequestHeaders]),
        V::RequestHeadersNames => Place::Names(&[L::RequestHeaders]),
        V::RequestCookies => Place::Values(&[L::RequestCookies]),
        V::RequestCookiesNames => Place::Names(&[L::RequestCookies]),
        V::ResponseHeaders => Place::Values(&[L::ResponseHeaders]),
        V::ResponseHeadersNames => Place::Names(&[L::ResponseHeaders]),
        V::Files | V::MultipartFilename => Place::Values(&[L::Files]),
        V::FilesNames => Place::Names(&[L::Files]),
        V::FilesTmpContent => Place::Values(&[L::FilesContent]),
        V::MultipartName => Place::Names(&[L::PartNames]),
        V::MultipartPartHeaders => Place::Values(&[L::PartHeaders]),
        // Set once, before the first phase that can see them.
        V::QueryString
        | V::RemoteAddr
        | V::RemoteHost
        | V::RequestBasename
        | V::RequestBody
        | V::RequestFilename
        | V::RequestLine
        | V::RequestMethod
        | V::RequestProtocol
        | V::RequestUri
        | V::RequestUriRaw
        | V::ResponseBody
        | V::ResponseContentType
        | V::ResponseProtocol
        | V::ResponseStatus
        | V::ServerAddr
        | V::ServerName
        | V::UniqueId
        | V::PathInfo
        | V::Xml => Place::Scalar(target.variable),
        _ => return None,
    })
}
