//! The request target (RFC 9112, section 3.2), and what SecLang's variables show of it.
//!
//! As ModSecurity v3, save where that hides something from rules:
//!
//! - the query starts at the first `?` as sent; libmodsecurity 3.0.9 decodes first, so that
//!   everything after `%3f` is missing from REQUEST_FILENAME (CVE-2024-1019);
//! - of a target in absolute form, scheme and authority are cut from REQUEST_FILENAME too, as by
//!   Apache, so that `http://host/admin` cannot step around a rule about `/admin`;
//! - `#` is a byte like others: backends disagree on it, and none is sent it by a browser.

use std::borrow::Cow;

use super::percent_byte;

/// A request target, split but not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'t> {
    raw: &'t [u8],
    path: &'t [u8],
    query: Option<&'t [u8]>,
}

impl<'t> Target<'t> {
    /// Splits the target as it stands in the request line (or in `:path`). Never fails: what is
    /// no URI is a path.
    #[must_use]
    pub fn new(raw: &'t [u8]) -> Self {
        let (before, query) = match memchr::memchr(b'?', raw) {
            Some(at) => (&raw[..at], Some(&raw[at + 1..])),
            None => (raw, None),
        };
        let path = match authority(before) {
            Some(start) => match memchr::memchr(b'/', &before[start..]) {
                Some(slash) => &before[start + slash..],
                None => b"/",
            },
            None => before,
        };
        Self { raw, path, query }
    }

    /// REQUEST_URI_RAW: all of it, as sent.
    #[must_use]
    pub fn raw(&self) -> &'t [u8] {
        self.raw
    }

    /// The path as sent, without scheme and authority.
    #[must_use]
    pub fn raw_path(&self) -> &'t [u8] {
        self.path
    }

    /// QUERY_STRING: as sent, without the `?`; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &'t [u8] {
        self.query.unwrap_or_default()
    }

    /// Path and query as sent, without scheme and authority: what Apache's ModSecurity gives for
    /// REQUEST_URI.
    #[must_use]
    pub fn raw_uri(&self) -> Cow<'t, [u8]> {
        match self.query {
            None => Cow::Borrowed(self.path),
            Some(query) => {
                let length = self.path.len() + 1 + query.len();
                match self.raw.get(self.raw.len().saturating_sub(length)..) {
                    Some(uri) if uri.starts_with(self.path) => Cow::Borrowed(uri),
                    _ => Cow::Owned([self.path, b"?", query].concat()),
                }
            }
        }
    }

    /// REQUEST_URI: path and query, percent-decoded once.
    #[must_use]
    pub fn uri(&self) -> Cow<'t, [u8]> {
        match self.raw_uri() {
            Cow::Borrowed(uri) => decoded(uri),
            Cow::Owned(uri) => Cow::Owned(decoded(&uri).into_owned()),
        }
    }

    /// REQUEST_FILENAME, and PATH_INFO, which is the same in v3: the path, percent-decoded once.
    #[must_use]
    pub fn filename(&self) -> Cow<'t, [u8]> {
        decoded(self.path)
    }

    /// REQUEST_BASENAME of a [`Target::filename`]: what follows its last `/` or `\`. `None`, as
    /// in v3, when nothing does or when there is neither.
    #[must_use]
    pub fn basename(filename: &[u8]) -> Option<&[u8]> {
        let after = memchr::memrchr2(b'/', b'\\', filename)? + 1;
        (after < filename.len()).then(|| &filename[after..])
    }
}

/// Where the authority starts, when `target` begins with a scheme and `://`.
fn authority(target: &[u8]) -> Option<usize> {
    let colon = memchr::memchr2(b':', b'/', target)?;
    let scheme = &target[..colon];
    let named = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    (named && target[colon..].starts_with(b"://")).then_some(colon + 3)
}

/// Percent-decoded once; an invalid escape stays, and so does `+`.
fn decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'%', raw) else {
        return Cow::Borrowed(raw);
    };
    let mut out = Vec::with_capacity(raw.len());
    out.extend_from_slice(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some(byte) = rest.first() {
        let (decoded, length) = percent_byte(rest).map_or((*byte, 1), |decoded| (decoded, 3));
        out.push(decoded);
        rest = &rest[length..];
        let plain = memchr::memchr(b'%', rest).unwrap_or(rest.len());
        out.extend_from_slice(&rest[..plain]);
        rest = &rest[plain..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(raw: &str) -> [String; 4] {
        let target = Target::new(raw.as_bytes());
        assert_eq!(target.raw(), raw.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let filename = target.filename();
        let basename = Target::basename(&filename).map_or("-".to_owned(), text);
        [
            text(&target.uri()),
            text(&filename),
            basename,
            text(target.query()),
        ]
    }

    /// Values read from libmodsecurity 3.0.9 for the same targets.
    #[test]
    fn variables_are_those_of_modsecurity() {
        let cases = [
            (
                "/a%20b/c%2Fd.php/info?x=%41&y=1+2",
                [
                    "/a b/c/d.php/info?x=A&y=1+2",
                    "/a b/c/d.php/info",
                    "info",
                    "x=%41&y=1+2",
                ],
            ),
            ("*", ["*", "*", "-", ""]),
            ("h.x:443", ["h.x:443", "h.x:443", "-", ""]),
            ("/a+b", ["/a+b", "/a+b", "a+b", ""]),
            ("/%zz%4", ["/%zz%4", "/%zz%4", "%zz%4", ""]),
            ("/a\\b?x", ["/a\\b?x", "/a\\b", "b", "x"]),
            ("/a/?", ["/a/?", "/a/", "-", ""]),
            ("//evil/p?x", ["//evil/p?x", "//evil/p", "p", "x"]),
            ("/a%00b?c=%00d", ["/a\0b?c=\0d", "/a\0b", "a\0b", "c=%00d"]),
            ("", ["", "", "-", ""]),
        ];
        for (raw, want) in cases {
            assert_eq!(shown(raw), want, "{raw}");
        }
    }

    #[test]
    fn scheme_and_authority_are_cut() {
        let cases = [
            ("http://h.x/p%41/q?z", ["/pA/q?z", "/pA/q", "q", "z"]),
            ("http://h.x?z=1/2", ["/?z=1/2", "/", "-", "z=1/2"]),
            ("http://h.x", ["/", "/", "-", ""]),
            (
                "x+y://h/%2f/a?b=http://c/d",
                ["///a?b=http://c/d", "///a", "a", "b=http://c/d"],
            ),
            ("a?x://b/c", ["a?x://b/c", "a", "-", "x://b/c"]),
            ("/x://b/c", ["/x://b/c", "/x://b/c", "c", ""]),
            ("://b/c", ["://b/c", "://b/c", "c", ""]),
        ];
        for (raw, want) in cases {
            assert_eq!(shown(raw), want, "{raw}");
        }
    }

    #[test]
    fn an_encoded_question_mark_does_not_end_the_path() {
        assert_eq!(shown("/a%3fb/c?d")[1], "/a?b/c");
        assert_eq!(shown("/a#b?c#d"), ["/a#b?c#d", "/a#b", "a#b", "c#d"]);
    }
}
