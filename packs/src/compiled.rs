//! From the active packs, and the rule files of the configuration, to one rule set.
//!
//! Order: what the host gives first, then packs that say `first`, then the configuration's files, then the
//! other packs. `SecDefaultAction` ends with the part that it stands in. Other settings a pack may not have: they
//! would hold for all.

use std::collections::HashMap;
use std::sync::Arc;

use clew_protocol::report::PackVersion;
use clew_rules::engine::{CompileError, MemoryCollections, Options, OutOfTime, RuleSet, compile};
use clew_rules::seclang::ast::{Ast, Directive, RuleEngine};

use crate::limit::Limit;
use crate::listed::listed;
use crate::pack::Pack;
use crate::policy::Policy;
use crate::rules::PackRules;
use crate::{Mode, PackId, join};

/// Which processor reads which body, which rule sets leave to their host.
pub const BODIES: &str = include_str!("../../cli/examples/bodies.conf");

/// What surrounds the packs.
#[derive(Debug, Default)]
pub struct Host {
    /// Settings that hold unless rules of the configuration say otherwise.
    pub defaults: Vec<Directive>,
    /// Rules before all others, such as [`BODIES`].
    pub before: Ast,
    /// The configuration's own rule files.
    pub files: Option<Ast>,
    /// Settings that hold whatever rules say; `SecRuleEngine` among them is for packs, too.
    pub overrides: Vec<Directive>,
    /// What happens when a transaction's time is used up.
    pub out_of_time: Option<OutOfTime>,
}

/// All that the active packs come to.
#[derive(Debug)]
pub struct Compiled {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// The rate limits, in the order of the packs.
    pub limits: Vec<Limit>,
    /// What requests may do.
    pub policy: Policy,
    /// Which packs these are, for block log and incidents.
    pub packs: Arc<[PackVersion]>,
}

/// Why packs cannot be in force together.
#[derive(Debug, thiserror::Error)]
pub enum CompositionError {
    /// A pack's own rules.
    #[error("{pack}: {message}")]
    Pack {
        /// Which.
        pack: PackId,
        /// What is wrong, with its place.
        message: String,
    },
    /// A rule id that two have.
    #[error(
        "rule {id} is in {first} and in {second}; ids are unique: deactivate one, or change the id"
    )]
    Shared {
        /// The id.
        id: u64,
        /// The pack and place that came first.
        first: String,
        /// The other.
        second: String,
    },
    /// What compiling finds.
    #[error(transparent)]
    Rules(CompileError),
}

impl Compiled {
    /// Compiles the active packs, in this order, with what surrounds them. Without packs this is what the
    /// configuration's files alone say, unchanged.
    ///
    /// Where `overrides` name no engine, it is on as soon as one part blocks; the files of the configuration are a
    /// part like a pack, and detect unless they say `SecRuleEngine On`.
    ///
    /// # Errors
    ///
    /// All that is wrong with any of them.
    pub fn of(packs: &[Pack], host: Host) -> Result<Self, Vec<CompositionError>> {
        let mut errors = Vec::new();
        let mut parts = Parts::new(&host);
        let first = packs.iter().filter(|it| it.manifest.first);
        for pack in first {
            parts.pack(pack, &mut errors);
        }
        parts.files(host.files, !packs.is_empty());
        for pack in packs.iter().filter(|it| !it.manifest.first) {
            parts.pack(pack, &mut errors);
        }
        let shared = parts.shared();
        errors.extend(shared);
        if !errors.is_empty() {
            return Err(errors);
        }
        let out_of_time = host.out_of_time.unwrap_or(Options::default().out_of_time);
        let ast = parts.whole(host.overrides, !packs.is_empty());
        Ok(Self {
            rules: compiled(&ast, out_of_time).map_err(|list| {
                list.into_iter()
                    .map(CompositionError::Rules)
                    .collect::<Vec<_>>()
            })?,
            limits: packs
                .iter()
                .flat_map(|it| it.manifest.limits.clone())
                .collect(),
            policy: policy(packs),
            packs: packs.iter().map(|it| it.id().reported()).collect(),
        })
    }
}

/// Parts, one after the other, and which files of the tree are whose.
struct Parts {
    ast: Ast,
    /// The first file of each part, and what it is called.
    owners: Vec<(usize, String)>,
    /// Some part stops what it matches.
    blocks: bool,
}

