//! Syntax trees, one after the other.

use clew_rules::seclang::ast::{Action, Ast, At, Directive, Spanned, Variable};

/// Appends `next` to `ast`, its places counted on.
pub(crate) fn append(ast: &mut Ast, mut next: Ast) {
    // A tree has at most 4096 files.
    let by = u32::try_from(ast.files.len()).unwrap_or(u32::MAX);
    for directive in &mut next.directives {
        shift(&mut directive.at, by);
        inner(&mut directive.node, by);
    }
    ast.files.append(&mut next.files);
    ast.directives.append(&mut next.directives);
}

/// Appends a directive that stands in no file.
pub(crate) fn push(ast: &mut Ast, node: Directive) {
    ast.directives.push(Spanned {
        at: At::default(),
        node,
    });
}

/// Ends what a part has set for the rules that follow (`SecDefaultAction`), and a chain that it left open.
pub(crate) fn close(ast: &mut Ast) {
    for phase in 1..=5 {
        let action = |name: &str, argument: Option<String>| Spanned {
            at: At::default(),
            node: Action {
                name: name.to_owned(),
                argument,
                argument_at: At::default(),
            },
        };
        let actions = vec![
            action("phase", Some(phase.to_string())),
            action("pass", None),
        ];
        push(ast, Directive::DefaultAction(actions));
    }
}

fn shift(at: &mut At, by: u32) {
    at.file = at.file.saturating_add(by);
}

fn inner(directive: &mut Directive, by: u32) {
    match directive {
        Directive::Rule(rule) => {
            variables(&mut rule.variables, by);
            shift(&mut rule.operator.at, by);
            shift(&mut rule.operator.node.argument_at, by);
            actions(&mut rule.actions, by);
        }
        Directive::Action(list) | Directive::DefaultAction(list) => actions(list, by),
        Directive::UpdateActionById { actions: list, .. } => actions(list, by),
        Directive::UpdateTarget {
            variables: list,
            replaced,
            ..
        } => {
            variables(list, by);
            variables(replaced.as_deref_mut().unwrap_or_default(), by);
        }
        _ => {}
    }
}

fn variables(list: &mut [Spanned<Variable>], by: u32) {
    list.iter_mut().for_each(|it| shift(&mut it.at, by));
}

fn actions(list: &mut [Spanned<Action>], by: u32) {
    for action in list {
        shift(&mut action.at, by);
        shift(&mut action.node.argument_at, by);
    }
}
