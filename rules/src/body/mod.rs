//! What a request carries, taken apart: its target, arguments, cookies and body.
//!
//! Every parser here is pure and gives what it finds to a callback, as bytes that live only for
//! that call (they may stand in a reused [`Scratch`]). Hostile input costs time and output linear
//! in its length: nothing recurses, every nesting and every count has a limit in [`BodyLimits`],
//! and what is given to the callback together never exceeds [`BodyLimits::output_bytes`].
//!
//! A body that cannot be read whole is a [`BodyError`]; what was read before it has been given
//! to the callback, so that rules in detection mode see as much as there is.
//!
//! Invariant: nothing here decodes `Content-Encoding`.

pub mod cookies;
pub mod graphql;
pub mod json;
pub mod multipart;
pub mod normal;
pub mod urlencoded;
pub mod xml;

use std::ops::Range;

/// Limits of all parsers. Lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Arguments (pairs) still to be accepted; those beyond are counted out, not given.
    /// Default 1000, as `SecArgumentsLimit` in ModSecurity's recommended configuration. ARGS_GET
    /// and ARGS_POST share one limit there: the caller subtracts what it already has.
    pub arguments: usize,
    /// Nesting of JSON and GraphQL. Default 512, as `SecRequestBodyJsonDepthLimit` in the
    /// recommended configuration.
    pub depth: usize,
    /// Uploaded files of a multipart body. Default 100, as `SecUploadFileLimit`.
    pub files: usize,
    /// One header line of a multipart part, with its line ending, and after unfolding. Default
    /// 4096, ModSecurity's line buffer.
    pub part_header_bytes: usize,
    /// Header lines of one part. Default 32; browsers send two.
    pub part_headers: usize,
    /// Nesting of XML elements. Default 256, as libxml2.
    pub xml_depth: usize,
    /// Elements and runs of text of an XML document, each 32 bytes of memory. Default 100,000.
    pub xml_nodes: usize,
    /// Attributes of one XML element. Default 256: well-formedness compares each with each.
    pub xml_element_attributes: usize,
    /// Cookies of one header line. Default 1000, as arguments.
    pub cookies: usize,
    /// What flattened names and values may come to, as a multiple of the body's length; JSON
    /// repeats a path for each leaf, so that a long key over many leaves would be quadratic.
    /// Default 8.
    pub expansion: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            arguments: 1000,
            depth: 512,
            files: 100,
            part_header_bytes: 4096,
            part_headers: 32,
            xml_depth: 256,
            xml_nodes: 100_000,
            xml_element_attributes: 256,
            cookies: 1000,
            expansion: 8,
        }
    }
}

impl BodyLimits {
    /// Names and values that a body of `body_bytes` may come to when flattened: a floor of
    /// 64 KiB and [`BodyLimits::expansion`] times its length.
    #[must_use]
    pub fn output_bytes(&self, body_bytes: usize) -> usize {
        body_bytes
            .saturating_mul(self.expansion)
            .saturating_add(64 * 1024)
    }
}

/// Buffers that parsers write into; keep one per worker and hand it to each call.
#[derive(Debug, Default)]
pub struct Scratch {
    name: Vec<u8>,
    value: Vec<u8>,
    lines: Vec<Range<usize>>,
    frames: Vec<Frame>,
}

/// An open object, array, selection or list of arguments.
#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: FrameKind,
    /// Length of the path in `Scratch::name` outside of it.
    path: usize,
    /// Elements already seen, in an array.
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    Object,
    Array,
    /// GraphQL: `{ field ... }`.
    Selection,
    /// GraphQL: `( name: value ... )`.
    Arguments,
    /// GraphQL: `( $name: Type = value ... )`.
    Variables,
}

impl Frame {
    fn new(kind: FrameKind, path: usize) -> Self {
        Self {
            kind,
            path,
            index: 0,
        }
    }
}

