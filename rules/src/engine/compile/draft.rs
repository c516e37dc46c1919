//! The directives, in order: settings are taken, rules with their chains become drafts.

use std::collections::HashMap;
use std::rc::Rc;

use super::super::Phase;
use super::Compiler;
use super::actions::{Actions, Way};
use super::catalogue::Catalogue;
use crate::seclang::ast::{At, Directive, Operator, Select, Spanned, Variable};
use crate::transformation::UnicodeMap;

/// All rules and markers, in the order of the files.
#[derive(Default)]
pub(super) struct Drafts {
    pub(super) rules: Vec<Draft>,
    /// Each marker with the number of rules before it.
    pub(super) markers: Vec<(String, usize)>,
    /// Numbers of rules that were taken out.
    pub(super) removed: Vec<bool>,
    changes: Vec<Spanned<Directive>>,
}

/// A rule with all that is chained to it.
pub(super) struct Draft {
    pub(super) at: At,
    pub(super) phase: Phase,
    /// `SecDefaultAction` of its phase.
    pub(super) default: Rc<Actions>,
    pub(super) links: Vec<DraftLink>,
}

pub(super) struct DraftLink {
    pub(super) at: At,
    pub(super) variables: Vec<Spanned<Variable>>,
    /// `None`: `SecAction`.
    pub(super) operator: Option<Spanned<Operator>>,
    pub(super) actions: Actions,
}

/// What the rules before have set for those that follow.
struct Context {
    defaults: [Rc<Actions>; Phase::COUNT],
    /// Ids that are taken, and by which file and line.
    ids: HashMap<u64, At>,
    /// The last rule said `chain`.
    open: bool,
}

impl Drafts {
    pub(super) fn gather(compiler: &mut Compiler<'_>) -> Self {
        let mut drafts = Self::default();
        let mut context = Context {
            defaults: Default::default(),
            ids: HashMap::new(),
            open: false,
        };
        let ast = compiler.ast;
        for directive in &ast.directives {
            drafts.take(directive, &mut context, compiler);
        }
        drafts.close(&mut context, compiler);
        drafts.removed = vec![false; drafts.rules.len()];
        drafts
    }

    fn take(
        &mut self,
        directive: &Spanned<Directive>,
        context: &mut Context,
        compiler: &mut Compiler<'_>,
    ) {
        let at = directive.at;
        match &directive.node {
            Directive::Rule(rule) => {
                let actions = Actions::read(&rule.actions, compiler);
                let operator = Some(rule.operator.clone());
                self.link(
                    DraftLink {
                        at,
                        variables: rule.variables.clone(),
                        operator,
                        actions,
                    },
                    context,
                    compiler,
                );
            }
            Directive::Action(list) => {
                let actions = Actions::read(list, compiler);
                self.link(
                    DraftLink {
                        at,
                        variables: Vec::new(),
                        operator: None,
                        actions,
                    },
                    context,
                    compiler,
                );
            }
            other => {
                self.close(context, compiler);
                self.take_other(at, other, context, compiler);
            }
        }
    }

    fn take_other(
        &mut self,
        at: At,
        directive: &Directive,
        context: &mut Context,
        compiler: &mut Compiler<'_>,
    ) {
        match directive {
            Directive::Marker(name) => self.markers.push((name.clone(), self.rules.len())),
            Directive::DefaultAction(list) => {
                let actions = Actions::read(list, compiler);
                default_action(at, actions, context, compiler);
            }
            Directive::RemoveById(_)
            | Directive::RemoveByTag(_)
            | Directive::RemoveByMsg(_)
            | Directive::UpdateTarget { .. }
            | Directive::UpdateActionById { .. } => self.changes.push(Spanned {
                at,
                node: directive.clone(),
            }),
            Directive::UnicodeMapFile(path, code_page) => {
                compiler.read_unicode(at, path, *code_page)
            }
            Directive::GeoLookupDb(path) => {
                if compiler.options.geo.is_none() {
                    let message = format!(
                        "{} is not read: give the engine a GeoLookup; until then @geoLookup never matches",
                        path.display()
                    );
                    compiler.warning(at, message);
                }
            }
            Directive::XmlExternalEntity(true) => compiler.error(
                at,
                "SecXmlExternalEntity On is not supported: it lets requests read files; write Off",
            ),
            setting => compiler.set(setting),
        }
    }

