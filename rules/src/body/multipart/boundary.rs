//! The boundary: found in the Content-Type, recognised in the body.

use memchr::memmem;

use super::super::{is_space, trim_start};
use super::Flags;

/// A Content-Type longer than this is refused, as by ModSecurity. Bytes.
const CONTENT_TYPE_BYTES: usize = 1024;
const MEDIA_TYPE: &[u8] = b"multipart/form-data";
const PARAMETER: &[u8] = b"boundary";

/// Two dashes and the boundary (RFC 2046, section 5.1.1), and whether it was quoted. More than
/// the 70 characters of the RFC are let pass, as by ModSecurity.
pub(super) struct Boundary {
    delimiter: memmem::Finder<'static>,
    quoted: bool,
}

impl Boundary {
    /// Reads it from `content_type`, as strictly as ModSecurity v3: it is the first parameter,
    /// its name is in lower case, and quotes go around all that follows or nowhere.
    pub(super) fn new(content_type: &[u8], flags: &mut Flags) -> Result<Self, &'static str> {
        if content_type.len() > CONTENT_TYPE_BYTES {
            return Err("the Content-Type is too long");
        }
        let parameters = match content_type.split_at_checked(MEDIA_TYPE.len()) {
            Some((media_type, rest)) if media_type.eq_ignore_ascii_case(MEDIA_TYPE) => rest,
            _ => return Err("the media type is not multipart/form-data"),
        };
        let value = parameter(parameters, flags)?;
        flags.boundary_whitespace |= value.first().is_some_and(|byte| is_space(*byte));
        let (value, quoted) = unquoted(value)?;
        flags.boundary_quoted = quoted;
        let value = match memchr::memchr(b';', value) {
            Some(_) if quoted => return Err("a semicolon in the boundary"),
            Some(at) => &value[..at],
            None => value,
        };
        if value.is_empty() {
            return Err("the boundary is empty");
        }
        if value.last() == Some(&b' ') || !value.iter().all(|byte| is_boundary(*byte)) {
            return Err("the boundary has a character that none may have");
        }
        let delimiter = memmem::Finder::new(&[b"--", value].concat()).into_owned();
        Ok(Self { delimiter, quoted })
    }

    /// What follows two dashes and the boundary at the front of `line`.
    pub(super) fn strip<'b>(&self, line: &'b [u8]) -> Option<&'b [u8]> {
        line.strip_prefix(self.delimiter.needle())
    }

    /// Whether `stretch` holds the boundary, where it is no line's start.
    pub(super) fn inside(&self, stretch: &[u8]) -> bool {
        self.delimiter.find(stretch).is_some()
    }

    /// How a line with two dashes at its front tries to pass for the boundary.
    pub(super) fn imitated(&self, line: &[u8]) -> Option<&'static str> {
        let value = &self.delimiter.needle()[2..];
        let after = &line[2..];
        if self.quoted
            && after
                .strip_prefix(b"\"")
                .is_some_and(|rest| rest.starts_with(value))
        {
            return Some("a boundary in quotes");
        }
        // White space within the line; a run of blank lines is not walked again and again.
        let space = after
            .iter()
            .take(64)
            .take_while(|byte| is_space(**byte))
            .count();
        (space > 0 && after[space..].starts_with(value)).then_some("white space before a boundary")
    }
}

/// The value of the parameter `boundary`, and all that follows.
fn parameter<'c>(parameters: &'c [u8], flags: &mut Flags) -> Result<&'c [u8], &'static str> {
    let named = count(parameters);
    if named > 1 {
        return Err("more than one boundary in the Content-Type");
    }
    let Some(at) = memmem::find(parameters, PARAMETER) else {
        return Err(match named {
            0 => "no boundary in the Content-Type",
            _ => "upper case in the name of the boundary",
        });
    };
    let (before, from) = (&parameters[..at], &parameters[at + PARAMETER.len()..]);
    match trim_start(before) {
        [] => flags.missing_semicolon = true,
        [b';', rest @ ..] if trim_start(rest).is_empty() => {}
        _ => return Err("something stands before the boundary in the Content-Type"),
    }
    let equals = memchr::memchr(b'=', from).ok_or("the boundary has no value")?;
    if !trim_start(&from[..equals]).is_empty() {
        return Err("another parameter's name starts with boundary");
    }
    flags.boundary_whitespace |= equals > 0;
    Ok(&from[equals + 1..])
}

/// How many times something named boundary is given a value, in any case.
fn count(parameters: &[u8]) -> usize {
    let Some(last) = memchr::memrchr(b'=', parameters) else {
        return 0;
    };
    let named = |window: &[u8]| window.eq_ignore_ascii_case(PARAMETER);
    let windows = parameters[..last].windows(PARAMETER.len());
    windows.filter(|window| named(window)).count()
}

fn unquoted(value: &[u8]) -> Result<(&[u8], bool), &'static str> {
    match value {
        [b'"', inside @ .., b'"'] => Ok((inside, true)),
        [b'"', ..] | [.., b'"'] => Err("a quote in the boundary"),
        _ => Ok((value, false)),
    }
}

/// RFC 2046's `bchars`.
fn is_boundary(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The delimiter, or the error; and quoted, white space, missing semicolon.
    fn read(rest: &str) -> (Result<String, &'static str>, [bool; 3]) {
        let mut flags = Flags::default();
        let content_type = format!("Multipart/Form-Data{rest}");
        let boundary = Boundary::new(content_type.as_bytes(), &mut flags);
        let text = |b: Boundary| String::from_utf8_lossy(b.delimiter.needle()).into_owned();
        let seen = [
            flags.boundary_quoted,
            flags.boundary_whitespace,
            flags.missing_semicolon,
        ];
        (boundary.map(text), seen)
    }

    /// Accepted, refused and flagged as by libmodsecurity 3.0.9, save an empty boundary, which
    /// it refuses without saying so.
    #[test]
    fn what_is_accepted() {
        let accepted = [
            ("; boundary=XX", "--XX", [false; 3]),
            ("; boundary=XX; charset=utf-8", "--XX", [false; 3]),
            ("; boundary=XX;;", "--XX", [false; 3]),
            ("; boundary='X:=?'", "--'X:=?'", [false; 3]),
            ("; boundary=\"X X\"", "--X X", [true, false, false]),
            ("; boundary =XX", "--XX", [false, true, false]),
            ("; boundary= XX", "-- XX", [false, true, false]),
            (" boundary=XX", "--XX", [false, false, true]),
            ("; boundary=boundary", "--boundary", [false; 3]),
        ];
        for (rest, want, flags) in accepted {
            assert_eq!(read(rest), (Ok(want.to_owned()), flags), "{rest}");
        }
    }

    #[test]
    fn what_is_refused() {
        let refused = [
            "",
            "; boundary",
            "; boundary=",
            "; boundary=\"\"",
            "; boundary=\"XX",
            "; boundary=\"XX\"; charset=utf-8",
            "; boundary=\"X;X\"",
            "; boundary=XX ; charset=utf-8",
            "; boundary=XX; boundary=YY",
            "; boundary=XX; BOUNDARYx=YY",
            "; Boundary=XX",
            "; boundaryX=XX",
            "; xboundary=XX",
            "; charset=utf-8; boundary=XX",
            "; boundary=X%X",
            "; boundary=X\tX",
        ];
        for rest in refused {
            assert!(read(rest).0.is_err(), "{rest}");
        }
        let long = format!("; boundary={}", "X".repeat(1024));
        assert!(read(&long).0.is_err());
    }
}
