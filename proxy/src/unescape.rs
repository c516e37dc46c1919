//! The codings of bodies and targets, undone piece by piece.

use http::header::CONTENT_TYPE;
use pingora::http::RequestHeader;

/// How a body spells bytes that it cannot hold as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As they are.
    Plain,
    /// Percent-encoding (RFC 3986 §2.1) with `+` as space (WHATWG URL §5.1).
    Form,
    /// Backslash escapes (RFC 8259 §7).
    Json,
}

/// What stands at the start of some bytes.
enum Escape {
    /// An escape of so many bytes, for this.
    Whole(usize, char),
    /// The start of an escape: its end is not there yet.
    Begun,
    /// Nothing that means anything but itself.
    None,
}

impl Coding {
    /// Bytes of the longest escape: a JSON surrogate pair.
    pub(crate) const LONGEST_ESCAPE: usize = 12;

    /// The coding that the request says its body has.
    pub(crate) fn of(request: &RequestHeader) -> Self {
        let kind = request.headers.get(CONTENT_TYPE);
        let kind = kind.map_or(&b""[..], |kind| kind.as_bytes());
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
        let kind = kind.trim_ascii().to_ascii_lowercase();
        match &kind[..] {
            b"application/x-www-form-urlencoded" => Coding::Form,
            kind if kind.ends_with(b"/json") || kind.ends_with(b"+json") => Coding::Json,
            _ => Coding::Plain,
        }
    }

    /// Appends `input`, decoded, to `out`; what is no valid escape stays as it is. Returns the
    /// start of an escape at the very end, fewer than [`Self::LONGEST_ESCAPE`] bytes.
    pub(crate) fn decode<'a>(self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let mut rest = input;
        while let Some((&byte, tail)) = rest.split_first() {
            let escape = match (self, byte) {
                (Coding::Form, b'+') => {
                    out.push(b' ');
                    rest = tail;
                    continue;
                }
                (Coding::Form, b'%') => match hex(tail, 2) {
                    Some(Ok(code)) => {
                        out.push(code as u8);
                        rest = &tail[2..];
                        continue;
                    }
                    Some(Err(())) => Escape::None,
                    None => Escape::Begun,
                },
                (Coding::Json, b'\\') => json(rest),
                _ => Escape::None,
            };
            match escape {
                Escape::Whole(length, meaning) => {
                    let mut bytes = [0; 4];
                    out.extend_from_slice(meaning.encode_utf8(&mut bytes).as_bytes());
                    rest = &rest[length..];
                }
                Escape::Begun => return rest,
                Escape::None => {
                    out.push(byte);
                    rest = tail;
                }
            }
        }
        rest
    }
}

/// The JSON escape at the start of `input`, which starts with a backslash.
fn json(input: &[u8]) -> Escape {
    let Some(letter) = input.get(1) else {
        return Escape::Begun;
    };
    let meaning = match letter {
        b'"' | b'\\' | b'/' => char::from(*letter),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(input),
        _ => return Escape::None,
    };
    Escape::Whole(2, meaning)
}

/// `\uXXXX`, or two of them that make one character; a lone surrogate is U+FFFD.
fn unicode(input: &[u8]) -> Escape {
    let first = match hex(&input[2..], 4) {
        Some(Ok(first)) => first,
        Some(Err(())) => return Escape::None,
        None => return Escape::Begun,
    };
    if !(0xd800..0xdc00).contains(&first) {
        return Escape::Whole(
            6,
            char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
        );
    }
    let rest = &input[6..];
    let second = if rest.starts_with(b"\\u") {
        hex(&rest[2..], 4)
    } else if b"\\u".starts_with(rest) {
        None
    } else {
        Some(Err(()))
    };
    match second {
        None => Escape::Begun,
        Some(Ok(second)) if (0xdc00..0xe000).contains(&second) => {
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            Escape::Whole(
                12,
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
            )
        }
        Some(_) => Escape::Whole(6, char::REPLACEMENT_CHARACTER),
    }
}

/// The number that the first `digits` hexadecimal digits make; none while too few are there.
fn hex(input: &[u8], digits: usize) -> Option<Result<u32, ()>> {
    let mut number = 0;
    for place in 0..digits {
        match char::from(*input.get(place)?).to_digit(16) {
            Some(digit) => number = number << 4 | digit,
            None => return Some(Err(())),
        }
    }
    Some(Ok(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(coding: Coding, input: &str) -> String {
        let mut out = Vec::new();
        let rest = coding.decode(input.as_bytes(), &mut out);
        out.extend_from_slice(rest);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn forms() {
        assert_eq!(
            whole(Coding::Form, "%2Fbin%2fsh+-c%zz%4"),
            "/bin/sh -c%zz%4"
        );
        assert_eq!(whole(Coding::Form, "%%41"), "%A");
        assert_eq!(whole(Coding::Plain, "%41+\\n"), "%41+\\n");
    }

    #[test]
    fn json() {
        assert_eq!(
            whole(Coding::Json, r#""\/\"\\\n\t\u0041\x""#),
            "\"/\"\\\n\tA\\x\""
        );
        assert_eq!(whole(Coding::Json, r"\ud83d\ude00"), "\u{1f600}");
        assert_eq!(
            whole(Coding::Json, r"\ud83dx \ude00 \ud83d\u0041"),
            "\u{fffd}x \u{fffd} \u{fffd}A"
        );
        assert_eq!(whole(Coding::Json, r"\ud83d\n\u12g4"), "\u{fffd}\n\\u12g4");
    }

    /// However the input is cut, the same comes out.
    #[test]
    fn pieces_make_the_whole() {
        let inputs = [
            (Coding::Form, "a=%2Fbin+%zz%%41%4"),
            (Coding::Json, r#"{"\u002f\ud83d\ude00\ud83d":"\\u0041\""#),
        ];
        for (coding, input) in inputs {
            for size in 1..input.len() {
                let (mut out, mut begun) = (Vec::new(), Vec::new());
                for piece in input.as_bytes().chunks(size) {
                    begun.extend_from_slice(piece);
                    begun = coding.decode(&begun, &mut out).to_vec();
                    assert!(begun.len() < Coding::LONGEST_ESCAPE);
                }
                out.extend_from_slice(&begun);
                assert_eq!(
                    String::from_utf8_lossy(&out),
                    whole(coding, input),
                    "by {size}"
                );
            }
        }
    }
}
