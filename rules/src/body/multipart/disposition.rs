//! `Content-Disposition` of a part (RFC 7578, section 4.2).

use std::ops::Range;

use super::super::{percent_byte, trim_start};
use super::Flags;

/// Its parameters, as ranges of the buffer they were decoded into.
#[derive(Debug, Default)]
pub(super) struct Disposition {
    pub(super) name: Option<Range<usize>>,
    /// `filename`, or `filename*` when that stands alone.
    pub(super) filename: Option<Range<usize>>,
    /// `filename*` beside `filename`, or a second `filename`.
    pub(super) extended: Option<Range<usize>>,
    /// The first error.
    pub(super) error: Option<&'static str>,
}

impl Disposition {
    /// Reads a header's value; goes on after an error as long as it finds parameters, so that
    /// rules see what a lenient backend may see. `filename*` without `filename` is an error.
    pub(super) fn read(value: &[u8], out: &mut Vec<u8>, flags: &mut Flags) -> Self {
        let mut disposition = Self::default();
        let mut rest = disposition.form_data(value);
        while let Some(parameter) = rest {
            rest = disposition.parameter(parameter, out, flags);
        }
        if disposition.name.as_ref().is_none_or(Range::is_empty) {
            disposition.fail("Content-Disposition gives no name");
        }
        if disposition.filename.is_none() && disposition.extended.is_some() {
            disposition.fail("filename* without filename (RFC 7578 forbids it)");
            disposition.filename = disposition.extended.take();
        }
        disposition
    }

    fn fail(&mut self, what: &'static str) {
        self.error.get_or_insert(what);
    }

    /// Goes past `form-data;` to the first parameter.
    fn form_data<'v>(&mut self, value: &'v [u8]) -> Option<&'v [u8]> {
        let (kind, rest) = match memchr::memchr(b';', value) {
            Some(at) => (&value[..at], Some(&value[at + 1..])),
            None => (value, None),
        };
        if !matches!(kind.strip_prefix(b"form-data"), Some(space) if blank(space)) {
            self.fail("Content-Disposition is not form-data");
        }
        rest
    }

    /// Reads one parameter; what follows its semicolon, if there is one.
    fn parameter<'v>(
        &mut self,
        from: &'v [u8],
        out: &mut Vec<u8>,
        flags: &mut Flags,
    ) -> Option<&'v [u8]> {
        let from = trim_start(from);
        if from.is_empty() {
            return None;
        }
        let Some(equals) = memchr::memchr(b'=', from) else {
            self.fail("a parameter of Content-Disposition has no value");
            return None;
        };
        let key = &from[..equals];
        let start = out.len();
        let after = self.value(trim_start(&from[equals + 1..]), out, flags);
        self.named(key, out, start);
        let rest = trim_start(after);
        match rest.first() {
            None => None,
            Some(b';') => Some(&rest[1..]),
            Some(_) => {
                self.fail("something follows a parameter of Content-Disposition");
                let next = memchr::memchr(b';', rest)?;
                Some(&rest[next + 1..])
            }
        }
    }

    /// Decodes a token or a quoted string to `out`; what follows it.
    fn value<'v>(&mut self, from: &'v [u8], out: &mut Vec<u8>, flags: &mut Flags) -> &'v [u8] {
        let quote = match from.first() {
            Some(quote @ (b'"' | b'\'')) => *quote,
            _ => {
                let length = from.iter().take_while(|byte| is_token(**byte)).count();
                if length == 0 {
                    self.fail("a parameter of Content-Disposition has no value");
                }
                out.extend_from_slice(&from[..length]);
                return &from[length..];
            }
        };
        // Single quotes are not in the grammar, but some backends take them.
        flags.invalid_quoting |= quote == b'\'';
        let mut rest = &from[1..];
        loop {
            match rest {
                [] => {
                    flags.invalid_quoting = true;
                    self.fail("a quote in Content-Disposition does not end");
                    return rest;
                }
                // Browsers escape only these two; a backslash in a Windows path stays.
                [b'\\', escaped, after @ ..] if *escaped == quote || *escaped == b'\\' => {
                    out.push(*escaped);
                    rest = after;
                }
                [byte, after @ ..] if *byte == quote => {
                    let next = trim_start(after).first();
                    flags.invalid_quoting |= next.is_some_and(|byte| *byte != b';')
                        && after.len() == trim_start(after).len();
                    return after;
                }
                [byte, after @ ..] => {
                    out.push(*byte);
                    rest = after;
                }
            }
        }
    }

    /// Keeps what `out` holds from `start` under the parameter's name.
    fn named(&mut self, key: &[u8], out: &mut Vec<u8>, start: usize) {
        let exact = key.trim_ascii_end();
        match exact.to_ascii_lowercase().as_slice() {
            b"name" if self.name.is_none() => self.name = Some(start..out.len()),
            b"filename" if self.filename.is_none() => self.filename = Some(start..out.len()),
            b"filename*" if self.extended.is_none() => {
                let from = out.len();
                decode_extended(out, start);
                self.extended = Some(from..out.len());
            }
            b"name" => self.fail("Content-Disposition gives two names"),
            b"filename" => {
                self.extended = Some(start..out.len());
                self.fail("Content-Disposition gives two file names");
            }
            b"filename*" => self.fail("Content-Disposition gives two file names"),
            _ => self.fail("Content-Disposition has an unknown parameter"),
        }
        // Some parsers look for the letters `filename=`.
        let misspelt = exact.iter().any(u8::is_ascii_uppercase);
        if misspelt || (key.len() != exact.len() && exact == b"filename") {
            self.fail("a parameter of Content-Disposition is spelt to be overlooked");
        }
    }
}

