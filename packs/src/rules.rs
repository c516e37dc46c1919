//! The rules of a pack as they are written: read, held to the pack's own files, listed by id.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use clew_rules::seclang::ast::{Action, Ast, At, Directive, Spanned};
use clew_rules::seclang::load;

use crate::listed::{Listed, actions, listed, place};
use crate::pack::Pack;
use crate::{Mode, RuleSource};

/// The rules of one pack.
#[derive(Debug)]
pub(crate) struct PackRules {
    /// What its files say.
    pub(crate) ast: Ast,
    /// Files of the pack that its rules read: rule files, and those that operators name. Relative names.
    pub(crate) read: BTreeSet<String>,
    /// Globs that name no file.
    pub(crate) idle: Vec<String>,
}

impl PackRules {
    /// Reads the rules of a pack.
    ///
    /// # Errors
    ///
    /// All that is wrong with them, but what compiling finds.
    pub(crate) fn load(pack: &Pack) -> Result<Self, Vec<String>> {
        let mut idle = Vec::new();
        let paths = paths(pack, &mut idle).map_err(|error| vec![error])?;
        let ast = load(&paths).map_err(|errors| -> Vec<String> {
            let errors = errors.iter();
            errors.map(|it| pack.shown(&it.to_string())).collect()
        })?;
        let mut errors = Vec::new();
        let mut read = BTreeSet::new();
        let house = House::of(pack);
        for file in &ast.files {
            house.note(file, &mut read, &mut errors);
        }
        for path in named_files(&ast) {
            house.note(&path, &mut read, &mut errors);
        }
        let markers = markers(&ast);
        for directive in &ast.directives {
            let wrong =
                global(&directive.node).or_else(|| astray(&directive.node, directive.at, &markers));
            errors.extend(wrong.map(|what| format!("{}: {what}", place(&ast, directive.at))));
        }
        match errors.is_empty() {
            true => Ok(Self { ast, read, idle }),
            false => Err(errors.iter().map(|error| pack.shown(error)).collect()),
        }
    }

    /// The rules by id, as texts.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        listed(&self.ast)
    }

    /// The rules, without what they would do to requests if the pack only detects.
    pub(crate) fn in_mode(mut self, mode: Mode) -> Ast {
        if mode == Mode::Detect {
            self.ast.directives.iter_mut().for_each(disarm);
        }
        self.ast
    }
}

/// The rule files, in order.
fn paths(pack: &Pack, idle: &mut Vec<String>) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    for source in &pack.manifest.rules {
        let RuleSource::Inside(text) = source else {
            paths.extend(outside(source).map(Path::to_owned));
            continue;
        };
        let pattern =
            glob::Pattern::new(text).map_err(|error| format!("{text:?} is no glob: {error}"))?;
        let before = paths.len();
        let names = pack.contents.iter().map(|(name, _)| name);
        let named = names.filter(|name| pattern.matches_with(name, options));
        paths.extend(named.map(|name| pack.root().join(name)));
        if paths.len() == before && text.contains(['*', '?', '[']) {
            idle.push(text.clone());
        } else if paths.len() == before {
            return Err(format!(
                "rules.files names {text:?}, which the pack does not have"
            ));
        }
    }
    Ok(paths)
}

fn outside(source: &RuleSource) -> Option<&Path> {
    match source {
        RuleSource::Outside(path) => Some(path),
        RuleSource::Inside(_) => None,
    }
}

/// What a pack may read.
struct House {
    root: PathBuf,
    /// A pack that names files of the host may read files of the host.
    open: bool,
}

impl House {
    fn of(pack: &Pack) -> Self {
        let root = pack.root();
        Self {
            root: root.canonicalize().unwrap_or_else(|_| root.to_owned()),
            open: pack.manifest.rules.iter().any(|it| outside(it).is_some()),
        }
    }

    /// Notes a file of the pack; one of the host is an error unless the manifest says that there are some. Devices
    /// and pipes are none of either.
    fn note(&self, path: &Path, read: &mut BTreeSet<String>, errors: &mut Vec<String>) {
        let shown = path.display();
        let real = match path.canonicalize() {
            Ok(real) if real.is_file() => real,
            Ok(_) => return errors.push(format!("{shown} is no regular file")),
            Err(error) => return errors.push(format!("{shown} cannot be read: {error}")),
        };
        if let Ok(inside) = real.strip_prefix(&self.root) {
            read.insert(inside.to_string_lossy().into_owned());
        } else if !self.open {
            errors.push(format!(
                "{shown} is outside of the pack; bring it along, or name a rule file of the host in rules.files"
            ));
        }
    }
}

