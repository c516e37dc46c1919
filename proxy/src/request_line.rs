//! The request line as clients write it, and as pingora takes it.
//!
//! pingora's URI type refuses bytes that browsers and attackers send as they are, and its parser
//! answers what is no HTTP/1.0 or HTTP/1.1 before anybody else hears of it. Lines of that kind are
//! replaced before pingora reads them; rules are shown what the client has written.

use bytes::Bytes;
use tokio::io::ReadBuf;

/// What pingora reads in place of a line that is refused anyway: nothing of it goes to a backend,
/// and nothing follows it on its connection.
const STAND_IN: &[u8] = b"GET / HTTP/1.0\r\n";

/// A request line that pingora was not given as it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RequestLine {
    pub(crate) method: Vec<u8>,
    pub(crate) target: Vec<u8>,
    /// Empty where the line has none.
    pub(crate) version: Vec<u8>,
    /// The status that the request is answered with, once rules have seen it.
    pub(crate) refusal: Option<u16>,
}

/// Looks at the first line of each head on its way to pingora.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// The line as far as it has come, while it has no end.
    begun: Vec<u8>,
    /// What pingora had no room for.
    ready: Bytes,
    has_line: bool,
}

impl Intake {
    /// Another head is expected.
    pub(crate) fn rest(&mut self) {
        self.begun.clear();
        self.has_line = false;
    }

    /// Hands out what waits; false when nothing does.
    pub(crate) fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.ready.is_empty() {
            return false;
        }
        let count = self.ready.len().min(buf.remaining());
        buf.put_slice(&self.ready.split_to(count));
        true
    }

    /// Takes note of what was read into `buf` after its first `before` bytes, and replaces it where
    /// the line has to be. None: more has to be read before pingora may see any of it.
    pub(crate) fn pass(
        &mut self,
        buf: &mut ReadBuf<'_>,
        before: usize,
    ) -> Option<Option<RequestLine>> {
        if self.has_line {
            return Some(None);
        }
        if !self.begun.is_empty() {
            return self.go_on(buf, before);
        }
        let read = &buf.filled()[before..];
        // RFC 9112 §2.2: empty lines before a request line are ignored.
        let is_blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let start = read.iter().take_while(is_blank).count();
        let head = &read[start..];
        let Some(first) = head.first() else {
            return Some(None);
        };
        if let Some(end) = line_end(head) {
            self.has_line = true;
            let Some((line, ready)) = replace(head, end) else {
                return Some(None);
            };
            self.hand_over(ready, buf, before + start);
            return Some(Some(line));
        }
        // Other protocols' bytes are not waited for: they may have no end of a line.
        if !is_token(first) {
            self.has_line = true;
            return Some(None);
        }
        self.begun = head.to_vec();
        buf.set_filled(before + start);
        (start > 0).then_some(None)
    }

    /// The next piece of a line that has begun.
    fn go_on(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> Option<Option<RequestLine>> {
        let read = &buf.filled()[before..];
        let end = line_end(read).map(|end| self.begun.len() + end);
        let is_over = end.is_some() || read.is_empty();
        self.begun.extend_from_slice(read);
        buf.set_filled(before);
        if !is_over {
            return None;
        }
        self.has_line = true;
        let head = std::mem::take(&mut self.begun);
        let replaced = end.and_then(|end| replace(&head, end));
        let (line, ready) = replaced.map_or((None, head), |(line, ready)| (Some(line), ready));
        self.hand_over(ready, buf, before);
        Some(line)
    }

    fn hand_over(&mut self, ready: Vec<u8>, buf: &mut ReadBuf<'_>, before: usize) {
        buf.set_filled(before);
        self.ready = ready.into();
        self.give(buf);
    }
}

/// Where the `\n` of the first line of `head` ends.
fn line_end(head: &[u8]) -> Option<usize> {
    Some(head.iter().position(|byte| *byte == b'\n')? + 1)
}

/// RFC 9110 §5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// What the line in the first `end` bytes of `head` says, and what pingora gets instead of `head`;
/// none when it can have the line as it is, be it to refuse it.
fn replace(head: &[u8], end: usize) -> Option<(RequestLine, Vec<u8>)> {
    let (line, rest) = head.split_at(end);
    let (method, after) = split_at_space(line.strip_suffix(b"\r\n")?)?;
    if method.is_empty() || !method.iter().all(is_token) {
        return None;
    }
    let (target, version) = match after.iter().rposition(|byte| *byte == b' ') {
        Some(at) if after[at + 1..].starts_with(b"HTTP/") => (&after[..at], &after[at + 1..]),
        _ => (after, &b""[..]),
    };
    let refusal = refusal(method, target, version);
    let ready = if refusal.is_some() {
        [STAND_IN, rest].concat()
    } else if target.iter().any(is_refused) {
        [method, b" ", &encoded(target), b" ", version, b"\r\n", rest].concat()
    } else {
        return None;
    };
    let line = RequestLine {
        method: method.to_vec(),
        target: target.to_vec(),
        version: version.to_vec(),
        refusal,
    };
    Some((line, ready))
}

fn split_at_space(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    Some((&line[..at], &line[at + 1..]))
}