/// What a parser found beside the pairs it gave away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Pairs given to the callback.
    pub arguments: usize,
    /// There were more than [`BodyLimits::arguments`] allows.
    pub over_limit: bool,
    /// A `%` without two hexadecimal digits: URLENCODED_ERROR.
    pub invalid_escape: bool,
}

/// Why a body could not be read whole: REQBODY_ERROR is 1 and REQBODY_ERROR_MSG this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{processor} parsing error: {what} (byte {at})")]
pub struct BodyError {
    /// `JSON`, `XML`, `Multipart` or `GraphQL`.
    pub processor: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Where, as an offset into the body (0 when the Content-Type is wrong).
    pub at: usize,
}

/// Counts what goes to the callback against the limits.
struct Budget {
    parsed: Parsed,
    arguments: usize,
    bytes: usize,
}

impl Budget {
    fn new(limits: &BodyLimits, body_bytes: usize) -> Self {
        Self {
            parsed: Parsed::default(),
            arguments: limits.arguments,
            bytes: limits.output_bytes(body_bytes),
        }
    }

    /// Whether a pair may be given. `None` when the bytes are used up.
    fn admit(&mut self, name: &[u8], value: &[u8]) -> Option<bool> {
        if self.parsed.arguments >= self.arguments {
            self.parsed.over_limit = true;
            return Some(false);
        }
        self.bytes = self.bytes.checked_sub(name.len() + value.len())?;
        self.parsed.arguments += 1;
        Some(true)
    }
}

/// Appends `.array_<index>`, as ModSecurity names the elements of an array.
fn push_index(path: &mut Vec<u8>, index: usize) {
    path.extend_from_slice(b".array_");
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    let mut rest = index;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    path.extend_from_slice(&digits[first..]);
}

/// Appends a character in UTF-8.
fn push_char(out: &mut Vec<u8>, character: char) {
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The value of a hexadecimal digit.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that `%XY` at the front of `escape` stands for.
fn percent_byte(escape: &[u8]) -> Option<u8> {
    match escape {
        [b'%', high, low, ..] => Some(hex_digit(*high)? << 4 | hex_digit(*low)?),
        _ => None,
    }
}

/// What an escape of one letter stands for, in JSON (RFC 8259 section 7) and GraphQL alike.
fn escaped(letter: u8) -> Option<u8> {
    Some(match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// The code unit of four hexadecimal digits at the front of `digits`.
fn hex_unit(digits: &[u8]) -> Option<u16> {
    let four = digits.get(..4)?;
    let mut unit = 0u16;
    for digit in four {
        unit = unit << 4 | u16::from(hex_digit(*digit)?);
    }
    Some(unit)
}

/// Joins a surrogate pair; `None` when `high` and `low` are none.
fn join_surrogates(high: u16, low: u16) -> Option<char> {
    let mut characters = char::decode_utf16([high, low]);
    let first = characters.next()?.ok()?;
    characters.next().is_none().then_some(first)
}

/// What C's `isspace` accepts.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// `bytes` without white space at its end.
fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !is_space(*byte));
    &bytes[..end.map_or(0, |last| last + 1)]
}

/// `bytes` without white space at its front.
fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_space(*byte));
    &bytes[start.unwrap_or(bytes.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_written_in_decimal() {
        let mut path = Vec::new();
        for index in [0, 9, 10, 1234567890] {
            push_index(&mut path, index);
        }
        assert_eq!(path, b".array_0.array_9.array_10.array_1234567890");
    }

    #[test]
    fn the_budget_ends_first_with_arguments_then_with_bytes() {
        let limits = BodyLimits {
            arguments: 2,
            ..BodyLimits::default()
        };
        let mut budget = Budget::new(&limits, 0);
        assert_eq!(budget.admit(b"a", &vec![0; 65_000]), Some(true));
        assert_eq!(budget.admit(b"a", &vec![0; 65_000]), None);
        assert_eq!(budget.admit(b"a", b"b"), Some(true));
        assert_eq!(budget.admit(b"a", b"b"), Some(false));
        assert!(budget.parsed.over_limit);
    }
}
