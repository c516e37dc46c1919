//! Tokens of GraphQL (specification of October 2021, section 2.1).

use super::super::{escaped, hex_digit, hex_unit, join_surrogates, push_char};
use super::Outcome;

/// A token; a string's value stands in the lexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'d> {
    /// One of `! $ & ( ) : = @ [ ] { | }`.
    Punctuator(u8),
    /// `...`.
    Spread,
    Name(&'d [u8]),
    /// As written.
    Number(&'d [u8]),
    String,
    End,
}

/// One token of lookahead over a document.
pub(super) struct Lexer<'d, 's> {
    text: &'d [u8],
    at: usize,
    token: Option<Token<'d>>,
    value: &'s mut Vec<u8>,
}

const UNCLOSED: &str = "a string does not end";

impl<'d, 's> Lexer<'d, 's> {
    pub(super) fn new(text: &'d [u8], value: &'s mut Vec<u8>) -> Self {
        let at = if text.starts_with(b"\xef\xbb\xbf") {
            3
        } else {
            0
        };
        Self {
            text,
            at,
            token: None,
            value,
        }
    }

    /// How far it has read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The decoded value of the string read last.
    pub(super) fn string(&self) -> &[u8] {
        self.value
    }

    /// The token that comes next.
    pub(super) fn peek(&mut self) -> Outcome<Token<'d>> {
        if let Some(token) = self.token {
            return Ok(token);
        }
        let token = self.read()?;
        self.token = Some(token);
        Ok(token)
    }

    /// Goes past it.
    pub(super) fn next(&mut self) -> Outcome {
        self.peek()?;
        self.token = None;
        Ok(())
    }

    fn read(&mut self) -> Outcome<Token<'d>> {
        self.ignored();
        let rest = &self.text[self.at..];
        let Some(byte) = rest.first() else {
            return Ok(Token::End);
        };
        match byte {
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|'
            | b'}' => {
                self.at += 1;
                Ok(Token::Punctuator(*byte))
            }
            b'.' if rest.starts_with(b"...") => {
                self.at += 3;
                Ok(Token::Spread)
            }
            b'"' => {
                self.value.clear();
                match rest.strip_prefix(b"\"\"\"") {
                    Some(_) => self.block_string()?,
                    None => self.quoted_string()?,
                }
                Ok(Token::String)
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ if is_name(*byte) => Ok(Token::Name(self.take(is_name))),
            _ => Err("no token starts like this"),
        }
    }

    /// White space, commas and comments.
    fn ignored(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b',' => self.at += 1,
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn take(&mut self, belongs: impl Fn(u8) -> bool) -> &'d [u8] {
        let rest = &self.text[self.at..];
        let length = rest
            .iter()
            .position(|byte| !belongs(*byte))
            .unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn number(&mut self) -> Outcome<Token<'d>> {
        // More than the grammar has; what has no digit at its front is none.
        let belongs = |byte: u8| is_name(byte) || matches!(byte, b'.' | b'+' | b'-');
        let number = self.take(belongs);
        let digits = number.strip_prefix(b"-").unwrap_or(number);
        match digits.first() {
            Some(byte) if byte.is_ascii_digit() => Ok(Token::Number(number)),
            _ => Err("a minus sign without a number"),
        }
    }

    fn quoted_string(&mut self) -> Outcome {
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let length = memchr::memchr3(b'"', b'\\', b'\n', rest).ok_or(UNCLOSED)?;
            self.value.extend_from_slice(&rest[..length]);
            self.at += length + 1;
            match rest[length] {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                _ => return Err(UNCLOSED),
            }
        }
    }

    /// One escape, after its backslash.
    fn escape(&mut self) -> Outcome {
        let byte = *self.text.get(self.at).ok_or(UNCLOSED)?;
        self.at += 1;
        if byte == b'u' {
            return self.unicode_escape();
        }
        let plain = escaped(byte).ok_or("no such escape")?;
        self.value.push(plain);
        Ok(())
    }

    /// `XXXX`, also as half of a surrogate pair, or `{X...}` (of the draft after October 2021).
    fn unicode_escape(&mut self) -> Outcome {
        let digits = &self.text[self.at..];
        if let Some(braced) = digits.strip_prefix(b"{") {
            let length = memchr::memchr(b'}', &braced[..braced.len().min(16)]);
            let code = braced[..length.ok_or("an escape does not end")?]
                .iter()
                .try_fold(0u32, |code, digit| {
                    Some(code.checked_mul(16)? + u32::from(hex_digit(*digit)?))
                });
            self.at += length.unwrap_or_default() + 2;
            self.push_code(code.ok_or("no hexadecimal digits after \\u")?);
            return Ok(());
        }
        let unit = hex_unit(digits).ok_or("no four hexadecimal digits after \\u")?;
        self.at += 4;
        let low = digits[4..].strip_prefix(b"\\u").and_then(hex_unit);
        match low.and_then(|low| join_surrogates(unit, low)) {
            Some(character) => {
                self.at += 6;
                push_char(self.value, character);
            }
            None => self.push_code(u32::from(unit)),
        }
        Ok(())
    }

    fn push_code(&mut self, code: u32) {
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        push_char(self.value, character);
    }

    fn block_string(&mut self) -> Outcome {
        self.at += 3;
        loop {
            let rest = &self.text[self.at..];
            let length = memchr::memchr3(b'"', b'\\', b'\r', rest).ok_or(UNCLOSED)?;
            self.value.extend_from_slice(&rest[..length]);
            let special = &rest[length..];
            self.at += length;
            if special.starts_with(b"\"\"\"") {
                self.at += 3;
                dedent(self.value);
                return Ok(());
            }
            let (shown, taken) = if special.starts_with(b"\\\"\"\"") {
                (b"\"\"\"".as_slice(), 4)
            } else if special.starts_with(b"\r\n") {
                (b"\n".as_slice(), 2)
            } else if special[0] == b'\r' {
                (b"\n".as_slice(), 1)
            } else {
                (&special[..1], 1)
            };
            self.value.extend_from_slice(shown);
            self.at += taken;
        }
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// `BlockStringValue`: takes the indent that lines after the first have in common off, and blank
/// lines at both ends. Line ends are LF already.
fn dedent(value: &mut Vec<u8>) {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let indent = |line: &[u8]| line.iter().take_while(|byte| blank(byte)).count();
    let common = value
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| Some(indent(line)).filter(|indent| *indent < line.len()))
        .min()
        .unwrap_or(0);
    let (mut read, mut written, mut last) = (0, 0, 0);
    let mut first = true;
    while read <= value.len() {
        let end = memchr::memchr(b'\n', &value[read..]).map_or(value.len(), |at| read + at);
        let line = &value[read..end];
        let is_blank = indent(line) == line.len();
        let skipped = if read == 0 { 0 } else { common.min(line.len()) };
        if !(first && is_blank) {
            if !first {
                value[written] = b'\n';
                written += 1;
            }
            first = false;
            let start = read + skipped;
            value.copy_within(start..end, written);
            written += end - start;
            if !is_blank {
                last = written;
            }
        }
        read = end + 1;
    }
    value.truncate(last);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Result<String, &'static str> {
        let mut value = Vec::new();
        let mut lexer = Lexer::new(text.as_bytes(), &mut value);
        match lexer.peek()? {
            Token::String => Ok(String::from_utf8_lossy(lexer.string()).into_owned()),
            _ => Err("another token"),
        }
    }

    #[test]
    fn strings_are_decoded() {
        let cases = [
            (r#""a\u0027\"\/\n""#, "a'\"/\n"),
            (r#""\ud83d\ude00\ud800\u0027""#, "😀\u{fffd}'"),
            (r#""\u{27}\u{1F600}\u{110000}""#, "'😀\u{fffd}"),
            (r#""""#, ""),
            (r#""""""""#, ""),
            (r#""""a\u0027 \""" "b" """"#, "a\\u0027 \"\"\" \"b\" "),
            (
                "\"\"\"\n    Hello,\r\n      World!\r    Yours\n\n  \"\"\"",
                "Hello,\n  World!\nYours",
            ),
            ("\"\"\"  a\n  b\n c\"\"\"", "  a\n b\nc"),
        ];
        for (text, want) in cases {
            assert_eq!(string(text), Ok(want.to_owned()), "{text}");
        }
        for text in [
            r#""a"#,
            "\"a\n\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\u{zz}""#,
            r#""\u{1"#,
            "\"\"\"a\"\"",
        ] {
            assert!(string(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_told_apart() {
        let text = "{ a(b: -1.5e+3, $c): [x] ... @d | & ! = # comment\n }";
        let mut value = Vec::new();
        let mut lexer = Lexer::new(text.as_bytes(), &mut value);
        let mut count = 0;
        while lexer.peek() != Ok(Token::End) {
            if count == 5 {
                assert_eq!(lexer.peek(), Ok(Token::Number(b"-1.5e+3")));
            }
            lexer.next().expect("a token");
            count += 1;
        }
        assert_eq!(count, 21);
    }
}
