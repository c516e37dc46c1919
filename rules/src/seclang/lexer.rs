//! Lines and words: comments, continuations and quotes, and nothing of what they mean.
//!
//! As in httpd and ModSecurity v3 a line is continued by a backslash as its last byte; backslash
//! and line end vanish, the blanks that begin the next line stay. A line whose first visible
//! byte is `#` is a comment, and so is what follows a directive's last argument after ` #`;
//! a comment is never continued (ModSecurity v3).

use std::borrow::Cow;

use super::errors::Faults;
use super::text::{Span, Text, closing, is_blank};

/// The directives of one file, each as one logical line.
pub(super) struct Lines<'s> {
    rest: &'s [u8],
    file: u32,
    line: u32,
}

/// How a physical line ends.
enum Ending {
    /// With the directive.
    Plain,
    /// With a backslash, this many bytes into the line.
    Continued(usize),
    /// With a backslash that blanks hide.
    Hidden(usize),
}

impl<'s> Lines<'s> {
    /// Of a whole file. A byte order mark is passed over.
    pub(super) fn new(source: &'s [u8], file: u32) -> Self {
        let rest = source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(source);
        Self {
            rest,
            file,
            line: 0,
        }
    }

    /// The next logical line that is neither empty nor a comment.
    pub(super) fn next(&mut self, faults: &mut Faults) -> Option<Text> {
        loop {
            let bytes = self.physical()?;
            match bytes.trim_ascii_start().first() {
                None | Some(b'#') => {}
                Some(_) => return Some(self.logical(bytes, faults)),
            }
        }
    }

    fn logical(&mut self, first: &'s [u8], faults: &mut Faults) -> Text {
        let mut text = Text::new(self.file);
        let mut bytes = first;
        loop {
            let line = self.decoded(bytes, faults);
            let (end, hidden) = match ending(&line) {
                Ending::Plain => {
                    text.push(&line, self.line, 1);
                    return text;
                }
                Ending::Continued(end) => (end, false),
                Ending::Hidden(end) => (end, true),
            };
            text.push(line.get(..end).unwrap_or_default(), self.line, 1);
            text.push("", self.line, column(end));
            let place = text.at(text.span().as_str().len());
            if hidden {
                faults.add(
                    place,
                    "blanks follow this backslash, so that it continues no line; remove them",
                );
            }
            let Some(next) = self.physical() else {
                faults.add(
                    place,
                    "the file ends where this backslash promises another line; remove it",
                );
                return text;
            };
            bytes = next;
        }
    }

    /// The next physical line without its line end (LF or CRLF).
    fn physical(&mut self) -> Option<&'s [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let line = &self.rest[..end];
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        self.line = self.line.saturating_add(1);
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn decoded(&self, bytes: &'s [u8], faults: &mut Faults) -> Cow<'s, str> {
        if let Err(error) = std::str::from_utf8(bytes) {
            let mut place = Text::new(self.file);
            place.push("", self.line, column(error.valid_up_to()));
            faults.add(
                place.at(0),
                "this byte is not UTF-8; in a pattern write it as \\xHH",
            );
        }
        String::from_utf8_lossy(bytes)
    }
}

fn column(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX).saturating_add(1)
}

/// A backslash that another one escapes continues nothing.
fn ending(line: &str) -> Ending {
    let visible = line.trim_end_matches(is_blank);
    let backslashes = visible.len() - visible.trim_end_matches('\\').len();
    match backslashes % 2 {
        0 => Ending::Plain,
        _ if visible.len() == line.len() => Ending::Continued(line.len() - 1),
        _ => Ending::Hidden(visible.len() - 1),
    }
}

/// One argument as written; its quotes are taken off, its escapes are not undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'t> {
    /// What stands between the quotes.
    pub(super) span: Span<'t>,
    /// `"`, `'` or none.
    pub(super) quote: Option<u8>,
}

impl Word<'_> {
    /// With the escapes of its quote undone; without quotes there are none.
    pub(super) fn unescaped(self) -> Text {
        self.span.unescaped(self.quote)
    }
}