fn blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t'))
}

/// RFC 2045's token, less what ModSecurity leaves out.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

/// Appends what `charset'language'percent-encoded` at `start` says (RFC 8187). The character set
/// is not looked at: the bytes are what rules want. Without two quotes all of it is the value.
fn decode_extended(out: &mut Vec<u8>, start: usize) {
    let mut quotes = memchr::memchr_iter(b'\'', &out[start..]);
    let mut at = start + quotes.nth(1).map_or(0, |second| second + 1);
    let end = out.len();
    while at < end {
        let (byte, length) = percent_byte(&out[at..end]).map_or((out[at], 1), |byte| (byte, 3));
        out.push(byte);
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// name, filename, extended, error, invalid quoting.
    fn read(value: &str) -> (String, String, String, bool, bool) {
        let (mut out, mut flags) = (Vec::new(), Flags::default());
        let found = Disposition::read(value.as_bytes(), &mut out, &mut flags);
        let text = |range: Option<Range<usize>>| {
            range.map_or("-".to_owned(), |range| {
                String::from_utf8_lossy(&out[range]).into_owned()
            })
        };
        let (name, filename) = (text(found.name), text(found.filename));
        (
            name,
            filename,
            text(found.extended),
            found.error.is_some(),
            flags.invalid_quoting,
        )
    }

    #[test]
    fn parameters_are_read_and_faults_are_flagged() {
        let cases = [
            (
                r#"form-data; name="a"; filename="x.txt""#,
                ("a", "x.txt", "-", false, false),
            ),
            (
                "form-data ;name=a;filename=b.c",
                ("a", "b.c", "-", false, false),
            ),
            (
                r#"form-data; name="a\"b\\c\d""#,
                ("a\"b\\c\\d", "-", "-", false, false),
            ),
            (r#"form-data; name="a";"#, ("a", "-", "-", false, false)),
            ("form-data; name='a'", ("a", "-", "-", false, true)),
            (
                r#"form-data; name="a"x; filename=b"#,
                ("a", "b", "-", true, true),
            ),
            (r#"form-data; name="a"#, ("a", "-", "-", true, true)),
            ("form-data; name=a b", ("a", "-", "-", true, false)),
            ("form-data", ("-", "-", "-", true, false)),
            ("attachment; name=a", ("a", "-", "-", true, false)),
            ("form-data; NAME=a", ("a", "-", "-", true, false)),
            (
                "form-data; name=a; filename =b",
                ("a", "b", "-", true, false),
            ),
            ("form-data; name=a; name=b", ("a", "-", "-", true, false)),
            (
                "form-data; name=a; filename=p; filename=q",
                ("a", "p", "q", true, false),
            ),
            ("form-data; name=a; other=b", ("a", "-", "-", true, false)),
            (
                "form-data; name=a; filename=p; filename*=UTF-8''x%27y",
                ("a", "p", "x'y", false, false),
            ),
            (
                "form-data; name=a; filename*=UTF-8''x%27y%zz",
                ("a", "x'y%zz", "-", true, false),
            ),
            ("form-data; name=; filename=", ("", "", "-", true, false)),
        ];
        for (value, (name, filename, extended, error, quoting)) in cases {
            let want = (
                name.to_owned(),
                filename.to_owned(),
                extended.to_owned(),
                error,
                quoting,
            );
            assert_eq!(read(value), want, "{value}");
        }
    }
}
