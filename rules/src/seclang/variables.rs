//! `[&|!]COLLECTION[:SELECTOR]`, in a list separated by `|` or `,`.
//!
//! A selector may stand in single quotes. One that begins with `/` is a regular expression up to
//! the next unescaped `/` with which the variable ends (the list goes on after `|` or `,`, or is
//! over), so it may contain both. Of `XML` it is an XPath expression.

use super::ast::{Selector, Spanned, Variable};
use super::errors::Faults;
use super::text::{Span, closing, is_blank};

/// The longest unquoted `/regex/` in bytes: as it may contain the list's separators, its end is
/// searched for at each `/`, and a list of unfinished ones must not take quadratic time.
const PATTERN_LIMIT: usize = 4096;

/// Reads the list. Each faulty variable is noted and left out.
pub(super) fn parse(list: Span<'_>, faults: &mut Faults) -> Vec<Spanned<Variable>> {
    let mut variables = Vec::new();
    let mut rest = list.trimmed();
    loop {
        let (variable, length) = variable(rest, faults);
        variables.extend(variable.map(|node| Spanned {
            at: rest.first(),
            node,
        }));
        let after = rest.after(length).trimmed();
        if !after.as_str().starts_with(['|', ',']) {
            if !after.as_str().is_empty() {
                faults.add(
                    after.first(),
                    "a variable ends before this; separate variables with |",
                );
            }
            return variables;
        }
        rest = after.after(1).trimmed();
    }
}

