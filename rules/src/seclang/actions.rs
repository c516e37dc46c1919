//! `name[:argument]`, in a list separated by commas; an argument with a comma stands in single
//! quotes.

use super::ast::{Action, At, Spanned};
use super::errors::Faults;
use super::text::{Span, closing, is_blank};

/// Reads the list. Each faulty action is noted and left out.
pub(super) fn parse(list: Span<'_>, faults: &mut Faults) -> Vec<Spanned<Action>> {
    let mut actions = Vec::new();
    let mut rest = list.trimmed();
    loop {
        let (action, length) = action(rest, faults);
        actions.extend(action.map(|node| Spanned {
            at: rest.first(),
            node,
        }));
        let after = rest.after(length).trimmed();
        if !after.as_str().starts_with(',') {
            return actions;
        }
        rest = after.after(1).trimmed();
    }
}

/// The action that `rest` begins with and its length up to its comma.
fn action(rest: Span<'_>, faults: &mut Faults) -> (Option<Action>, usize) {
    let text = rest.as_str();
    let end = text.find([':', ',']).unwrap_or(text.len());
    let name = rest.part(0, end).trimmed();
    let colon = text[end..].starts_with(':');
    if !is_name(name.as_str()) {
        faults.add(rest.first(), misnamed(name.as_str()));
        return (None, comma(text, end));
    }
    let name = name.as_str().to_ascii_lowercase();
    if !colon {
        return (
            Some(Action {
                name,
                argument: None,
                argument_at: rest.first(),
            }),
            end,
        );
    }
    let blanks = text[end + 1..].len() - text[end + 1..].trim_start_matches(is_blank).len();
    let from = end + 1 + blanks;
    let value = rest.after(from);
    let (argument, length) = match value.as_str().starts_with('\'') {
        true => quoted(value, faults),
        false => plain(value, &name, faults),
    };
    let action = argument.map(|(argument, argument_at)| Action {
        name,
        argument: Some(argument),
        argument_at,
    });
    (action, from + length)
}

/// An argument and where its first byte stands.
type Argument = Option<(String, At)>;

fn plain(value: Span<'_>, name: &str, faults: &mut Faults) -> (Argument, usize) {
    let length = comma(value.as_str(), 0);
    let argument = value.part(0, length).trimmed();
    if argument.as_str().is_empty() {
        faults.add(
            value.first(),
            format!("an argument is expected after `{name}:`; write '' for an empty one"),
        );
        return (None, length);
    }
    (
        Some((argument.as_str().to_owned(), argument.first())),
        length,
    )
}

fn quoted(value: Span<'_>, faults: &mut Faults) -> (Argument, usize) {
    let text = value.as_str();
    let Some(length) = closing(&text.as_bytes()[1..], b'\'') else {
        faults.add(
            value.first(),
            "this ' is not closed; write \\' for a ' within an argument",
        );
        return (None, text.len());
    };
    let inner = value.part(1, 1 + length);
    let argument = inner.unescaped(Some(b'\'')).span().as_str().to_owned();
    let next = comma(text, length + 2);
    let between = value.part(length + 2, next).trimmed();
    if !between.as_str().is_empty() {
        faults.add(
            between.first(),
            "a comma is expected after an argument's closing '; write \\' for a ' within it",
        );
        return (None, next);
    }
    (Some((argument, inner.first())), next)
}

/// Where the first comma at or after `from` stands, or the end.
fn comma(text: &str, from: usize) -> usize {
    text.get(from..)
        .and_then(|rest| rest.find(','))
        .map_or(text.len(), |at| from + at)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn misnamed(name: &str) -> String {
    match name {
        "" => "an action is expected here; remove the comma that is too much".to_owned(),
        _ => format!(
            "`{name}` is no name of an action; put an argument that contains a comma in single quotes"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::Text;
    use super::*;

    fn read(list: &str) -> (Vec<(String, Option<String>)>, Vec<u32>) {
        let mut faults = Faults::default();
        let text = Text::placed(
            list,
            At {
                file: 0,
                line: 1,
                column: 1,
            },
        );
        let actions = parse(text.span(), &mut faults);
        let pairs = actions
            .into_iter()
            .map(|action| (action.node.name, action.node.argument))
            .collect();
        (
            pairs,
            faults
                .located(&[])
                .iter()
                .map(|error| error.column)
                .collect(),
        )
    }

    #[test]
    fn lists_are_read() {
        let (actions, faults) = read(
            r#"ID:5 , pass,msg:'a, "b" \'c\' \\d',setvar:'tx.x=%{tx.y}',msg:a b c ,ctl:ruleRemoveTargetById=942100;ARGS:foo,tag:''"#,
        );
        let expected: [(&str, Option<&str>); 7] = [
            ("id", Some("5")),
            ("pass", None),
            ("msg", Some(r#"a, "b" 'c' \\d"#)),
            ("setvar", Some("tx.x=%{tx.y}")),
            ("msg", Some("a b c")),
            ("ctl", Some("ruleRemoveTargetById=942100;ARGS:foo")),
            ("tag", Some("")),
        ];
        let actions: Vec<_> = actions
            .iter()
            .map(|(name, argument)| (name.as_str(), argument.as_deref()))
            .collect();
        assert_eq!(actions, expected);
        assert!(faults.is_empty());
    }

    #[test]
    fn faulty_actions_are_reported_each() {
        assert_eq!(
            read("id:1,,msg:,a b,msg:'x'y,msg:'x").1,
            [6, 11, 12, 23, 29]
        );
        assert_eq!(read("id:1,").1, [6]);
        assert_eq!(read("").1, [1]);
    }
}
