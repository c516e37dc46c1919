//! JSON (RFC 8259), flattened to arguments as ModSecurity v3 names them.
//!
//! Each leaf is one argument: its name is `json`, then `.key` for every object and `.array_N` for
//! every array around it (`json.a.array_0.b`); a value outside of both is named `json`, an empty
//! key `empty-key`. Strings are decoded, numbers, `true` and `false` stay as written, `null` is
//! empty; duplicate keys are all kept; empty objects and arrays give nothing. Read off
//! libmodsecurity 3.0.9, from which this differs in one point: half a surrogate pair becomes
//! U+FFFD on its own (there, it swallows the escape that follows it).

use super::{
    BodyError, BodyLimits, Budget, Frame, FrameKind, Parsed, Scratch, escaped, hex_unit,
    join_surrogates, push_char, push_index,
};

/// Gives every leaf of `body` to `found` as name and value. An empty body holds none.
///
/// One pass without recursion; leaves beyond `limits.arguments` are checked but not given.
///
/// # Errors
///
/// When `body` is not JSON, not UTF-8, nested deeper than `limits.depth`, or would flatten to
/// more than [`BodyLimits::output_bytes`]. Leaves before the error have been given.
pub fn arguments(
    body: &[u8],
    limits: &BodyLimits,
    scratch: &mut Scratch,
    found: impl FnMut(&[u8], &[u8]),
) -> Result<Parsed, BodyError> {
    if body.is_empty() {
        return Ok(Parsed::default());
    }
    let valid = match std::str::from_utf8(body) {
        Ok(_) => body.len(),
        Err(error) => error.valid_up_to(),
    };
    scratch.name.clear();
    scratch.name.extend_from_slice(b"json");
    scratch.frames.clear();
    let mut parser = Parser {
        body: &body[..valid],
        at: 0,
        depth: limits.depth,
        budget: Budget::new(limits, body.len()),
        scratch,
        found,
    };
    let outcome = parser.document();
    if valid < body.len() && parser.at >= valid {
        return Err(error("not UTF-8", valid));
    }
    outcome
        .map(|()| parser.budget.parsed)
        .map_err(|what| error(what, parser.at))
}

fn error(what: &'static str, at: usize) -> BodyError {
    BodyError {
        processor: "JSON",
        what,
        at,
    }
}

/// What is wrong at the parser's place.
type Outcome<T = ()> = Result<T, &'static str>;

const PREMATURE_END: &str = "it ends in the middle";

struct Parser<'b, 's, F> {
    body: &'b [u8],
    at: usize,
    depth: usize,
    budget: Budget,
    scratch: &'s mut Scratch,
    found: F,
}

impl<F: FnMut(&[u8], &[u8])> Parser<'_, '_, F> {
    fn document(&mut self) -> Outcome {
        self.value()?;
        while !self.scratch.frames.is_empty() {
            self.next_member()?;
        }
        match self.peek() {
            None => Ok(()),
            Some(_) => Err("something follows the value"),
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.body.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn expect(&mut self, wanted: u8, what: &'static str) -> Outcome {
        match self.peek() {
            Some(byte) if byte == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(what),
            None => Err(PREMATURE_END),
        }
    }

    /// A whole leaf, or the start of an object or array with its first member.
    fn value(&mut self) -> Outcome {
        match self.peek().ok_or(PREMATURE_END)? {
            b'{' => self.open(FrameKind::Object),
            b'[' => self.open(FrameKind::Array),
            b'"' => {
                self.at += 1;
                let plain = self.string()?;
                self.give(plain)
            }
            b't' => self.literal(b"true", true),
            b'f' => self.literal(b"false", true),
            b'n' => self.literal(b"null", false),
            b'-' | b'0'..=b'9' => self.number(),
            b'/' => Err("a comment"),
            _ => Err("no value starts like this"),
        }
    }

    fn open(&mut self, kind: FrameKind) -> Outcome {
        if self.scratch.frames.len() >= self.depth {
            return Err("nested too deep");
        }
        self.at += 1;
        let path = self.scratch.name.len();
        self.scratch.frames.push(Frame::new(kind, path));
        let close = if kind == FrameKind::Array { b']' } else { b'}' };
        if self.peek() == Some(close) {
            self.close();
            return Ok(());
        }
        self.member()
    }

    fn close(&mut self) {
        self.at += 1;
        if let Some(frame) = self.scratch.frames.pop() {
            self.scratch.name.truncate(frame.path);
        }
    }

    /// What follows a value inside an object or array: its end, or a comma and one more member.
    fn next_member(&mut self) -> Outcome {
        let Some(frame) = self.scratch.frames.last_mut() else {
            return Ok(());
        };
        self.scratch.name.truncate(frame.path);
        frame.index += 1;
        let kind = frame.kind;
        match (self.peek(), kind) {
            (Some(b','), _) => {
                self.at += 1;
                self.member()
            }
            (Some(b']'), FrameKind::Array) | (Some(b'}'), FrameKind::Object) => {
                self.close();
                Ok(())
            }
            (None, _) => Err(PREMATURE_END),
            (_, FrameKind::Array) => Err("neither , nor ] after a value in an array"),
            _ => Err("neither , nor } after a value in an object"),
        }
    }

    /// Key (or index) and value.
    fn member(&mut self) -> Outcome {
        match self.scratch.frames.last() {
            Some(frame) if frame.kind == FrameKind::Array => {
                push_index(&mut self.scratch.name, frame.index);
            }
            _ => self.key()?,
        }
        self.value()
    }

    fn key(&mut self) -> Outcome {
        self.expect(b'"', "a key is not a string")?;
        let plain = self.string()?;
        let path = &mut self.scratch.name;
        path.push(b'.');
        let start = path.len();
        match plain {
            Some((from, to)) => path.extend_from_slice(&self.body[from..to]),
            None => path.extend_from_slice(&self.scratch.value),
        }
        if path.len() == start {
            path.extend_from_slice(b"empty-key");
        }
        self.expect(b':', "no : after a key")
    }

    fn literal(&mut self, word: &[u8], shown: bool) -> Outcome {
        let start = self.at;
        if !self.body[start..].starts_with(word) {
            return Err("not true, false or null");
        }
        self.at += word.len();
        let end = if shown { self.at } else { start };
        self.give(Some((start, end)))
    }

    fn number(&mut self) -> Outcome {
        let start = self.at;
        if self.body[start] == b'-' {
            self.at += 1;
        }
        if self.body.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits("no digit after the minus sign")?;
        }
        if self.body.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("no digit after the decimal point")?;
        }
        if matches!(self.body.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.body.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("no digit in the exponent")?;
        }
        self.give(Some((start, self.at)))
    }

