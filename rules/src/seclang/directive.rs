//! From a logical line to what it says.

use std::path::{Path, PathBuf};

use super::ast::{Action, At, Directive, Rule, Select, Spanned, Variable};
use super::errors::Faults;
use super::lexer::{Word, words};
use super::table::{Entry, Form, Kind, entry};
use super::text::{Span, Text};
use super::{actions, operator, value, variables};

/// What a line says.
pub(super) enum Statement {
    /// Something that stands in the tree.
    Directive(Directive),
    /// Other files, which stand in its place.
    Include(Inclusion),
}

/// `Include` and `IncludeOptional`.
pub(super) struct Inclusion {
    /// A file or a glob, as written.
    pub(super) pattern: String,
    /// Where it stands.
    pub(super) pattern_at: At,
    /// Whether there need be no such file.
    pub(super) optional: bool,
}

/// Reads one line of a file of the folder `base`. None when it is faulty, which is then noted.
pub(super) fn parse(line: &Text, base: &Path, faults: &mut Faults) -> Option<Spanned<Statement>> {
    let before = faults.count();
    let whole = line.span().trimmed();
    let at = whole.first();
    if whole.as_str().starts_with('<') {
        faults.add(at, section(whole.as_str()));
        return None;
    }
    let words = words(line, faults)?;
    let (name, arguments) = words.split_first()?;
    let Some(entry) = entry(name.span.as_str()).filter(|_| name.quote.is_none()) else {
        faults.add(at, unknown(*name));
        return None;
    };
    if !counted(entry, *name, arguments, faults) {
        return None;
    }
    let node = Reading {
        entry,
        name: name.span,
        words: arguments,
        base,
        faults,
    }
    .statement();
    node.filter(|_| faults.count() == before)
        .map(|node| Spanned { at, node })
}

fn section(text: &str) -> String {
    let end = text.find('>').map_or(text.len(), |end| end + 1);
    let shown: String = text[..end].chars().take(60).collect();
    format!(
        "`{shown}` is a section of httpd's configuration; keep the SecLang directives in files without sections"
    )
}

fn unknown(name: Word<'_>) -> String {
    let shown: String = name.span.as_str().chars().take(60).collect();
    if name.quote.is_none() && shown.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return format!(
            "there is no directive `{shown}`; see the ModSecurity reference manual v3 for their names"
        );
    }
    format!("a directive is expected here, not `{shown}`; the line before may lack its backslash")
}

fn counted(entry: &Entry, name: Word<'_>, arguments: &[Word<'_>], faults: &mut Faults) -> bool {
    let (least, most) = entry.arity();
    let usage = format!("{} {}", entry.name, entry.arguments);
    let usage = format!("it is written `{}`", usage.trim_end());
    if let Some(word) = arguments.get(most) {
        let hint = "put an argument with blanks in double quotes";
        faults.add(
            word.span.first(),
            format!("{} ends before this; {usage}: {hint}", entry.name),
        );
        return false;
    }
    if arguments.len() < least {
        let last = arguments.last().unwrap_or(&name).span;
        faults.add(
            last.at(last.as_str().len()),
            format!("{} lacks an argument; {usage}", entry.name),
        );
        return false;
    }
    true
}

/// A directive whose number of arguments is right.
struct Reading<'r, 't> {
    entry: &'static Entry,
    name: Span<'t>,
    words: &'r [Word<'t>],
    base: &'r Path,
    faults: &'r mut Faults,
}

