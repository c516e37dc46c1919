//! A web server as far as rules can tell: reads HTTP/1 as strictly as Apache httpd does by
//! default (`HttpProtocolOptions Strict`), because tests count on what never reaches the rules.

/// A request that the server accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Vec<u8>,
    /// The target, as sent.
    pub target: Vec<u8>,
    /// `HTTP/1.1`; empty for a request of HTTP/0.9.
    pub version: Vec<u8>,
    /// Header lines.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

/// How a request is turned down before rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This status.
    Status(u16),
    /// The client waits in vain: the body does not come to an end.
    Silence,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// What Apache httpd would answer itself.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let (line, rest) = line(bytes)?;
        let (method, target, version) = request_line(line)?;
        let (headers, body) = if version.is_empty() {
            (Vec::new(), &bytes[..0])
        } else {
            header_lines(rest)?
        };
        let mut request = Self {
            method: method.into(),
            target: target.into(),
            version: version.into(),
            headers,
            body: Vec::new(),
        };
        request.check_host()?;
        if request.header("transfer-encoding").is_some() {
            // RFC 9112, section 6.3: a length beside a transfer coding is not passed on.
            request
                .headers
                .retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-length"));
        }
        request.body = request.read_body(body)?;
        Ok(request)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| value.as_slice())
    }

    /// RFC 9112, section 3.2: HTTP/1.1 needs a `Host`, and it must be one.
    fn check_host(&self) -> Result<(), Refusal> {
        match self.header("host") {
            None if self.version == b"HTTP/1.1" => Err(Refusal::Status(400)),
            None => Ok(()),
            Some(host) => {
                let fine = |b: &u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(b);
                if !host.is_empty() && host.iter().all(fine) {
                    Ok(())
                } else {
                    Err(Refusal::Status(400))
                }
            }
        }
    }

    fn read_body(&self, rest: &[u8]) -> Result<Vec<u8>, Refusal> {
        if self
            .header("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        {
            return chunked(rest);
        }
        let Some(length) = self.header("content-length") else {
            return Ok(Vec::new());
        };
        let length = std::str::from_utf8(length)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let length: usize = length
            .and_then(|text| text.parse().ok())
            .ok_or(Refusal::Status(400))?;
        rest.get(..length)
            .map(<[u8]>::to_vec)
            .ok_or(Refusal::Silence)
    }
}

/// A line that ends with CRLF, and what follows it.
fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or(Refusal::Silence)?;
    match bytes[..end].strip_suffix(b"\r") {
        Some(line) => Ok((line, &bytes[end + 1..])),
        None => Err(Refusal::Status(400)),
    }
}

/// Method, target, version.
type RequestLine<'b> = (&'b [u8], &'b [u8], &'b [u8]);

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    const BAD: Refusal = Refusal::Status(400);
    let first = line.iter().position(|b| *b == b' ').ok_or(BAD)?;
    let (method, rest) = (&line[..first], &line[first + 1..]);
    if method.is_empty() || !method.iter().all(is_token) {
        return Err(BAD);
    }
    let last = rest.iter().rposition(|b| *b == b' ');
    let (target, version) = last.map_or((rest, &rest[..0]), |at| (&rest[..at], &rest[at + 1..]));
    if !version.is_empty() && !is_version(version) || !is_target(method, target) {
        return Err(BAD);
    }
    Ok((method, target, version))
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// `HTTP/` and two numbers; below 1.0 there are no header lines.
fn is_version(version: &[u8]) -> bool {
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => (b'1'..=b'9').contains(major) && minor.is_ascii_digit(),
        _ => false,
    }
}

fn is_target(method: &[u8], target: &[u8]) -> bool {
    let control = |b: &u8| b.is_ascii_control() || *b == b' ' || *b == b'#';
    if target.is_empty() || target.iter().any(control) {
        return false;
    }
    match method {
        b"CONNECT" => target.contains(&b':'),
        // Apache lets a target without a path come as far as the rules.
        _ => {
            target.starts_with(b"/")
                || target.starts_with(b"?")
                || target == b"*"
                || target.windows(3).any(|w| w == b"://")
        }
    }
}

type HeaderLines<'b> = (Vec<(Vec<u8>, Vec<u8>)>, &'b [u8]);

fn header_lines(mut rest: &[u8]) -> Result<HeaderLines<'_>, Refusal> {
    let mut headers: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    loop {
        let (text, after) = line(rest)?;
        rest = after;
        if text.is_empty() {
            return Ok((headers, rest));
        }
        if text.contains(&b'\r') || text.contains(&0) {
            return Err(Refusal::Status(400));
        }
        if let ([b' ' | b'\t', ..], Some((_, value))) = (text, headers.last_mut()) {
            // A folded line (RFC 9112, section 5.2).
            value.push(b' ');
            value.extend_from_slice(text.trim_ascii());
            continue;
        }
        let colon = text
            .iter()
            .position(|b| *b == b':')
            .ok_or(Refusal::Status(400))?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(is_token) {
            return Err(Refusal::Status(400));
        }
        headers.push((name.to_vec(), value.to_vec()));
    }
}

fn chunked(mut rest: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    loop {
        let (size, after) = line(rest)?;
        let size = size
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or(Refusal::Status(400))?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(after.get(..size).ok_or(Refusal::Silence)?);
        rest = after.get(size + 2..).ok_or(Refusal::Silence)?;
    }
}

impl Answer {
    /// What the server behind the rules answers: `/reflect` what the JSON body of the request asks
    /// for (`status`, `headers`, `body`), other paths a page.
    pub fn to(request: &Request) -> Self {
        let path = request
            .target
            .split(|b| *b == b'?')
            .next()
            .unwrap_or_default();
        let html = || vec![("Content-Type".to_owned(), "text/html".to_owned())];
        match path {
            _ if request.method == b"CONNECT" => Self {
                status: 405,
                headers: html(),
                body: Vec::new(),
            },
            b"/reflect" => Self::reflected(&request.body).unwrap_or(Self {
                status: 400,
                headers: html(),
                body: Vec::new(),
            }),
            b"/" | b"/post" | b"*" => Self {
                status: 200,
                headers: html(),
                body: b"<html><body>It works.</body></html>".to_vec(),
            },
            _ => Self {
                status: 404,
                headers: html(),
                body: b"<html><body>Not found.</body></html>".to_vec(),
            },
        }
    }

    fn reflected(body: &[u8]) -> Option<Self> {
        let wanted: serde_json::Value = serde_json::from_slice(body).ok()?;
        let status = wanted
            .get("status")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(200);
        let headers = wanted
            .get("headers")
            .and_then(serde_json::Value::as_object)
            .into_iter()
            .flatten();
        let headers = headers
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        let body = wanted
            .get("body")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        Some(Self {
            status: u16::try_from(status).ok()?,
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<Refusal> {
        Request::read(text.as_bytes()).err()
    }

    #[test]
    fn requests_are_read() {
        let request = Request::read(b"POST /a?b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").expect("fine");
        assert_eq!(
            (request.target.as_slice(), request.body.as_slice()),
            (&b"/a?b"[..], &b"abc"[..])
        );
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for bad in [
            " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / JUNK/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA\rB: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n",
        ] {
            assert_eq!(refused(bad), Some(Refusal::Status(400)), "{bad:?}");
        }
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"),
            Some(Refusal::Silence)
        );
    }
}
