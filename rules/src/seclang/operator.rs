//! `[!]@name argument`; without `@` a regular expression.

use super::ast::{Operator, Spanned};
use super::errors::Faults;
use super::lexer::Word;
use super::text::{Span, Text, is_blank};

/// Reads one. Blanks before it are passed over, and one blank after its name; further ones belong
/// to the argument (ModSecurity v3).
pub(super) fn parse(word: Word<'_>, faults: &mut Faults) -> Option<Spanned<Operator>> {
    let text = word.span.as_str();
    let whole = word
        .span
        .after(text.len() - text.trim_start_matches(is_blank).len());
    let negated = whole.as_str().starts_with('!');
    let rest = whole.after(usize::from(negated));
    let (name, argument) = match rest.as_str().strip_prefix('@') {
        Some(named) => split(rest.after(1), named, faults)?,
        None => ("rx", bare(rest, negated, faults)?),
    };
    let text = undone(argument, word.quote, name);
    let operator = Operator {
        negated,
        name: name.to_owned(),
        argument: text.span().as_str().to_owned(),
        argument_at: argument.first(),
    };
    Some(Spanned {
        at: whole.first(),
        node: operator,
    })
}

/// Escaped quotes of a regular expression or a phrase list keep their backslash, as in ModSecurity
/// v3: both languages undo it themselves. In plain text it would only prevent the match that was
/// meant, so it is undone there, as httpd does for ModSecurity 2.9.
fn undone(argument: Span<'_>, quote: Option<u8>, name: &str) -> Text {
    let keeps = ["rx", "rxGlobal", "pm"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(name));
    argument.unescaped(quote.filter(|_| !keeps))
}

fn split<'t>(rest: Span<'t>, text: &'t str, faults: &mut Faults) -> Option<(&'t str, Span<'t>)> {
    let end = text.find(is_blank).unwrap_or(text.len());
    let name = &text[..end];
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        faults.add(rest.first(), "an operator's name is expected after @; a pattern that begins with @ is written \"@rx @...\"");
        return None;
    }
    Some((name, rest.after(end + 1)))
}

fn bare<'t>(rest: Span<'t>, negated: bool, faults: &mut Faults) -> Option<Span<'t>> {
    let first = rest.trimmed();
    if negated && first.as_str().starts_with('@') {
        faults.add(
            first.first(),
            "a blank parts ! and @; write !@ together, or \"!@rx  @...\" for a pattern",
        );
        return None;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::super::ast::At;
    use super::*;

    /// Negated, name, argument, the argument's column.
    type Parts<T> = (bool, T, T, u32);

    fn read(text: &str, quote: Option<u8>) -> Option<Parts<String>> {
        let text = Text::placed(
            text,
            At {
                file: 0,
                line: 1,
                column: 1,
            },
        );
        let word = Word {
            span: text.span(),
            quote,
        };
        let operator = parse(word, &mut Faults::default())?.node;
        Some((
            operator.negated,
            operator.name,
            operator.argument,
            operator.argument_at.column,
        ))
    }

    #[test]
    fn operators_are_read() {
        let cases: [(&str, Parts<&str>); 10] = [
            ("@rx ^a", (false, "rx", "^a", 5)),
            ("!@rx ^a", (true, "rx", "^a", 6)),
            ("  !@streq  a ", (true, "streq", " a ", 11)),
            ("^a b", (false, "rx", "^a b", 1)),
            ("!^a", (true, "rx", "^a", 2)),
            ("", (false, "rx", "", 1)),
            ("@detectSQLi", (false, "detectSQLi", "", 12)),
            (r"\@rx", (false, "rx", r"\@rx", 1)),
            (r#"@rx a\"b\\\."#, (false, "rx", r#"a\"b\\\."#, 5)),
            (r#"@streq a\"b\\"#, (false, "streq", r#"a"b\\"#, 8)),
        ];
        for (text, (negated, name, argument, column)) in cases {
            let expected = Some((negated, name.to_owned(), argument.to_owned(), column));
            assert_eq!(read(text, Some(b'"')), expected, "{text}");
        }
    }

    #[test]
    fn what_is_neither_name_nor_pattern_is_refused() {
        assert_eq!(read("@", None), None);
        assert_eq!(read(r"@\w+", None), None);
        assert_eq!(read("! @rx a", None), None);
    }
}