    fn digits(&mut self, none: &'static str) -> Outcome {
        let rest = &self.body[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(none) } else { Ok(()) }
    }

    /// Reads to the closing quote. A string without escapes is where it stands in the body,
    /// else (`None`) it is decoded in `scratch.value`.
    fn string(&mut self) -> Outcome<Option<(usize, usize)>> {
        let start = self.at;
        let end = self.run()?;
        if self.body[end] == b'"' {
            self.at = end + 1;
            return Ok(Some((start, end)));
        }
        self.scratch.value.clear();
        let mut from = start;
        let mut end = end;
        loop {
            self.scratch.value.extend_from_slice(&self.body[from..end]);
            self.at = end + 1;
            if self.body[end] == b'"' {
                return Ok(None);
            }
            self.escape()?;
            from = self.at;
            end = self.run()?;
        }
    }

    /// Where the next quote or backslash stands.
    fn run(&mut self) -> Outcome<usize> {
        let rest = &self.body[self.at..];
        let Some(length) = memchr::memchr2(b'"', b'\\', rest) else {
            self.at = self.body.len();
            return Err(PREMATURE_END);
        };
        // Folded without a branch for each byte, so that it is vectorised.
        let run = &rest[..length];
        if run.iter().fold(false, |seen, byte| seen | (*byte < 0x20)) {
            self.at += run.iter().position(|byte| *byte < 0x20).unwrap_or(0);
            return Err("a control character in a string");
        }
        Ok(self.at + length)
    }

    /// One escape, after its backslash.
    fn escape(&mut self) -> Outcome {
        let byte = *self.body.get(self.at).ok_or(PREMATURE_END)?;
        if byte == b'u' {
            return self.unicode_escape();
        }
        let plain = escaped(byte).ok_or("no such escape")?;
        self.scratch.value.push(plain);
        self.at += 1;
        Ok(())
    }

    fn unicode_escape(&mut self) -> Outcome {
        let digits = &self.body[self.at + 1..];
        let unit = hex_unit(digits).ok_or("no four hexadecimal digits after \\u")?;
        self.at += 5;
        let mut character = char::from_u32(u32::from(unit));
        if let Some(low) = digits.get(4..).and_then(|rest| rest.strip_prefix(b"\\u")) {
            let pair = hex_unit(low).and_then(|low| join_surrogates(unit, low));
            if pair.is_some() {
                self.at += 6;
                character = pair;
            }
        }
        let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
        push_char(&mut self.scratch.value, character);
        Ok(())
    }

