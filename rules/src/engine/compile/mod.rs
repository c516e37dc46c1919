//! From the syntax tree to a [`RuleSet`].
//!
//! First the directives are gone through in order (`draft`): settings are taken, rules and their
//! chains become drafts. Then exclusions and updates are applied, wherever they stand, and each
//! draft is compiled (`rule`, `target`, `question`, `effect`, `control`). All errors are reported.

mod actions;
mod catalogue;
mod control;
mod draft;
mod effect;
mod question;
mod rule;
mod target;

use std::path::PathBuf;
use std::sync::Arc;

use catalogue::Catalogue;
use draft::Drafts;

use super::filter::Filter;
use super::name_pattern::NamePattern;
use super::pipeline::Pipelines;
use super::ruleset::{Removal, RuleSet, next_serial};
use super::settings::{Options, Settings};
use super::transaction::rehearse;
use super::tx::TxNames;
use super::variable::Variable;
use crate::body::BodyLimits;
use crate::body::xml::XPath;
use crate::seclang::ast::{Ast, At};
use crate::transformation::UnicodeMap;

/// What is wrong, or suspicious, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", file.display())]
pub struct CompileError {
    /// The file.
    pub file: Arc<PathBuf>,
    /// 1-based.
    pub line: u32,
    /// 1-based, in bytes.
    pub column: u32,
    /// A sentence that says what to do.
    pub message: String,
}

/// Compiles a configuration. Reads the files that it names (phrase lists, Unicode map).
///
/// # Errors
///
/// All that is wrong, in the order of the files.
pub fn compile(ast: &Ast, options: Options) -> Result<RuleSet, Vec<CompileError>> {
    let mut compiler = Compiler::new(ast, options);
    let drafts = Drafts::gather(&mut compiler);
    let catalogue = Catalogue::of(&drafts);
    let drafts = drafts.updated(&catalogue, &mut compiler);
    let phases = rule::phases(&drafts, &catalogue, &mut compiler);
    compiler.finish(phases)
}

/// What is shared by all steps.
pub(super) struct Compiler<'a> {
    ast: &'a Ast,
    options: Options,
    errors: Vec<(At, String)>,
    warnings: Vec<(At, String)>,
    settings: Settings,
    limits: BodyLimits,
    unicode: Option<UnicodeMap>,
    pipelines: Pipelines,
    names: TxNames,
    /// Each with its spelling.
    selectors: Vec<(String, NamePattern)>,
    xpaths: Vec<(Box<str>, XPath)>,
    /// Variables that rules look at, by their numbers.
    read: Vec<bool>,
    removals: Vec<Removal>,
}

impl<'a> Compiler<'a> {
    fn new(ast: &'a Ast, options: Options) -> Self {
        Self {
            ast,
            options,
            errors: Vec::new(),
            warnings: Vec::new(),
            settings: Settings::default(),
            limits: BodyLimits::default(),
            unicode: None,
            pipelines: Pipelines::default(),
            names: TxNames::default(),
            selectors: Vec::new(),
            xpaths: Vec::new(),
            read: vec![false; Variable::ALL.len()],
            removals: Vec::new(),
        }
    }

    fn error(&mut self, at: At, message: impl Into<String>) {
        self.errors.push((at, message.into()));
    }

    fn warning(&mut self, at: At, message: impl Into<String>) {
        self.warnings.push((at, message.into()));
    }

    /// The value, or an error at this place.
    fn check<T>(&mut self, at: At, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.error(at, message)).ok()
    }

    fn file(&self, at: At) -> Arc<PathBuf> {
        self.ast
            .files
            .get(at.file as usize)
            .cloned()
            .unwrap_or_default()
    }

    fn located(&self, mut list: Vec<(At, String)>) -> Vec<CompileError> {
        list.sort_by_key(|(at, _)| *at);
        let located = list.into_iter();
        located
            .map(|(at, message)| CompileError {
                file: self.file(at),
                line: at.line,
                column: at.column,
                message,
            })
            .collect()
    }

    fn finish(mut self, compiled: rule::Compiled) -> Result<RuleSet, Vec<CompileError>> {
        let errors = std::mem::take(&mut self.errors);
        if !errors.is_empty() {
            return Err(self.located(errors));
        }
        let warnings = std::mem::take(&mut self.warnings);
        let warnings = self.located(warnings);
        let mut rules = RuleSet {
            serial: next_serial(),
            segments: Default::default(),
            filter: Filter::new(
                &compiled.phases,
                &self.pipelines,
                self.xpaths.len(),
                &self.names,
            ),
            phases: compiled.phases,
            info: compiled.info.into(),
            pipelines: self.pipelines,
            tx_selected: self
                .selectors
                .iter()
                .map(|(_, selector)| self.names.matching(selector))
                .collect(),
            selectors: self
                .selectors
                .into_iter()
                .map(|(_, selector)| selector)
                .collect(),
            removals: self.removals.into(),
            xpaths: self.xpaths.into(),
            read: self.read.into(),
            tx: self.names,
            settings: self.settings,
            limits: self.limits,
            unicode: self.unicode,
            options: self.options,
            warnings,
        };
        rules.segments = rehearse(&rules);
        Ok(rules)
    }
}