/// The variable that `rest` begins with and its length in bytes.
fn variable(rest: Span<'_>, faults: &mut Faults) -> (Option<Variable>, usize) {
    let text = rest.as_str();
    let prefix = text.len() - text.trim_start_matches(['&', '!']).len();
    let name = name_length(&text[prefix..]);
    let end = prefix + name;
    if name == 0 {
        faults.add(
            rest.at(prefix),
            "the name of a variable is expected here, for example ARGS",
        );
        return (None, separator(text));
    }
    if prefix > 1 {
        faults.add(
            rest.first(),
            "a variable is counted with & or excluded with !, not both",
        );
    }
    let collection = text[prefix..end].to_ascii_uppercase();
    let prefix = &text[..prefix];
    let (count, exclude) = (prefix.contains('&'), prefix.contains('!'));
    if !text[end..].starts_with(':') {
        return (
            Some(Variable {
                count,
                exclude,
                collection,
                selector: None,
            }),
            end,
        );
    }
    let (selector, length) = selector(rest.after(end + 1), collection == "XML", faults);
    let variable = selector.map(|node| Variable {
        count,
        exclude,
        collection,
        selector: Some(node),
    });
    (variable, end + 1 + length)
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// How far it is to the next `|` or `,`.
fn separator(text: &str) -> usize {
    text.find(['|', ',']).unwrap_or(text.len())
}

fn selector(rest: Span<'_>, xpath: bool, faults: &mut Faults) -> (Option<Selector>, usize) {
    let text = rest.as_str();
    if text.starts_with('\'') {
        return quoted(rest, xpath, faults);
    }
    if let Some(length) = regex_length(text).filter(|_| !xpath) {
        return (
            Some(Selector::Regex(text[1..=length].to_owned())),
            length + 2,
        );
    }
    let length = separator(text);
    if text.starts_with('/') && !xpath && length > PATTERN_LIMIT {
        faults.add(
            rest.first(),
            "this is longer than 4096 bytes; put the selector in single quotes",
        );
        return (None, length);
    }
    let key = text[..length].trim_matches(is_blank);
    if key.is_empty() {
        faults.add(
            rest.first(),
            "a member's name is expected after the colon; leave the colon out for all members",
        );
        return (None, length);
    }
    (Some(Selector::Key(key.to_owned())), length)
}

fn quoted(rest: Span<'_>, xpath: bool, faults: &mut Faults) -> (Option<Selector>, usize) {
    let text = rest.as_str();
    let Some(length) = closing(&text.as_bytes()[1..], b'\'') else {
        faults.add(
            rest.first(),
            "this ' is not closed; a list of variables that contains blanks must stand in double quotes",
        );
        return (None, text.len());
    };
    let inner = rest.part(1, 1 + length).unescaped(Some(b'\''));
    let inner = inner.span().as_str();
    let regex = inner
        .strip_prefix('/')
        .and_then(|pattern| pattern.strip_suffix('/'))
        .filter(|_| !xpath);
    let selector = match regex {
        Some(pattern) => Selector::Regex(pattern.to_owned()),
        None => Selector::Key(inner.to_owned()),
    };
    (Some(selector), length + 2)
}

/// The length of the pattern between the `/` at the beginning and the one that ends the variable.
fn regex_length(text: &str) -> Option<usize> {
    let pattern = text.strip_prefix('/')?.as_bytes();
    let mut from = 0;
    loop {
        let window = pattern.get(from..pattern.len().min(PATTERN_LIMIT))?;
        let end = from + closing(window, b'/')?;
        let after = pattern
            .get(end + 1..)
            .unwrap_or_default()
            .trim_ascii_start();
        if matches!(after.first(), None | Some(b'|' | b',')) {
            return Some(end);
        }
        from = end + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::ast::At;
    use super::super::text::Text;
    use super::*;

    fn read(list: &str) -> (Vec<String>, Vec<u32>) {
        let mut faults = Faults::default();
        let text = Text::placed(
            list,
            At {
                file: 0,
                line: 1,
                column: 1,
            },
        );
        let shown = parse(text.span(), &mut faults)
            .iter()
            .map(|variable| shown(&variable.node))
            .collect();
        (
            shown,
            faults
                .located(&[])
                .iter()
                .map(|error| error.column)
                .collect(),
        )
    }

    fn shown(variable: &Variable) -> String {
        let mark = match (variable.count, variable.exclude) {
            (true, false) => "&",
            (false, true) => "!",
            _ => "",
        };
        let name = &variable.collection;
        match &variable.selector {
            None => format!("{mark}{name}"),
            Some(Selector::Key(key)) => format!("{mark}{name} key {key}"),
            Some(Selector::Regex(pattern)) => format!("{mark}{name} regex {pattern}"),
        }
    }

    #[test]
    fn lists_are_read() {
        let cases: [(&str, &[&str]); 9] = [
            (
                "args|!ARGS:a.B|&TX:x",
                &["ARGS", "!ARGS key a.B", "&TX key x"],
            ),
            ("ARGS , REQUEST_URI", &["ARGS", "REQUEST_URI"]),
            (
                "ARGS:'/^a|b$/'|ARGS:'a b|\\'c'",
                &["ARGS regex ^a|b$", "ARGS key a b|'c"],
            ),
            (
                "REQUEST_COOKIES:/__utm/|ARGS",
                &["REQUEST_COOKIES regex __utm", "ARGS"],
            ),
            ("ARGS:/^a|b{1,2}$/|X", &["ARGS regex ^a|b{1,2}$", "X"]),
            ("ARGS:/a\\/|b/,X", &["ARGS regex a\\/|b", "X"]),
            ("ARGS:/a[/]b/", &["ARGS regex a[/]b"]),
            ("XML:/*|XML://@*|X", &["XML key /*", "XML key //@*", "X"]),
            ("ARGS:/a", &["ARGS key /a"]),
        ];
        for (list, expected) in cases {
            assert_eq!(
                read(list),
                (expected.iter().map(|&v| v.to_owned()).collect(), vec![]),
                "{list}"
            );
        }
    }

    #[test]
    fn faulty_variables_are_reported_each() {
        assert_eq!(read("|ARGS:|&!X|-|Y:'a").1, [1, 7, 8, 12, 16]);
        assert_eq!(read("").1, [1]);
        assert_eq!(read("ARGS|").1, [6]);
        assert_eq!(read("ARGS URI").1, [6]);
    }
}