/// The words of a logical line, or none when its quotes do not fit.
pub(super) fn words<'t>(line: &'t Text, faults: &mut Faults) -> Option<Vec<Word<'t>>> {
    let mut words = Vec::new();
    let mut rest = line.span().trimmed();
    while let Some(&first) = rest.as_str().as_bytes().first() {
        if first == b'#' {
            check_comment(rest, faults);
            break;
        }
        let (word, after) = match first {
            b'"' | b'\'' => quoted(rest, first, faults)?,
            _ => unquoted(rest),
        };
        words.push(word);
        rest = rest.after(after).trimmed();
    }
    Some(words)
}

fn unquoted(rest: Span<'_>) -> (Word<'_>, usize) {
    let text = rest.as_str();
    let end = text.find(is_blank).unwrap_or(text.len());
    (
        Word {
            span: rest.part(0, end),
            quote: None,
        },
        end,
    )
}

fn quoted<'t>(rest: Span<'t>, quote: u8, faults: &mut Faults) -> Option<(Word<'t>, usize)> {
    let mark = char::from(quote);
    let text = rest.as_str();
    let Some(length) = closing(&text.as_bytes()[1..], quote) else {
        faults.add(
            rest.first(),
            format!("this {mark} is not closed; close it, or end each line before the last with a backslash"),
        );
        return None;
    };
    let after = length + 2;
    if text[after..].starts_with(|next| !is_blank(next)) {
        let message = format!(
            "the argument ends at the {mark} before this; leave a blank, or write \\{mark} for a {mark} within it"
        );
        faults.add(rest.at(after), message);
        return None;
    }
    Some((
        Word {
            span: rest.part(1, 1 + length),
            quote: Some(quote),
        },
        after,
    ))
}

fn check_comment(comment: Span<'_>, faults: &mut Faults) {
    let last = comment.at(comment.as_str().len().saturating_sub(1));
    if last.line != comment.first().line {
        faults.add(
            comment.first(),
            "a comment cannot stand between continued lines; move it before the directive, or quote the #",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> (Vec<Vec<String>>, Vec<(u32, u32)>) {
        let mut faults = Faults::default();
        let mut lines = Lines::new(source.as_bytes(), 0);
        let mut out = Vec::new();
        while let Some(line) = lines.next(&mut faults) {
            if let Some(words) = words(&line, &mut faults) {
                out.push(
                    words
                        .iter()
                        .map(|word| word.span.as_str().to_owned())
                        .collect(),
                );
            }
        }
        let errors = faults.located(&[]);
        (
            out,
            errors
                .iter()
                .map(|error| (error.line, error.column))
                .collect(),
        )
    }

    #[test]
    fn words_are_separated_and_unquoted() {
        let (lines, faults) = read("\u{feff}\n# x \\\n  A \"b \\\" c\"\t'd \" e' f\"g # end\r\n");
        assert_eq!(lines, [["A", "b \\\" c", "d \" e", "f\"g"]]);
        assert!(faults.is_empty());
    }

    #[test]
    fn a_backslash_joins_lines() {
        let (lines, faults) = read("A \"b,\\\n  c\"\\\r\n d\\\\\nB");
        assert_eq!(lines, [vec!["A", "b,  c", "d\\\\"], vec!["B"]]);
        assert!(faults.is_empty());
    }

    #[test]
    fn faults_stand_where_they_are() {
        assert_eq!(read("A \\\n  \"b").1, [(2, 3)]);
        assert_eq!(read("A \"b\"c").1, [(1, 6)]);
        assert_eq!(read("A \\ \nb").1, [(1, 3)]);
        assert_eq!(read("A\nB \\").1, [(2, 3)]);
        assert_eq!(read("A \\\n # c \\\n d").1, [(2, 2)]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_outside_comments() {
        let mut faults = Faults::default();
        let mut lines = Lines::new(b"# \xff\nA \xe9", 0);
        while lines.next(&mut faults).is_some() {}
        let errors = faults.located(&[]);
        assert_eq!(errors.len(), 1);
        assert_eq!((errors[0].line, errors[0].column), (2, 3));
    }
}