/// Files that operators and directives name: phrase lists, addresses, Unicode maps.
fn named_files(ast: &Ast) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for directive in &ast.directives {
        let base = ast.files.get(directive.at.file as usize);
        let base = base.and_then(|file| file.parent()).unwrap_or(Path::new(""));
        match &directive.node {
            Directive::UnicodeMapFile(path, _) => paths.push(path.clone()),
            Directive::Rule(rule) => {
                let operator = &rule.operator.node;
                let argument = operator.argument.as_str();
                match operator.name.to_ascii_lowercase().as_str() {
                    "pmf" | "pmfromfile" => {
                        paths.extend(argument.split_whitespace().map(|name| base.join(name)));
                    }
                    "ipmatchf" | "ipmatchfromfile" => paths.push(base.join(argument.trim())),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    paths
}

/// What a pack may not set, for it would hold for all others as well.
fn global(directive: &Directive) -> Option<String> {
    use Directive as D;
    let name = match directive {
        D::RuleEngine(_) => return Some("SecRuleEngine is for all rules; a pack says what its own do with mode = \"block\" or \"detect\"".to_owned()),
        D::RequestBodyAccess(_) => "SecRequestBodyAccess",
        D::ResponseBodyAccess(_) => "SecResponseBodyAccess",
        D::RequestBodyLimit(_) => "SecRequestBodyLimit",
        D::RequestBodyNoFilesLimit(_) => "SecRequestBodyNoFilesLimit",
        D::RequestBodyInMemoryLimit(_) => "SecRequestBodyInMemoryLimit",
        D::RequestBodyLimitAction(_) => "SecRequestBodyLimitAction",
        D::RequestBodyJsonDepthLimit(_) => "SecRequestBodyJsonDepthLimit",
        D::ResponseBodyLimit(_) => "SecResponseBodyLimit",
        D::ResponseBodyLimitAction(_) => "SecResponseBodyLimitAction",
        D::ResponseBodyMimeType(_) => "SecResponseBodyMimeType",
        D::ResponseBodyMimeTypesClear => "SecResponseBodyMimeTypesClear",
        D::ArgumentsLimit(_) => "SecArgumentsLimit",
        D::ArgumentSeparator(_) => "SecArgumentSeparator",
        D::CookieFormat(_) => "SecCookieFormat",
        D::WebAppId(_) => "SecWebAppId",
        _ => return None,
    };
    Some(format!(
        "{name} is for all rules, not for a pack; set it in [rules] of the configuration"
    ))
}

/// Each marker, and where it stands last.
fn markers(ast: &Ast) -> HashMap<&str, At> {
    let markers = ast.directives.iter().filter_map(|it| match &it.node {
        Directive::Marker(name) => Some((name.as_str(), it.at)),
        _ => None,
    });
    markers.collect()
}

/// A `skipAfter` whose marker does not follow in the same pack would skip rules of others.
fn astray(directive: &Directive, at: At, markers: &HashMap<&str, At>) -> Option<String> {
    let actions = actions(directive)?;
    let target = actions.iter().find(|it| it.node.name == "skipafter")?;
    let target = target.node.argument.as_deref()?;
    match markers.get(target) {
        Some(marker) if *marker > at => None,
        _ => Some(format!(
            "skipAfter:{target} would skip rules of other packs; a SecMarker of that name must follow in this one"
        )),
    }
}

/// What decides over a request, and what a pack that only detects must leave to others. `allow` is among them: it
/// keeps the rules of other packs from being asked.
const DECIDING: [&str; 7] = [
    "deny", "block", "drop", "redirect", "proxy", "allow", "pause",
];

/// Takes from a directive what it would do to requests.
fn disarm(directive: &mut Spanned<Directive>) {
    let actions = match &mut directive.node {
        Directive::Rule(rule) => &mut rule.actions,
        Directive::Action(actions) | Directive::DefaultAction(actions) => actions,
        Directive::UpdateActionById { actions, .. } => actions,
        _ => return,
    };
    for action in actions.iter_mut() {
        if DECIDING.contains(&action.node.name.as_str()) {
            "pass".clone_into(&mut action.node.name);
            action.node.argument = None;
        }
    }
    let engine = |it: &Spanned<Action>| {
        let argument = it.node.argument.as_deref().unwrap_or_default();
        it.node.name == "ctl"
            && argument
                .trim_start()
                .to_ascii_lowercase()
                .starts_with("ruleengine")
    };
    actions.retain(|action| !engine(action));
}
