//! The `Cookie` header: Netscape's format, which everybody sends, and RFC 2109's.
//!
//! `SecCookieFormat 0` and `1`. Both keep what they find as it is: no percent decoding.

use super::{Parsed, trim_end, trim_start};

/// Netscape's format (version 0) as ModSecurity v3 reads it: `;` ends a cookie, the first `=` a
/// name; white space before a name is dropped, and so is a cookie without a name; everything
/// else, quotes among it, belongs to name and value. White space after the last cookie is dropped.
pub fn netscape<'h>(
    header: &'h [u8],
    limit: usize,
    mut found: impl FnMut(&'h [u8], &'h [u8]),
) -> Parsed {
    let mut parsed = Parsed::default();
    let mut rest = Some(header);
    while let Some(from) = rest {
        let (cookie, after) = split(from, memchr::memchr(b';', from));
        rest = after;
        let cookie = if after.is_none() {
            trim_end(cookie)
        } else {
            cookie
        };
        let (name, value) = split(cookie, memchr::memchr(b'=', cookie));
        let name = trim_start(name);
        if name.is_empty() {
            continue;
        }
        if parsed.arguments >= limit {
            parsed.over_limit = true;
            break;
        }
        parsed.arguments += 1;
        found(name, value.unwrap_or_default());
    }
    parsed
}

/// RFC 2109's format (version 1), as ModSecurity v2 reads it under `SecCookieFormat 1` (v3 has
/// only version 0): `;` and `,` end a cookie, a value in double quotes may hold both and loses
/// the quotes, and `$Path`, `$Domain` and `$Port` belong to the cookie before them, as
/// `$<cookie>_Path`.
pub fn version1(header: &[u8], limit: usize, mut found: impl FnMut(&[u8], &[u8])) -> Parsed {
    let mut parsed = Parsed::default();
    let mut before: &[u8] = b"";
    let mut attribute = Vec::new();
    let mut rest = header;
    while !rest.is_empty() {
        let (name, value, after) = version1_pair(rest);
        rest = after;
        if name.is_empty() {
            continue;
        }
        if parsed.arguments >= limit {
            parsed.over_limit = true;
            break;
        }
        parsed.arguments += 1;
        if name[0] == b'$' && !before.is_empty() {
            attribute.clear();
            attribute.push(b'$');
            // Cut, so that a long name before many attributes is not written out for each.
            attribute.extend_from_slice(&before[..before.len().min(64)]);
            attribute.push(b'_');
            attribute.extend_from_slice(&name[1..]);
            found(&attribute, value);
        } else {
            before = if name[0] == b'$' { before } else { name };
            found(name, value);
        }
    }
    parsed
}

/// Name, value and what follows the pair's separator.
fn version1_pair(from: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let stop = memchr::memchr3(b'=', b';', b',', from);
    let name = |bytes| trim_end(trim_start(bytes));
    let Some(at) = stop else {
        return (name(from), b"", b"");
    };
    if from[at] != b'=' {
        return (name(&from[..at]), b"", &from[at + 1..]);
    }
    let value = trim_start(&from[at + 1..]);
    if let [b'"', quoted @ ..] = value {
        let close = closing_quote(quoted);
        let (_, after) = split(quoted, close);
        let after = after.unwrap_or_default();
        let (_, next) = split(after, memchr::memchr2(b';', b',', after));
        let inside = &quoted[..close.unwrap_or(quoted.len())];
        return (name(&from[..at]), inside, next.unwrap_or_default());
    }
    let (value, next) = split(value, memchr::memchr2(b';', b',', value));
    (name(&from[..at]), trim_end(value), next.unwrap_or_default())
}

/// The `"` that no backslash escapes.
fn closing_quote(quoted: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', quoted.get(from..)?)?;
        if quoted[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// What stands before and after the byte at `at`; all and `None` when there is none.
fn split(bytes: &[u8], at: Option<usize>) -> (&[u8], Option<&[u8]>) {
    match at {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = Vec<(String, String)>;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn version0_pairs(header: &str) -> Pairs {
        let mut found = Vec::new();
        netscape(header.as_bytes(), 1000, |n, v| {
            found.push((text(n), text(v)))
        });
        found
    }

    fn version1_pairs(header: &str) -> Pairs {
        let mut found = Vec::new();
        version1(header.as_bytes(), 1000, |n, v| {
            found.push((text(n), text(v)))
        });
        found
    }

    fn own(pairs: &[(&str, &str)]) -> Pairs {
        pairs
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect()
    }

    /// Values read from libmodsecurity 3.0.9 for the same headers.
    #[test]
    fn netscape_cookies_are_those_of_modsecurity() {
        let cases: [(&str, &[(&str, &str)]); 7] = [
            (
                "a=1; b=2;c = 3 ;=x; d; e=;  f=g=h  ; a=4;;",
                &[
                    ("a", "1"),
                    ("b", "2"),
                    ("c ", " 3 "),
                    ("d", ""),
                    ("e", ""),
                    ("f", "g=h  "),
                    ("a", "4"),
                ],
            ),
            ("a=\"x;y\"", &[("a", "\"x"), ("y\"", "")]),
            ("a=%41+b; c=\"q\"", &[("a", "%41+b"), ("c", "\"q\"")]),
            ("a=1,b=2", &[("a", "1,b=2")]),
            ("  ", &[]),
            ("a=1 ; ", &[("a", "1 ")]),
            ("a==b ", &[("a", "=b")]),
        ];
        for (header, want) in cases {
            assert_eq!(version0_pairs(header), own(want), "{header}");
        }
    }

    #[test]
    fn version_one_knows_quotes_and_attributes() {
        let header = "$Version=1; a=\"x;\\\"y\" junk; $Path=\"/\", b = 2 ;;c";
        let want = [
            ("$Version", "1"),
            ("a", "x;\\\"y"),
            ("$a_Path", "/"),
            ("b", "2"),
            ("c", ""),
        ];
        assert_eq!(version1_pairs(header), own(&want));
        assert_eq!(version1_pairs("a=\"open\\"), own(&[("a", "open\\")]));
    }

    #[test]
    fn cookies_beyond_the_limit_are_counted_out() {
        let mut count = 0;
        let parsed = netscape(b"a;b;c", 2, |_, _| count += 1);
        assert!(parsed.over_limit && count == 2);
    }
}