impl<'t> Reading<'_, 't> {
    fn statement(&mut self) -> Option<Statement> {
        let optional = matches!(self.entry.kind, Kind::IncludeOptional);
        match self.entry.kind {
            Kind::Include | Kind::IncludeOptional => {
                let word = self.first()?;
                let pattern_at = word.span.first();
                Some(Statement::Include(Inclusion {
                    pattern: value::text(word),
                    pattern_at,
                    optional,
                }))
            }
            _ => self.directive().map(Statement::Directive),
        }
    }

    fn directive(&mut self) -> Option<Directive> {
        match self.entry.kind {
            Kind::ResponseBodyMimeTypesClear => Some(Directive::ResponseBodyMimeTypesClear),
            Kind::ResponseBodyMimeType => Some(Directive::ResponseBodyMimeType(self.texts())),
            Kind::RemoveById => Some(Directive::RemoveById(value::ids(self.words, self.faults))),
            Kind::Ignored(form) => Some(self.ignored(form)),
            Kind::Refused(instead) => self.refused(instead),
            _ => {
                let first = self.first()?;
                self.about_rules(first).or_else(|| self.setting(first))
            }
        }
    }

    fn about_rules(&mut self, first: Word<'t>) -> Option<Directive> {
        Some(match self.entry.kind {
            Kind::Rule => return self.rule(first).map(Directive::Rule),
            Kind::Action => Directive::Action(self.actions(first)),
            Kind::DefaultAction => Directive::DefaultAction(self.actions(first)),
            Kind::Marker => Directive::Marker(value::text(first)),
            Kind::RemoveByTag => Directive::RemoveByTag(value::text(first)),
            Kind::RemoveByMsg => Directive::RemoveByMsg(value::text(first)),
            Kind::UpdateTargetById => {
                let ids = value::ids(&[first], self.faults);
                return self.update_target(Select::Ids(ids));
            }
            Kind::UpdateTargetByTag => return self.update_target(Select::Tag(value::text(first))),
            Kind::UpdateTargetByMsg => return self.update_target(Select::Msg(value::text(first))),
            Kind::UpdateActionById => return self.update_action(first),
            _ => return None,
        })
    }

    fn setting(&mut self, first: Word<'t>) -> Option<Directive> {
        let faults = &mut *self.faults;
        Some(match self.entry.kind {
            Kind::RuleEngine => Directive::RuleEngine(value::rule_engine(first, faults)?),
            Kind::RequestBodyAccess => Directive::RequestBodyAccess(value::switch(first, faults)?),
            Kind::ResponseBodyAccess => {
                Directive::ResponseBodyAccess(value::switch(first, faults)?)
            }
            Kind::RequestBodyLimitAction => {
                Directive::RequestBodyLimitAction(value::limit_action(first, faults)?)
            }
            Kind::ResponseBodyLimitAction => {
                Directive::ResponseBodyLimitAction(value::limit_action(first, faults)?)
            }
            Kind::ArgumentSeparator => Directive::ArgumentSeparator(value::byte(first, faults)?),
            Kind::CookieFormat => Directive::CookieFormat(value::cookie_format(first, faults)?),
            Kind::ComponentSignature => Directive::ComponentSignature(value::text(first)),
            Kind::WebAppId => Directive::WebAppId(value::text(first)),
            Kind::XmlExternalEntity => Directive::XmlExternalEntity(value::switch(first, faults)?),
            Kind::GeoLookupDb => Directive::GeoLookupDb(self.path(first)),
            Kind::UnicodeMapFile => {
                let page = value::codepage(*self.words.get(1)?, faults)?;
                Directive::UnicodeMapFile(self.path(first), page)
            }
            _ => return self.limit(first),
        })
    }

    fn limit(&mut self, first: Word<'t>) -> Option<Directive> {
        let directive = match self.entry.kind {
            Kind::RequestBodyLimit => Directive::RequestBodyLimit,
            Kind::RequestBodyNoFilesLimit => Directive::RequestBodyNoFilesLimit,
            Kind::RequestBodyInMemoryLimit => Directive::RequestBodyInMemoryLimit,
            Kind::RequestBodyJsonDepthLimit => Directive::RequestBodyJsonDepthLimit,
            Kind::ResponseBodyLimit => Directive::ResponseBodyLimit,
            Kind::ArgumentsLimit => Directive::ArgumentsLimit,
            Kind::CollectionTimeout => Directive::CollectionTimeout,
            _ => return None,
        };
        value::number(first, self.faults).map(directive)
    }

    fn rule(&mut self, first: Word<'t>) -> Option<Rule> {
        let variables = self.variables(first);
        let operator = operator::parse(*self.words.get(1)?, self.faults);
        let actions = self
            .words
            .get(2)
            .map(|&word| self.actions(word))
            .unwrap_or_default();
        Some(Rule {
            variables,
            operator: operator?,
            actions,
        })
    }

    fn update_target(&mut self, rules: Select) -> Option<Directive> {
        let variables = self.variables(*self.words.get(1)?);
        let replaced = self.words.get(2).map(|&word| self.variables(word));
        Some(Directive::UpdateTarget {
            rules,
            variables,
            replaced,
        })
    }

    fn update_action(&mut self, first: Word<'t>) -> Option<Directive> {
        let which = value::id_and_offset(first, self.faults);
        let actions = self.actions(*self.words.get(1)?);
        let (id, chain) = which?;
        Some(Directive::UpdateActionById { id, chain, actions })
    }

    fn ignored(&mut self, form: Form) -> Directive {
        for &word in self.words {
            value::check(form, word, self.faults);
        }
        Directive::Ignored {
            name: self.entry.name,
            arguments: self.texts(),
        }
    }

    fn refused(&mut self, instead: &str) -> Option<Directive> {
        if let [word] = self.words
            && word.span.as_str().eq_ignore_ascii_case("Off")
        {
            return Some(Directive::Ignored {
                name: self.entry.name,
                arguments: self.texts(),
            });
        }
        self.faults.add(
            self.name.first(),
            format!("{} is not supported; {instead}", self.entry.name),
        );
        None
    }

    fn first(&self) -> Option<Word<'t>> {
        self.words.first().copied()
    }

    fn texts(&self) -> Vec<String> {
        self.words.iter().map(|&word| value::text(word)).collect()
    }

    fn path(&self, word: Word<'_>) -> PathBuf {
        self.base.join(value::text(word))
    }

    fn variables(&mut self, word: Word<'_>) -> Vec<Spanned<Variable>> {
        variables::parse(word.unescaped().span(), self.faults)
    }

    fn actions(&mut self, word: Word<'_>) -> Vec<Spanned<Action>> {
        actions::parse(word.unescaped().span(), self.faults)
    }
}
