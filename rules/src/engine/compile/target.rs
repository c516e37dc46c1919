//! The variables of a rule: what is excluded goes to the targets it is excluded from.

use super::super::name_pattern::NamePattern;
use super::super::ruleset::{Key, Target};
use super::super::variable::{Kind, Variable};
use super::Compiler;
use crate::body::xml::XPath;

use crate::seclang::ast::{self, Selector, Spanned};

impl Compiler<'_> {
    /// Compiles the variables of one rule.
    pub(super) fn targets(&mut self, variables: &[Spanned<ast::Variable>]) -> Vec<Target> {
        let (out, taken): (Vec<_>, Vec<_>) = variables.iter().partition(|v| v.node.exclude);
        let excluded: Vec<(Variable, Key)> = out.into_iter().filter_map(|v| self.one(v)).collect();
        let mut targets = Vec::new();
        for variable in taken {
            if let Some((named, key)) = self.one(variable) {
                let excluded = excluded
                    .iter()
                    .filter(|(v, _)| *v == named)
                    .map(|(_, key)| key.clone())
                    .collect();
                let target = Target {
                    variable: named,
                    key,
                    count: variable.node.count,
                    excluded,
                };
                targets.extend(remaining(target));
            }
        }
        targets
    }

    /// A variable and which of its members.
    pub(super) fn one(&mut self, spanned: &Spanned<ast::Variable>) -> Option<(Variable, Key)> {
        let variable = self.check(spanned.at, Variable::named(&spanned.node.collection))?;
        let key = self.key(variable, spanned.node.selector.as_ref());
        let key = self.check(spanned.at, key)?;
        self.read[variable.index()] = true;
        Some((variable, key))
    }

    fn key(&mut self, variable: Variable, selector: Option<&Selector>) -> Result<Key, String> {
        let name = variable.name();
        match (variable, selector) {
            (Variable::Xml, Some(Selector::Key(path) | Selector::Regex(path))) => self.xpath(path),
            (Variable::Xml, None) => {
                Err("XML needs an XPath expression: XML:/* or XML://@*".to_owned())
            }
            (Variable::Rule | Variable::Env, None) => {
                Err(format!("{name} needs a member: {name}:name"))
            }
            (_, None) => Ok(Key::All),
            _ if variable.kind() == Kind::Scalar => {
                Err(format!("{name} has no members: write {name} alone"))
            }
            (Variable::Tx, Some(Selector::Key(key))) => self.names.slot(key).map(Key::Slot),
            (_, Some(Selector::Key(key))) => {
                Ok(Key::Name(key.to_ascii_lowercase().into_bytes().into()))
            }
            (_, Some(Selector::Regex(pattern))) => self.selector(pattern),
        }
    }

    /// A `/regex/` selector: without regard to case, as names are compared.
    fn selector(&mut self, spelling: &str) -> Result<Key, String> {
        if let Some(known) = self.selectors.iter().position(|(s, _)| s == spelling) {
            return Ok(Key::Regex(known as u16));
        }
        let index = u16::try_from(self.selectors.len())
            .map_err(|_| "there are more than 65,535 /regex/ selectors")?;
        let selector = NamePattern::compile(spelling).map_err(|e| e.to_string())?;
        self.selectors.push((spelling.to_owned(), selector));
        Ok(Key::Regex(index))
    }

    fn xpath(&mut self, path: &str) -> Result<Key, String> {
        if let Some(known) = self.xpaths.iter().position(|(p, _)| **p == *path) {
            return Ok(Key::XPath(known as u16));
        }
        let index = u16::try_from(self.xpaths.len())
            .map_err(|_| "there are more than 65,535 XPath expressions")?;
        self.xpaths.push((
            path.into(),
            XPath::compile(path).map_err(|e| e.to_string())?,
        ));
        Ok(Key::XPath(index))
    }
}

/// A target, unless all of it is excluded.
fn remaining(target: Target) -> Option<Target> {
    let gone = target
        .excluded
        .iter()
        .any(|key| *key == Key::All || *key == target.key);
    (!gone).then_some(target)
}
