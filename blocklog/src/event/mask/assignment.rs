//! Values that follow a name: `name=value`, `"name": "value"`, `Name: value`, `<name>value<`, `--name value`,
//! `name="name"` of a multipart head, `Bearer value`.

use std::ops::Range;

use super::name;

/// Where a bare value ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// At `&`, white space, quotes, `<`.
    OfText,
    /// At `;` and `|` too: what a shell takes for the next command.
    OfCommand,
}

/// Most bytes between a name and its `=` or `:`: quotes, their backslashes, spaces.
const GAP_BYTES: usize = 8;
/// Most bytes of the head of a part behind its name.
const PART_HEAD_BYTES: usize = 512;

/// The secrets that follow a name, in one pass.
pub(super) fn spans(text: &str, ends: Ends) -> Vec<Range<usize>> {
    let mut scan = Scan {
        text,
        bytes: text.as_bytes(),
        ends,
        name: 0..0,
        spans: Vec::new(),
    };
    let mut at = 0;
    while at < text.len() {
        at = scan.step(at);
    }
    scan.spans
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    ends: Ends,
    /// The last stretch of bytes that a name can have.
    name: Range<usize>,
    spans: Vec<Range<usize>>,
}

impl Scan<'_> {
    /// Looks at the byte at `at`; where to go on.
    fn step(&mut self, at: usize) -> usize {
        let byte = self.bytes[at];
        if is_of_name(byte) {
            if self.name.end != at || at == 0 {
                self.name.start = at;
            }
            self.name.end = at + 1;
            return at + 1;
        }
        let span = match byte {
            b'=' | b':' if self.is_name_before(at) => self.assigned(at),
            b'>' if self.name.end == at && self.is_element() => self.element(at),
            b' ' if self.name.end == at => self.next_word(at),
            _ => None,
        };
        match span {
            Some(span) => {
                let end = span.end.max(at + 1);
                self.spans.push(span);
                end
            }
            None => at + 1,
        }
    }

    fn is_name_before(&self, at: usize) -> bool {
        let gap = &self.bytes[self.name.end..at];
        !self.name.is_empty()
            && gap.len() <= GAP_BYTES
            && gap.iter().all(|it| b" \t\"'\\".contains(it))
    }

    fn name(&self) -> &str {
        // A name is made of ASCII, so that its ends are those of characters.
        &self.text[self.name.clone()]
    }

    fn assigned(&self, at: usize) -> Option<Range<usize>> {
        let mut start = at + 1;
        start += usize::from(matches!(self.bytes.get(start), Some(b'>' | b'=')));
        start += self.count(start, |it| it == b' ' || it == b'\t');
        if self.name().eq_ignore_ascii_case("name") {
            return self.part(start);
        }
        if !name::is_secret(self.name()) {
            return None;
        }
        let escapes = self.count(start, |it| it == b'\\');
        match self.bytes.get(start + escapes) {
            Some(&quote @ (b'"' | b'\'')) => Some(self.quoted(start + escapes + 1, quote, escapes)),
            Some(b'[' | b'{') => Some(self.nested(start)),
            _ if self.bytes[at] == b':' && self.is_line() => {
                Some(start..start + self.count(start, |it| it != b'\r' && it != b'\n'))
            }
            _ => Some(start..start + self.count(start, |it| !self.ends_value(at, it))),
        }
    }

    /// A header line, or `ARGS:password: ` of a rule's data: the value goes to the end of the line.
    fn is_line(&self) -> bool {
        let before = self.bytes[..self.name.start].last_chunk::<2>();
        let is_variable =
            before.is_some_and(|it| it[1] == b':' && (it[0].is_ascii_uppercase() || it[0] == b'_'));
        let name = self.name().to_ascii_lowercase();
        is_variable || name.contains("cookie") || name.ends_with("authorization")
    }

    fn ends_value(&self, separator: usize, byte: u8) -> bool {
        byte.is_ascii_whitespace()
            || b"&\"'<".contains(&byte)
            || (self.bytes[separator] == b':' && b",}]".contains(&byte))
            || (self.ends == Ends::OfCommand && b";|".contains(&byte))
    }

    /// Up to the quote that closes: one with no more backslashes before it than the one that opens.
    fn quoted(&self, start: usize, quote: u8, escapes: usize) -> Range<usize> {
        let mut backslashes = 0;
        for (at, &byte) in self.bytes.iter().enumerate().skip(start) {
            match byte {
                b'\\' => backslashes += 1,
                _ if byte == quote && backslashes <= escapes => {
                    return start..at - backslashes;
                }
                _ => backslashes = 0,
            }
        }
        start..self.bytes.len()
    }

    /// A list or an object, to where it closes.
    fn nested(&self, start: usize) -> Range<usize> {
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        for (at, &byte) in self.bytes.iter().enumerate().skip(start) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = !quoted,
                b'[' | b'{' if !quoted => depth += 1,
                b']' | b'}' if !quoted => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return start..at + 1;
            }
        }
        start..self.bytes.len()
    }

    /// `name="password"` of a part of multipart/form-data (RFC 7578): from its end to the next boundary.
    fn part(&self, start: usize) -> Option<Range<usize>> {
        let quote = *self.bytes.get(start).filter(|it| b"\"'".contains(it))?;
        let name = self.count(start + 1, is_of_name);
        let end = start + 1 + name;
        let is_secret = name::is_secret(&self.text[start + 1..end]);
        if self.bytes.get(end) != Some(&quote) || !is_secret {
            return None;
        }
        let head = self.bytes[end + 1..].windows(4).take(PART_HEAD_BYTES);
        let blank = head.into_iter().position(|it| it == b"\r\n\r\n")?;
        let lines = end + 1 + blank + 4;
        let rest = &self.text[lines..];
        Some(lines..lines + rest.find("\r\n--").unwrap_or(rest.len()))
    }

    fn is_element(&self) -> bool {
        self.bytes[..self.name.start].ends_with(b"<") && name::is_secret(self.name())
    }

    fn element(&self, at: usize) -> Option<Range<usize>> {
        Some(at + 1..at + 1 + self.count(at + 1, |it| it != b'<'))
    }

    /// The word after an option `--password`, or after `Bearer`.
    fn next_word(&self, at: usize) -> Option<Range<usize>> {
        let name = self.name();
        let start = at + self.count(at, |it| it == b' ');
        if ["bearer", "basic"]
            .iter()
            .any(|it| name.eq_ignore_ascii_case(it))
        {
            let length = self.count(start, |it| {
                it.is_ascii_alphanumeric() || b"-._~+/=".contains(&it)
            });
            return (length >= 8).then_some(start..start + length);
        }
        if !name.starts_with("--") || !name::is_secret(name) {
            return None;
        }
        Some(start..start + self.count(start, |it| !it.is_ascii_whitespace() && it != b'"'))
    }

    /// How many bytes from `start` on are so.
    fn count(&self, start: usize, is_so: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(start..).unwrap_or_default();
        rest.iter().position(|it| !is_so(*it)).unwrap_or(rest.len())
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.%[]".contains(&byte)
}
