//! `removeComments`, `removeCommentsChar`, `replaceComments`: those of C, SQL and HTML.

use memchr::{memchr, memchr3, memmem};

use super::scan;

/// Takes out `/* */` and `<!-- -->`, and all that follows `--` or `#`.
///
/// As in ModSecurity, a comment that is not closed becomes a space, and the byte after a closed one is
/// kept unseen: `/**//**/` leaves `/**/`, and a comment that ends the value leaves a NUL byte.
pub(super) fn remove(value: &[u8], out: &mut Vec<u8>) -> bool {
    if next_mark(value).is_none() {
        return false;
    }
    let mut at = 0;
    while let Some(offset) = value.get(at..).and_then(next_mark) {
        out.extend_from_slice(&value[at..at + offset]);
        at += offset;
        let rest = &value[at..];
        let opening = match rest {
            [b'/', b'*', ..] => 2,
            [b'<', b'!', b'-', b'-', ..] => 4,
            [b'-', b'-', ..] | [b'#', ..] => return true,
            _ => {
                out.push(rest[0]);
                at += 1;
                continue;
            }
        };
        let Some(length) = comment_end(&rest[opening..]) else {
            out.push(b' ');
            return true;
        };
        at += opening + length;
        out.push(value.get(at).copied().unwrap_or(0));
        at += 1;
    }
    out.extend_from_slice(value.get(at..).unwrap_or_default());
    out != value
}

/// Where a comment may begin.
fn next_mark(rest: &[u8]) -> Option<usize> {
    let end = memchr(b'#', rest).unwrap_or(rest.len());
    let mark = memchr3(b'/', b'<', b'-', &rest[..end]).unwrap_or(end);
    (mark < rest.len()).then_some(mark)
}

/// How many bytes lead past the first `*/` or `-->`.
fn comment_end(rest: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'*', b'-', &rest[from..])?;
        if rest[at..].starts_with(b"*/") {
            return Some(at + 2);
        }
        if rest[at..].starts_with(b"-->") {
            return Some(at + 3);
        }
        from = at + 1;
    }
}

/// Takes out the marks alone: `/*`, `*/`, `<!--`, `-->`, `--`, `#`.
pub(super) fn remove_marks(value: &[u8], out: &mut Vec<u8>) -> bool {
    let begins = |byte, next| match byte {
        b'#' => true,
        b'/' => next == b'*',
        b'*' => next == b'/',
        b'-' => next == b'-',
        b'<' => next == b'!',
        _ => false,
    };
    let Some(mut at) = scan::position_of_pair(value, begins) else {
        return false;
    };
    out.extend_from_slice(&value[..at]);
    while let Some(&byte) = value.get(at) {
        let mark = match byte {
            b'/' | b'*' | b'<' | b'-' | b'#' => mark_length(&value[at..]),
            _ => 0,
        };
        if mark == 0 {
            out.push(byte);
        }
        at += mark.max(1);
    }
    out.len() != value.len()
}

fn mark_length(rest: &[u8]) -> usize {
    const MARKS: [&[u8]; 6] = [b"/*", b"*/", b"<!--", b"-->", b"--", b"#"];
    MARKS
        .iter()
        .find(|mark| rest.starts_with(mark))
        .map_or(0, |mark| mark.len())
}

/// Each `/* */` becomes a space, and so does one that is not closed with all that follows it.
pub(super) fn replace(value: &[u8], out: &mut Vec<u8>) -> bool {
    let opens = |rest| scan::position_of_pair(rest, |byte, next| byte == b'/' && next == b'*');
    let Some(mut start) = opens(value) else {
        return false;
    };
    let mut rest = value;
    loop {
        out.extend_from_slice(&rest[..start]);
        out.push(b' ');
        let inside = &rest[start + 2..];
        let end = memmem::find(inside, b"*/").map_or(inside.len(), |end| end + 2);
        rest = &inside[end..];
        match opens(rest) {
            Some(next) => start = next,
            None => break,
        }
    }
    out.extend_from_slice(rest);
    true
}