/// Why the edge does not serve such a line.
fn refusal(method: &[u8], target: &[u8], version: &[u8]) -> Option<u16> {
    // RFC 9112 §3.2: a target has no fragment; who takes one for a part of the path and who cuts
    // it off see different paths.
    let is_stray = |byte: &u8| matches!(byte, 0..=b' ' | 0x7f | b'#');
    let is_served = matches!(version, b"HTTP/1.1" | b"HTTP/1.0");
    if target.is_empty() || target.iter().any(is_stray) || !is_served {
        return Some(400);
    }
    // RFC 9112 §3.2.3: the target of CONNECT is a host and a port.
    let has_port = || target.contains(&b':') && !target.contains(&b'/');
    (method == b"CONNECT").then(|| if has_port() { 405 } else { 400 })
}

/// What is no URI to pingora (the crate `http`), though it is to everybody else, in a path (`` ` ``),
/// in a query (`"`) or in both.
fn is_refused(byte: &u8) -> bool {
    matches!(byte, b'<' | b'>' | b'"' | b'`')
}

/// `target` with those bytes percent-encoded: the same to whoever decodes it.
fn encoded(target: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(target.len() + 64);
    for byte in target {
        if is_refused(byte) {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            encoded.push(*byte);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What pingora reads of `head` when it comes in pieces of `size` bytes and there is `room` for
    /// each, and what the line was.
    fn read(head: &[u8], size: usize, room: usize) -> (String, Option<RequestLine>) {
        let (mut intake, mut out, mut line) = (Intake::default(), Vec::new(), None);
        for piece in head.chunks(size).chain([&b""[..]]) {
            let mut memory = vec![0; piece.len().max(room)];
            let mut buf = ReadBuf::new(&mut memory);
            buf.put_slice(piece);
            if let Some(found) = intake.pass(&mut buf, 0) {
                line = line.or(found);
                out.extend_from_slice(buf.filled());
            }
            loop {
                let mut memory = vec![0; room];
                let mut buf = ReadBuf::new(&mut memory);
                if !intake.give(&mut buf) {
                    break;
                }
                out.extend_from_slice(buf.filled());
            }
        }
        (String::from_utf8_lossy(&out).into_owned(), line)
    }

    /// However a head comes, pingora reads the same.
    fn whole(head: &str) -> (String, Option<RequestLine>) {
        let all = read(head.as_bytes(), 1000, 1000);
        for (size, room) in [(1, 1), (3, 1000), (7, 2), (1000, 1)] {
            assert_eq!(read(head.as_bytes(), size, room), all, "{head:?}");
        }
        all
    }

    #[test]
    fn ordinary_lines_pass_as_they_are() {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET /a?b=%3C&c={|}^'\\ HTTP/1.0\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nX: <>\"`\r\n\r\n<body>",
            "GET\t/ HTTP/1.1\r\n\r\n",
            "GET /<> HTTP/1.1\n\n",
            "\x16\x03\x01 <nonsense>",
            "GET /unfinished<",
        ] {
            assert_eq!(whole(head), (head.to_owned(), None));
        }
    }

    #[test]
    fn what_is_no_uri_to_pingora_is_encoded() {
        let (out, line) = whole("GET /`?a=<b>&c=\"%22\" HTTP/1.1\r\nHost: <a>\r\n\r\n\"");
        assert_eq!(
            out,
            "GET /%60?a=%3Cb%3E&c=%22%22%22 HTTP/1.1\r\nHost: <a>\r\n\r\n\""
        );
        let line = line.expect("a line");
        assert_eq!(line.target, b"/`?a=<b>&c=\"%22\"");
        assert_eq!(
            (&line.method[..], &line.version[..]),
            (&b"GET"[..], &b"HTTP/1.1"[..])
        );
        assert_eq!(line.refusal, None);
    }

    #[test]
    fn what_is_refused_has_a_stand_in() {
        for (text, status) in [
            ("CONNECT a:80 HTTP/1.1", 405),
            ("CONNECT a HTTP/1.1", 400),
            ("GET / HTTP/3.0", 400),
            ("GET / HTTP/1.2", 400),
            ("PRI * HTTP/2.0", 400),
            ("GET /", 400),
            ("GET ", 400),
            ("GET  / HTTP/1.1", 400),
            ("GET / HTTP/1.1 ", 400),
            ("GET /a b HTTP/1.1", 400),
            ("GET /a\tb HTTP/1.1", 400),
            ("GET /a#b HTTP/1.1", 400),
        ] {
            let (out, line) = whole(&format!("{text}\r\nHost: a\r\n\r\n"));
            assert_eq!(out, "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "{text}");
            let line = line.expect("a line");
            assert_eq!(line.refusal, Some(status), "{text}");
            let said = [&line.method, &b" "[..], &line.target].concat();
            assert!(text.as_bytes().starts_with(&said), "{text}");
        }
    }

    #[test]
    fn each_head_is_looked_at() {
        let mut intake = Intake::default();
        for _ in 0..2 {
            let mut memory = [0; 100];
            let mut buf = ReadBuf::new(&mut memory);
            buf.put_slice(b"GET /< HTTP/1.1\r\n\r\n");
            assert!(intake.pass(&mut buf, 0).flatten().is_some());
            assert_eq!(buf.filled(), b"GET /%3C HTTP/1.1\r\n\r\n");
            buf.put_slice(b"GET /< HTTP/1.1\r\n\r\n");
            let before = buf.filled().len() - 19;
            assert_eq!(
                intake.pass(&mut buf, before),
                Some(None),
                "no line of this head"
            );
            intake.rest();
        }
    }
}