    /// Adds a rule, or a link to the chain that is open.
    fn link(&mut self, link: DraftLink, context: &mut Context, compiler: &mut Compiler<'_>) {
        let chain = link.actions.chain;
        if context.open {
            check_chained(&link, compiler);
            if let Some(draft) = self.rules.last_mut() {
                draft.links.push(link);
            }
        } else {
            self.start(link, context, compiler);
        }
        context.open = chain;
    }

    fn start(&mut self, link: DraftLink, context: &mut Context, compiler: &mut Compiler<'_>) {
        match link.actions.id {
            None => compiler.error(link.at, "a rule needs an id: add id:NUMBER to its actions"),
            Some(id) => {
                if let Some(first) = context.ids.insert(id, link.at) {
                    let place = compiler.shown(first);
                    compiler.error(
                        link.at,
                        format!("the id {id} is used already, at {place}; ids are unique"),
                    );
                }
            }
        }
        let phase = link.actions.phase.unwrap_or(Phase::RequestBody);
        let default = Rc::clone(&context.defaults[phase.index()]);
        self.rules.push(Draft {
            at: link.at,
            phase,
            default,
            links: vec![link],
        });
    }

    /// Something that is no rule: a chain that is still open has no end.
    fn close(&mut self, context: &mut Context, compiler: &mut Compiler<'_>) {
        if std::mem::take(&mut context.open)
            && let Some(draft) = self.rules.last()
        {
            compiler.error(draft.at, "the rule says chain, but no rule follows it");
        }
    }

    /// With removals and updates applied. Order does not matter, as in ModSecurity 3.
    pub(super) fn updated(mut self, catalogue: &Catalogue, compiler: &mut Compiler<'_>) -> Self {
        for change in std::mem::take(&mut self.changes) {
            match change.node {
                Directive::RemoveById(ranges) => {
                    self.remove(change.at, &Select::Ids(ranges), catalogue, compiler)
                }
                Directive::RemoveByTag(tag) => {
                    self.remove(change.at, &Select::Tag(tag), catalogue, compiler)
                }
                Directive::RemoveByMsg(msg) => {
                    self.remove(change.at, &Select::Msg(msg), catalogue, compiler)
                }
                Directive::UpdateTarget {
                    rules,
                    variables,
                    replaced,
                } => {
                    for number in self.chosen(change.at, &rules, catalogue, compiler) {
                        self.update_target(number, &variables, replaced.as_deref());
                    }
                }
                Directive::UpdateActionById { id, chain, actions } => {
                    let actions = Actions::read(&actions, compiler);
                    let rules =
                        self.chosen(change.at, &Select::Ids(vec![(id, id)]), catalogue, compiler);
                    for number in rules {
                        self.update_actions(change.at, number, chain, actions.clone(), compiler);
                    }
                }
                _ => {}
            }
        }
        self
    }

    fn chosen(
        &self,
        at: At,
        select: &Select,
        catalogue: &Catalogue,
        compiler: &mut Compiler<'_>,
    ) -> Vec<u32> {
        let chosen = compiler
            .check(at, catalogue.select(select))
            .unwrap_or_default();
        if chosen.is_empty() {
            compiler.warning(at, "no rule is meant by this");
        }
        chosen
    }

    fn remove(
        &mut self,
        at: At,
        select: &Select,
        catalogue: &Catalogue,
        compiler: &mut Compiler<'_>,
    ) {
        for number in self.chosen(at, select, catalogue, compiler) {
            self.removed[number as usize] = true;
        }
    }

    fn update_target(
        &mut self,
        number: u32,
        variables: &[Spanned<Variable>],
        replaced: Option<&[Spanned<Variable>]>,
    ) {
        let link = &mut self.rules[number as usize].links[0];
        if let Some(replaced) = replaced {
            link.variables
                .retain(|v| !replaced.iter().any(|r| r.node == v.node));
        }
        link.variables.extend_from_slice(variables);
    }

