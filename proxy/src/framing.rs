//! Heads that two parsers could read in two ways, and are therefore not passed on.
//!
//! pingora's parser refuses control bytes, folded lines and spaces before colons. What it lets
//! pass, because it can make sense of it by itself, is refused here: the next parser may make
//! other sense of it, which is what request smuggling lives on.

use memchr::memchr;

/// Whether the raw head of an HTTP/1 request can be read in one way only (RFC 9112 §2.2, §6).
///
/// Each line ends in CR LF; the request line has three parts, and single spaces between them;
/// the body's length is said once, and in one way: `Content-Length` in digits, or
/// `Transfer-Encoding: chunked`. One pass over `head`, no allocation.
pub(crate) fn is_unambiguous(head: &[u8]) -> bool {
    let mut lines = lines(head);
    // RFC 9112 §2.2: empty lines before the request line are ignored.
    let Some(first) = lines.find(|line| *line != b"\r\n") else {
        return false;
    };
    let mut body = BodyLength::default();
    first.strip_suffix(b"\r\n").is_some_and(is_request_line)
        && lines.all(|line| {
            line.strip_suffix(b"\r\n")
                .is_some_and(|line| body.note(line))
        })
}

/// The lines of `head` with their ends, and what follows the last of them.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        rest = after;
        (!line.is_empty()).then_some(line)
    })
}

/// What the fields so far say of the body's length.
#[derive(Default)]
struct BodyLength {
    is_said: bool,
}

impl BodyLength {
    /// Takes note of one field line; false when it is one too many, or not understood.
    fn note(&mut self, line: &[u8]) -> bool {
        // All but a few lines are done with after one byte.
        if !matches!(line.first(), Some(b'c' | b'C' | b't' | b'T')) {
            return true;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_sound = if name.eq_ignore_ascii_case(b"content-length") {
            !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit)
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            value.eq_ignore_ascii_case(b"chunked")
        } else {
            return true;
        };
        is_sound && !std::mem::replace(&mut self.is_said, true)
    }
}

fn is_request_line(line: &[u8]) -> bool {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    // RFC 9112 §3.2: a target has no fragment; who takes one for a part of the path and who cuts
    // it off see different paths.
    let is_visible = |target: &[u8]| {
        let is_wanted = |byte: &u8| *byte > b' ' && *byte != 0x7f && *byte != b'#';
        !target.is_empty() && target.iter().all(is_wanted)
    };
    method.is_some_and(|method| method.iter().all(u8::is_ascii_graphic))
        && target.is_some_and(is_visible)
        && matches!(version, Some(b"HTTP/1.1" | b"HTTP/1.0"))
        && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_heads_are_unambiguous() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /\u{e9} HTTP/1.0\r\nCONTENT-LENGTH:\t12 \r\nCookie: x\r\nTE: trailers\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n",
        ] {
            assert!(is_unambiguous(head.as_bytes()), "{head:?}");
        }
    }

    #[test]
    fn others_are_not() {
        for head in [
            "",
            "\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1 \r\n\r\n",
            "GET /\t HTTP/1.1\r\n\r\n",
            "GET /public#/../secret HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        ] {
            assert!(!is_unambiguous(head.as_bytes()), "{head:?}");
        }
    }

    /// No prefix of a head, and no head with a byte changed, makes it panic.
    #[test]
    fn any_bytes_are_taken() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for end in 0..head.len() {
            is_unambiguous(&head[..end]);
            let mut changed = *head;
            for byte in [0, b'\r', b'\n', b':', b' ', 0xff] {
                changed[end] = byte;
                is_unambiguous(&changed);
            }
        }
    }
}