    /// Hands over a leaf: a stretch of the body, or what was decoded.
    fn give(&mut self, plain: Option<(usize, usize)>) -> Outcome {
        let value = match plain {
            Some((from, to)) => &self.body[from..to],
            None => &self.scratch.value,
        };
        match self.budget.admit(&self.scratch.name, value) {
            None => Err("it flattens to too much: long keys over many values"),
            Some(admitted) => {
                if admitted {
                    (self.found)(&self.scratch.name, value);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(String, String)>;

    fn flat(body: &[u8], limits: &BodyLimits) -> (Pairs, Result<Parsed, BodyError>) {
        let mut found = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let outcome = arguments(body, limits, &mut Scratch::default(), |name, value| {
            found.push((text(name), text(value)));
        });
        (found, outcome)
    }

    fn shown(body: &str) -> String {
        let (pairs, outcome) = flat(body.as_bytes(), &BodyLimits::default());
        let mut shown: Vec<_> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        if let Err(error) = outcome {
            shown.push(format!("! {}", error.what));
        }
        shown.join("|")
    }

    /// Names and values read from libmodsecurity 3.0.9 for the same bodies.
    #[test]
    fn names_are_those_of_modsecurity() {
        let cases = [
            (
                r#"{"a":{"b":1,"c":[1,{"d":2},[3,4]]},"e":null,"f":true,"g":1.50e+3,"a":{"b":2}}"#,
                "json.a.b=1|json.a.c.array_0=1|json.a.c.array_1.d=2|json.a.c.array_2.array_0=3|\
                 json.a.c.array_2.array_1=4|json.e=|json.f=true|json.g=1.50e+3|json.a.b=2",
            ),
            (
                r#"[1,2,{"a":3}]"#,
                "json.array_0=1|json.array_1=2|json.array_2.a=3",
            ),
            (r#""str""#, "json=str"),
            ("null", "json="),
            ("", ""),
            (r#"{"a":[],"b":{}}"#, ""),
            (r#"{"":1,"a.b":2}"#, "json.empty-key=1|json.a.b=2"),
            (
                "[[1,2],[3]]",
                "json.array_0.array_0=1|json.array_0.array_1=2|json.array_1.array_0=3",
            ),
            (
                r#"{"x":"a\/b\u0027\ud83d\ude00\n\\\""}"#,
                "json.x=a/b'😀\n\\\"",
            ),
            (r#"{"a":"\u0000"}"#, "json.a=\0"),
            (r#"{"a\u0062":-0}"#, "json.ab=-0"),
        ];
        for (body, want) in cases {
            assert_eq!(shown(body), want, "{body}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_does_not_swallow_what_follows() {
        assert_eq!(
            shown(r#"["\ud800\u0027","\udc00'","\ud800"]"#),
            "json.array_0=\u{fffd}'|json.array_1=\u{fffd}'|json.array_2=\u{fffd}"
        );
    }

    /// All of these are errors in libmodsecurity 3.0.9 as well.
    #[test]
    fn what_is_not_json_is_an_error_after_what_was_read() {
        let cases = [
            ("   ", "! it ends in the middle"),
            (r#"{"a":1}x"#, "json.a=1|! something follows the value"),
            (r#"{"a":1"#, "json.a=1|! it ends in the middle"),
            (r#"{"a" 1}"#, "! no : after a key"),
            (r#"{"a":-}"#, "! no digit after the minus sign"),
            (r#"{"a":1.}"#, "! no digit after the decimal point"),
            (r#"{"a":.5}"#, "! no value starts like this"),
            (r#"{"a":tru}"#, "! not true, false or null"),
            (r#"{"a":1,}"#, "json.a=1|! a key is not a string"),
            ("[1,]", "json.array_0=1|! no value starts like this"),
            (r#"{"a":"\x"}"#, "! no such escape"),
            ("// c\n{}", "! a comment"),
            (r#"{"a":"\u12"}"#, "! no four hexadecimal digits after \\u"),
            ("{'a':1}", "! a key is not a string"),
            ("[1e]", "! no digit in the exponent"),
            (
                "[1}",
                "json.array_0=1|! neither , nor ] after a value in an array",
            ),
            ("[\"\u{1}\"]", "! a control character in a string"),
            ("\u{feff}{}", "! no value starts like this"),
        ];
        for (body, want) in cases {
            assert_eq!(shown(body), want, "{body}");
        }
        // A leading zero: the library has not given the pair when it meets the second digit.
        assert!(shown(r#"{"a":01}"#).contains('!'));
        let (pairs, outcome) = flat(b"{\"a\":1,\"b\":\"\xff\"}", &BodyLimits::default());
        assert_eq!(
            (pairs.len(), outcome.map_err(|e| (e.what, e.at))),
            (1, Err(("not UTF-8", 12)))
        );
    }

    #[test]
    fn depth_and_arguments_are_limited() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!shown(&nested(512)).contains('!'));
        assert_eq!(shown(&nested(513)), "! nested too deep");
        let many = format!("[{}1]", "1,".repeat(1000));
        let (pairs, outcome) = flat(many.as_bytes(), &BodyLimits::default());
        assert_eq!(pairs.len(), 1000);
        assert!(outcome.expect("valid").over_limit);
    }

    #[test]
    fn long_keys_over_many_values_do_not_multiply() {
        let body = format!("{{\"{}\":[{}1]}}", "k".repeat(100_000), "1,".repeat(900));
        let (pairs, outcome) = flat(body.as_bytes(), &BodyLimits::default());
        let given: usize = pairs.iter().map(|(n, v)| n.len() + v.len()).sum();
        assert!(given <= BodyLimits::default().output_bytes(body.len()));
        assert!(outcome.is_err());
    }
}
