//! `application/x-www-form-urlencoded`: query strings and form bodies.
//!
//! As ModSecurity v3: pairs end at the separator, a name ends at its first `=`; an empty pair
//! between two separators is an argument with an empty name, one at the end is none. `+` is a
//! space; `%` without two hexadecimal digits stays as it is and is flagged (URLENCODED_ERROR).

use std::ops::Range;

use super::{BodyLimits, Parsed, Scratch, percent_byte};
use crate::transformation::{next_escape, spaced};

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument<'s> {
    /// Decoded name.
    pub name: &'s [u8],
    /// Decoded value; empty when there is no `=`.
    pub value: &'s [u8],
    /// Where the name stands in the input.
    pub raw_name: Range<usize>,
    /// Where the value stands in the input.
    pub raw_value: Range<usize>,
    /// Decoding changed the name; else it equals the input at `raw_name`, and need not be copied.
    pub name_decoded: bool,
    /// Decoding changed the value.
    pub value_decoded: bool,
}

/// Gives each argument of `input` to `found`, up to `limits.arguments`. Time and output are
/// linear: a decoded byte never comes from less than one byte of input.
///
/// `separator` is `&` unless `SecArgumentSeparator` says otherwise.
pub fn arguments(
    input: &[u8],
    separator: u8,
    limits: &BodyLimits,
    scratch: &mut Scratch,
    mut found: impl FnMut(&Argument<'_>),
) -> Parsed {
    let mut parsed = Parsed::default();
    let mut start = 0;
    while start < input.len() {
        if parsed.arguments >= limits.arguments {
            parsed.over_limit = true;
            break;
        }
        let end = memchr::memchr(separator, &input[start..]).map_or(input.len(), |at| start + at);
        let equals = memchr::memchr(b'=', &input[start..end]).map_or(end, |at| start + at);
        let raw_name = start..equals;
        let raw_value = (equals + 1).min(end)..end;
        let name = decode(&input[raw_name.clone()], &mut scratch.name, &mut parsed);
        let value = decode(&input[raw_value.clone()], &mut scratch.value, &mut parsed);
        parsed.arguments += 1;
        found(&Argument {
            name: name.unwrap_or(&input[raw_name.clone()]),
            value: value.unwrap_or(&input[raw_value.clone()]),
            name_decoded: name.is_some(),
            value_decoded: value.is_some(),
            raw_name,
            raw_value,
        });
        start = end + 1;
    }
    parsed
}

/// Decodes `raw` into `out`; `None` when nothing in it stands for something else.
fn decode<'s>(raw: &[u8], out: &'s mut Vec<u8>, parsed: &mut Parsed) -> Option<&'s [u8]> {
    memchr::memchr2(b'%', b'+', raw)?;
    out.clear();
    let mut done = 0;
    while let Some(at) = next_escape(raw, done) {
        spaced(&raw[done..at], out);
        done = at + 1;
        match percent_byte(&raw[at..]) {
            Some(byte) => {
                out.push(byte);
                done = at + 3;
            }
            None => {
                parsed.invalid_escape = true;
                out.push(b'%');
            }
        }
    }
    spaced(&raw[done..], out);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(input: &str) -> (Vec<(String, String)>, Parsed) {
        let mut found = Vec::new();
        let mut scratch = Scratch::default();
        let limits = BodyLimits::default();
        let parsed = arguments(input.as_bytes(), b'&', &limits, &mut scratch, |argument| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push((text(argument.name), text(argument.value)));
            if !argument.value_decoded {
                assert_eq!(
                    argument.value,
                    &input.as_bytes()[argument.raw_value.clone()]
                );
            }
        });
        (found, parsed)
    }

    /// Values read from libmodsecurity 3.0.9 for the same inputs.
    #[test]
    fn pairs_are_those_of_modsecurity() {
        let cases: [(&str, &[(&str, &str)]); 8] = [
            ("", &[]),
            ("a=1&", &[("a", "1")]),
            (
                "d=e=f&&=g&h",
                &[("d", "e=f"), ("", ""), ("", "g"), ("h", "")],
            ),
            ("a;b=1;c", &[("a;b", "1;c")]),
            ("a%3d=1%26", &[("a=", "1&")]),
            ("e=+%2b&f=%00x", &[("e", " +"), ("f", "\0x")]),
            ("b=%zz&c=%4&d=%", &[("b", "%zz"), ("c", "%4"), ("d", "%")]),
            ("%u0041=1", &[("%u0041", "1")]),
        ];
        for (input, want) in cases {
            let (found, parsed) = pairs(input);
            let found: Vec<_> = found
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            assert_eq!(found, want, "{input}");
            let invalid = input.contains("%zz") || input.contains("%u");
            assert_eq!(parsed.invalid_escape, invalid, "{input}");
        }
    }

    #[test]
    fn arguments_beyond_the_limit_are_counted_out() {
        let (found, parsed) = pairs(&"a&".repeat(1001));
        assert_eq!(found.len(), 1000);
        assert!(parsed.over_limit);
        assert!(!pairs(&"a&".repeat(1000)).1.over_limit);
    }

    #[test]
    fn another_separator_and_half_an_escape_before_a_plus() {
        let mut values = Vec::new();
        let limits = BodyLimits::default();
        let scratch = &mut Scratch::default();
        arguments(b"a=%+1;b=%%41", b';', &limits, scratch, |argument| {
            values.push(argument.value.to_vec());
        });
        assert_eq!(values, [b"% 1".to_vec(), b"%A".to_vec()]);
    }
}
