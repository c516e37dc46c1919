//! The character encoding of a document, brought to UTF-8 (XML 1.0, appendix F).

use std::borrow::Cow;

/// What is wrong, and where in the body.
type Fault = Option<(&'static str, usize)>;

/// How far into a body an XML declaration is looked for. Bytes.
const DECLARATION_BYTES: usize = 256;

/// The text up to the first byte that no document may hold, and that fault.
pub(super) fn decode(body: &[u8]) -> (Cow<'_, str>, Fault) {
    if body.len() >= u32::MAX as usize / 4 {
        return (Cow::Borrowed(""), Some(("longer than 1 GiB", 0)));
    }
    let (text, fault) = match body {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, b'<', ..] => {
            (Cow::Borrowed(""), Some(("UTF-32", 0)))
        }
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [b'<', 0, ..] => utf16(body, u16::from_le_bytes),
        [0, b'<', ..] => utf16(body, u16::from_be_bytes),
        _ => ascii_kin(body),
    };
    match control(text.as_bytes()) {
        Some(at) => (cut(text, at), Some(("a control character", at))),
        None => (text, fault),
    }
}

/// Encodings of which ASCII is a part, as the declaration says.
fn ascii_kin(body: &[u8]) -> (Cow<'_, str>, Fault) {
    let name = match declared(body) {
        Ok(None) => return utf8(body),
        Ok(Some(name)) => name.to_ascii_lowercase(),
        Err(what) => return (utf8(body).0, Some((what, 0))),
    };
    match name.as_slice() {
        b"utf-8" | b"utf8" | b"us-ascii" | b"ascii" => utf8(body),
        // They differ from Latin-1 in a few letters, which rules do not look for.
        b"iso-8859-1" | b"latin1" | b"iso-8859-15" | b"windows-1252" => {
            let text = body.iter().map(|byte| char::from(*byte)).collect();
            (Cow::Owned(text), None)
        }
        _ => (utf8(body).0, Some(("an encoding that is not supported", 0))),
    }
}

/// The encoding that `<?xml version="..." encoding="..."?>` names (section 2.8, strictly: a
/// declaration that backends read otherwise would be another document).
fn declared(body: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let head = &body[..body.len().min(DECLARATION_BYTES)];
    let Some(head) = head.strip_prefix(b"<?xml") else {
        return Ok(None);
    };
    if !head.first().is_some_and(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    read_declaration(head).ok_or("a malformed XML declaration")
}

/// `None` when it is malformed, `Some(None)` when it names no encoding.
fn read_declaration(head: &[u8]) -> Option<Option<&[u8]>> {
    let (_, mut rest) = pseudo_attribute(head, b"version")?;
    let mut name = None;
    if let Some((value, after)) = pseudo_attribute(rest, b"encoding") {
        name = Some(value);
        rest = after;
    }
    if let Some((_, after)) = pseudo_attribute(rest, b"standalone") {
        rest = after;
    }
    rest.trim_ascii_start().starts_with(b"?>").then_some(name)
}

/// The value of `key="value"` after white space, and what follows it.
fn pseudo_attribute<'h>(head: &'h [u8], key: &[u8]) -> Option<(&'h [u8], &'h [u8])> {
    let from = head.trim_ascii_start();
    let after = from.strip_prefix(key)?.trim_ascii_start();
    let value = after.strip_prefix(b"=")?.trim_ascii_start();
    let (quote, value) = value.split_first()?;
    let end = memchr::memchr(*quote, value)?;
    let spaced = from.len() < head.len();
    (spaced && b"\"'".contains(quote)).then_some((&value[..end], &value[end + 1..]))
}

fn utf8(body: &[u8]) -> (Cow<'_, str>, Fault) {
    match std::str::from_utf8(body) {
        Ok(text) => (Cow::Borrowed(text), None),
        Err(error) => {
            let at = error.valid_up_to();
            let text = std::str::from_utf8(&body[..at]).unwrap_or_default();
            (Cow::Borrowed(text), Some(("not UTF-8", at)))
        }
    }
}

fn utf16(body: &[u8], unit: impl Fn([u8; 2]) -> u16) -> (Cow<'_, str>, Fault) {
    let (pairs, odd) = body.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        match character {
            Ok(character) => text.push(character),
            Err(_) => {
                let at = text.len();
                return (Cow::Owned(text), Some(("not UTF-16", at)));
            }
        }
    }
    let at = body.len() - odd.len();
    let fault = (!odd.is_empty()).then_some(("half a character at the end", at));
    (Cow::Owned(text), fault)
}

/// The first control character other than tab and line ends.
fn control(text: &[u8]) -> Option<usize> {
    let forbidden = |byte: u8| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    // Folded without a branch for each byte, so that it is vectorised.
    let any = text
        .iter()
        .fold(false, |seen, byte| seen | forbidden(*byte));
    if any {
        text.iter().position(|byte| forbidden(*byte))
    } else {
        None
    }
}

fn cut(text: Cow<'_, str>, at: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..at]),
        Cow::Owned(mut text) => {
            text.truncate(at);
            Cow::Owned(text)
        }
    }
}