    fn update_actions(
        &mut self,
        at: At,
        number: u32,
        chain: u32,
        actions: Actions,
        compiler: &mut Compiler<'_>,
    ) {
        if actions.id.is_some() || actions.phase.is_some() || actions.chain {
            compiler.error(at, "id, phase and chain of a rule cannot be changed");
        }
        match self.rules[number as usize].links.get_mut(chain as usize) {
            Some(link) => link.actions.update(actions),
            None => compiler.error(at, format!("the chain of this rule has no link {chain}")),
        }
    }
}

fn check_chained(link: &DraftLink, compiler: &mut Compiler<'_>) {
    let actions = &link.actions;
    if let Some(way) = actions
        .disruptive
        .as_ref()
        .filter(|way| way.node != Way::Pass && way.node != Way::Block)
    {
        compiler.error(
            way.at,
            "a disruptive action belongs to the first rule of a chain",
        );
    }
    if actions.id.is_some()
        || actions.phase.is_some()
        || actions.skip.is_some()
        || actions.skip_after.is_some()
    {
        compiler.error(
            link.at,
            "id, phase, skip and skipAfter belong to the first rule of a chain",
        );
    }
}

fn default_action(at: At, actions: Actions, context: &mut Context, compiler: &mut Compiler<'_>) {
    let Some(phase) = actions.phase else {
        compiler.error(at, "SecDefaultAction needs a phase: add phase:1 to phase:5");
        return;
    };
    if actions
        .disruptive
        .as_ref()
        .is_none_or(|way| way.node == Way::Block)
    {
        compiler.error(
            at,
            "SecDefaultAction needs a disruptive action other than block, for example pass",
        );
    }
    if actions.id.is_some()
        || actions.chain
        || actions.skip.is_some()
        || actions.skip_after.is_some()
    {
        compiler.error(
            at,
            "SecDefaultAction cannot hold id, chain, skip or skipAfter",
        );
    }
    context.defaults[phase.index()] = Rc::new(actions);
}

impl Compiler<'_> {
    fn shown(&self, at: At) -> String {
        format!("{}:{}", self.file(at).display(), at.line)
    }

    fn read_unicode(&mut self, at: At, path: &std::path::Path, code_page: u32) {
        let content =
            std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
        let map = content
            .and_then(|content| UnicodeMap::parse(&content, code_page).map_err(|e| e.to_string()));
        self.unicode = self.check(at, map);
    }

    fn set(&mut self, directive: &Directive) {
        let settings = &mut self.settings;
        match directive {
            Directive::RuleEngine(engine) => settings.engine = *engine,
            Directive::RequestBodyAccess(on) => settings.request_body_access = *on,
            Directive::ResponseBodyAccess(on) => settings.response_body_access = *on,
            Directive::RequestBodyLimit(bytes) => settings.request_body_limit = *bytes,
            Directive::RequestBodyNoFilesLimit(bytes) => {
                settings.request_body_no_files_limit = *bytes
            }
            Directive::RequestBodyLimitAction(action) => {
                settings.request_body_limit_action = *action
            }
            Directive::RequestBodyJsonDepthLimit(depth) => settings.json_depth = *depth,
            Directive::ResponseBodyLimit(bytes) => settings.response_body_limit = *bytes,
            Directive::ResponseBodyLimitAction(action) => {
                settings.response_body_limit_action = *action
            }
            Directive::ResponseBodyMimeType(types) => settings
                .response_mime_types
                .extend(types.iter().map(|t| t.to_ascii_lowercase())),
            Directive::ResponseBodyMimeTypesClear => settings.response_mime_types.clear(),
            Directive::ArgumentsLimit(limit) => settings.arguments_limit = *limit,
            Directive::ArgumentSeparator(byte) => settings.argument_separator = *byte,
            Directive::CookieFormat(format) => settings.cookie_format = *format,
            Directive::CollectionTimeout(seconds) => {
                settings.collection_timeout = std::time::Duration::from_secs(*seconds)
            }
            Directive::ComponentSignature(signature) => settings.signatures.push(signature.clone()),
            Directive::WebAppId(id) => settings.web_app_id.clone_from(id),
            _ => {}
        }
        self.limits.arguments = self
            .settings
            .arguments_limit
            .try_into()
            .unwrap_or(usize::MAX);
        self.limits.depth = self.settings.json_depth.try_into().unwrap_or(usize::MAX);
    }
}