impl Parts {
    fn new(host: &Host) -> Self {
        let mut ast = Ast::default();
        host.defaults
            .iter()
            .for_each(|it| join::push(&mut ast, it.clone()));
        join::append(&mut ast, host.before.clone());
        let owners = vec![(0, "the rules that Clew brings".to_owned())];
        Self {
            ast,
            owners,
            blocks: false,
        }
    }

    fn pack(&mut self, pack: &Pack, errors: &mut Vec<CompositionError>) {
        let (id, mode) = (pack.id(), pack.manifest.mode);
        match PackRules::load(pack) {
            Ok(rules) => {
                self.blocks |= mode == Mode::Block;
                self.part(&format!("pack {id}"), rules.in_mode(mode));
            }
            Err(list) => errors.extend(list.into_iter().map(|message| CompositionError::Pack {
                pack: id.clone(),
                message,
            })),
        }
    }

    fn files(&mut self, files: Option<Ast>, among_packs: bool) {
        let Some(mut ast) = files else { return };
        if !among_packs {
            return self.part("the configuration's rules", ast);
        }
        let engine = ast.directives.iter().rev().find_map(|it| match it.node {
            Directive::RuleEngine(engine) => Some(engine),
            _ => None,
        });
        let mode = match engine.unwrap_or_default() {
            RuleEngine::Off => return,
            RuleEngine::On => Mode::Block,
            RuleEngine::DetectionOnly => Mode::Detect,
        };
        self.blocks |= mode == Mode::Block;
        ast.directives
            .retain(|it| !matches!(it.node, Directive::RuleEngine(_)));
        let rules = PackRules {
            ast,
            read: Default::default(),
            idle: Vec::new(),
        };
        self.part("the configuration's rules", rules.in_mode(mode));
    }

    fn part(&mut self, owner: &str, ast: Ast) {
        self.owners.push((self.ast.files.len(), owner.to_owned()));
        join::append(&mut self.ast, ast);
        join::close(&mut self.ast);
    }

    /// Ids that are used twice, in different parts; within one, compiling finds them.
    fn shared(&self) -> Vec<CompositionError> {
        let mut known: HashMap<u64, (usize, String)> = HashMap::new();
        let mut errors = Vec::new();
        for rule in listed(&self.ast).into_iter().filter(|rule| rule.id != 0) {
            let part = self
                .owners
                .partition_point(|(file, _)| *file <= rule.file as usize)
                - 1;
            let shown = format!("{} ({})", self.owners[part].1, rule.place);
            match known.get(&rule.id) {
                Some((other, first)) if *other != part => errors.push(CompositionError::Shared {
                    id: rule.id,
                    first: first.clone(),
                    second: shown,
                }),
                Some(_) => {}
                None => {
                    known.insert(rule.id, (part, shown));
                }
            }
        }
        errors
    }

    fn whole(mut self, overrides: Vec<Directive>, with_packs: bool) -> Ast {
        if with_packs {
            let engine = match self.blocks {
                true => RuleEngine::On,
                false => RuleEngine::DetectionOnly,
            };
            join::push(&mut self.ast, Directive::RuleEngine(engine));
        }
        overrides
            .into_iter()
            .for_each(|it| join::push(&mut self.ast, it));
        self.ast
    }
}

fn policy(packs: &[Pack]) -> Policy {
    let mut policy = Policy::default();
    for pack in packs {
        policy.add(&pack.manifest.policy);
    }
    policy
}

fn compiled(ast: &Ast, out_of_time: OutOfTime) -> Result<Arc<RuleSet>, Vec<CompileError>> {
    let options = Options {
        collections: Some(Arc::new(MemoryCollections::default())),
        out_of_time,
        ..Options::default()
    };
    compile(ast, options).map(Arc::new)
}

/// A pack alone, with bodies read as Clew reads them: how it is checked and tested.
pub(crate) fn alone(pack: &Pack) -> Result<Compiled, Vec<String>> {
    let before = clew_rules::seclang::parse_text("bodies.conf", BODIES);
    let host = Host {
        defaults: vec![
            Directive::RequestBodyAccess(true),
            Directive::ResponseBodyAccess(true),
        ],
        before: before
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?,
        ..Host::default()
    };
    let shown = |error: CompositionError| match error {
        CompositionError::Pack { message, .. } => message,
        other => pack.shown(&other.to_string()),
    };
    Compiled::of(std::slice::from_ref(pack), host)
        .map_err(|errors| errors.into_iter().map(shown).collect())
}

#[cfg(test)]
mod tests;
