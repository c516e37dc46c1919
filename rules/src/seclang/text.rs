//! Text that knows, for each of its bytes, the place in the file that it was read from.

use super::ast::At;

/// Text put together from stretches of one file: continued lines are joined in it, escapes undone.
#[derive(Clone, Debug)]
pub(super) struct Text {
    file: u32,
    value: String,
    stretches: Vec<Stretch>,
}

/// From `offset` on, bytes follow each other in the file as in the text.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    offset: usize,
    line: u32,
    column: u32,
}

impl Text {
    /// Nothing yet, of this file.
    pub(super) fn new(file: u32) -> Self {
        Self {
            file,
            value: String::new(),
            stretches: Vec::new(),
        }
    }

    /// `value` as if it stood at `at`, on one line.
    pub(super) fn placed(value: &str, at: At) -> Self {
        let mut text = Self::new(at.file);
        text.push(value, at.line, at.column);
        text
    }

    /// Appends what stands at this line and column.
    pub(super) fn push(&mut self, part: &str, line: u32, column: u32) {
        self.stretches.push(Stretch {
            offset: self.value.len(),
            line,
            column,
        });
        self.value.push_str(part);
    }

    /// Where the byte at `offset` stands; past the end, the place after the last one.
    pub(super) fn at(&self, offset: usize) -> At {
        let after = self
            .stretches
            .partition_point(|stretch| stretch.offset <= offset);
        let Some(stretch) = after
            .checked_sub(1)
            .and_then(|index| self.stretches.get(index))
        else {
            return At {
                file: self.file,
                line: 1,
                column: 1,
            };
        };
        let along = u32::try_from(offset - stretch.offset).unwrap_or(u32::MAX);
        At {
            file: self.file,
            line: stretch.line,
            column: stretch.column.saturating_add(along),
        }
    }

    /// All of it.
    pub(super) fn span(&self) -> Span<'_> {
        Span {
            text: self,
            start: 0,
            end: self.value.len(),
        }
    }
}

/// A part of a [`Text`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'t> {
    text: &'t Text,
    start: usize,
    end: usize,
}

impl<'t> Span<'t> {
    /// The characters.
    pub(super) fn as_str(self) -> &'t str {
        self.text
            .value
            .get(self.start..self.end)
            .unwrap_or_default()
    }

    /// Where the byte `offset` of this part stands in its file.
    pub(super) fn at(self, offset: usize) -> At {
        self.text.at(self.start + offset)
    }

    /// Where its first byte stands.
    pub(super) fn first(self) -> At {
        self.at(0)
    }

    /// The part of it from `from` up to `to`, in bytes.
    pub(super) fn part(self, from: usize, to: usize) -> Self {
        let start = self.end.min(self.start + from);
        Self {
            text: self.text,
            start,
            end: self.end.min(self.start + to).max(start),
        }
    }

    /// What follows its first `from` bytes.
    pub(super) fn after(self, from: usize) -> Self {
        self.part(from, usize::MAX - self.start)
    }

    /// Without the blanks around it.
    pub(super) fn trimmed(self) -> Self {
        let text = self.as_str();
        let from = text.len() - text.trim_start_matches(is_blank).len();
        self.part(from, from + text.trim_matches(is_blank).len())
    }

    /// Without the backslash of each escaped `quote`. Every other backslash is kept, pairs of them
    /// too, as in ModSecurity v3: what a regular expression says about `\\` or `\.` is its own.
    pub(super) fn unescaped(self, quote: Option<u8>) -> Text {
        let mut out = Text::new(self.text.file);
        let bytes = self.as_str().as_bytes();
        let (mut from, mut next) = (0, 0);
        while next < bytes.len() {
            if bytes[next] == b'\\' {
                if quote.is_some() && bytes.get(next + 1).copied() == quote {
                    self.copy(from, next, &mut out);
                    from = next + 1;
                }
                next += 1;
            }
            next += 1;
        }
        self.copy(from, bytes.len(), &mut out);
        out
    }

    fn copy(self, from: usize, to: usize, out: &mut Text) {
        let part = self.part(from, to);
        let lines = &self.text.stretches;
        let first = lines.partition_point(|stretch| stretch.offset <= part.start);
        let last = lines
            .partition_point(|stretch| stretch.offset < part.end)
            .max(first);
        let mut start = part.start;
        for stretch in &lines[first..last] {
            out.copy(self.text, start, stretch.offset);
            start = stretch.offset;
        }
        out.copy(self.text, start, part.end);
    }
}

impl Text {
    /// Appends a part of `source` that lies within one of its stretches.
    fn copy(&mut self, source: &Self, start: usize, end: usize) {
        let at = source.at(start);
        self.push(
            source.value.get(start..end).unwrap_or_default(),
            at.line,
            at.column,
        );
    }
}

/// The index of the first `quote` in `bytes` that no backslash escapes.
pub(super) fn closing(bytes: &[u8], quote: u8) -> Option<usize> {
    let mut next = 0;
    while let Some(&byte) = bytes.get(next) {
        match byte {
            b'\\' => next += 2,
            _ if byte == quote => return Some(next),
            _ => next += 1,
        }
    }
    None
}

/// What separates arguments: blank and tab.
pub(super) fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_lines() -> Text {
        let mut text = Text::new(3);
        text.push("ab", 7, 5);
        text.push(r#"c\"d"#, 8, 1);
        text
    }

    #[test]
    fn each_byte_keeps_its_place() {
        let text = two_lines();
        let places: Vec<_> = (0..7)
            .map(|i| (text.at(i).line, text.at(i).column))
            .collect();
        assert_eq!(
            places,
            [(7, 5), (7, 6), (8, 1), (8, 2), (8, 3), (8, 4), (8, 5)]
        );
        assert_eq!(text.at(0).file, 3);
    }

    #[test]
    fn an_undone_escape_moves_no_place() {
        let text = two_lines();
        let undone = text.span().after(1).unescaped(Some(b'"'));
        assert_eq!(undone.span().as_str(), "bc\"d");
        let places: Vec<_> = (0..4)
            .map(|i| (undone.at(i).line, undone.at(i).column))
            .collect();
        assert_eq!(places, [(7, 6), (8, 1), (8, 3), (8, 4)]);
    }

    #[test]
    fn only_the_quote_loses_its_backslash() {
        let text = Text::placed(r#"a\\ \. \' \" \\\""#, At::default());
        assert_eq!(
            text.span().unescaped(Some(b'"')).span().as_str(),
            r#"a\\ \. \' " \\""#
        );
    }

    #[test]
    fn an_escaped_quote_closes_nothing() {
        assert_eq!(closing(br#"a\"b"c"#, b'"'), Some(4));
        assert_eq!(closing(br#"a\\"c"#, b'"'), Some(3));
        assert_eq!(closing(br#"a\"#, b'"'), None);
    }
}
