//! Rules by id, as texts.

use clew_rules::seclang::ast::{Action, Ast, At, Directive, Spanned};

/// `file:line:column`.
pub(crate) fn place(ast: &Ast, at: At) -> String {
    let file = ast.files.get(at.file as usize).cloned().unwrap_or_default();
    format!("{}:{}:{}", file.display(), at.line, at.column)
}

/// A rule with what is chained to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: u64,
    /// `file:line:column`.
    pub(crate) place: String,
    /// As SecLang, a line for each link.
    pub(crate) text: String,
    /// Whether a match is told, or stops the request.
    pub(crate) speaks: bool,
    /// Its file.
    pub(crate) file: u32,
}

pub(crate) fn listed(ast: &Ast) -> Vec<Listed> {
    let mut list: Vec<Listed> = Vec::new();
    let mut open = false;
    for directive in &ast.directives {
        let Some(actions) = actions(&directive.node) else {
            continue;
        };
        let has = |name: &str| actions.iter().any(|it| it.node.name == name);
        let text = text(&directive.node);
        match list.last_mut().filter(|_| open) {
            Some(rule) => rule.text = format!("{}\n  {text}", rule.text),
            None => list.push(Listed {
                id: id(actions),
                place: place(ast, directive.at),
                text,
                speaks: !(has("nolog") && has("pass")),
                file: directive.at.file,
            }),
        }
        open = has("chain");
    }
    list
}

fn id(actions: &[Spanned<Action>]) -> u64 {
    let id = actions.iter().find(|it| it.node.name == "id");
    let text = id.and_then(|it| it.node.argument.as_deref());
    text.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
}

/// The actions of a rule; none of what is no rule.
pub(crate) fn actions(directive: &Directive) -> Option<&[Spanned<Action>]> {
    match directive {
        Directive::Rule(rule) => Some(&rule.actions),
        Directive::Action(actions) => Some(actions),
        _ => None,
    }
}

fn text(directive: &Directive) -> String {
    match directive {
        Directive::Rule(rule) => rule.to_string(),
        Directive::Action(actions) => {
            let actions: Vec<_> = actions.iter().map(|it| it.node.to_string()).collect();
            format!("SecAction \"{}\"", actions.join(","))
        }
        other => format!("{other:?}"),
    }
}
