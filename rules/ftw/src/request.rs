//! What a test's input looks like on the wire.

use clew_rules::transformation::Transformation;

use super::suite::{Input, Schema, Stage};

const FORM: &str = "application/x-www-form-urlencoded";

/// The bytes that the client of this schema sends.
pub fn bytes(stage: &Stage) -> Vec<u8> {
    let input = &stage.input;
    if let Some(encoded) = &input.encoded_request {
        return decoded(encoded);
    }
    if let Some(raw) = &input.raw_request {
        return raw.clone().into_bytes();
    }
    let mut headers = input.headers.clone();
    let body = match stage.schema {
        Schema::Old => magic(input, &mut headers),
        Schema::Today => completed(input, &mut headers),
    };
    written(input, &headers, &body)
}

fn decoded(encoded: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let compact: Vec<u8> = encoded
        .bytes()
        .filter(|b| !b.is_ascii_whitespace())
        .collect();
    if Transformation::Base64Decode.apply(&compact, None, &mut out) {
        out
    } else {
        compact
    }
}

fn written(input: &Input, headers: &[(String, String)], body: &str) -> Vec<u8> {
    let method = input.method.as_deref().unwrap_or("GET");
    let uri = input.uri.as_deref().unwrap_or("/");
    let version = input.version.as_deref().unwrap_or("HTTP/1.1");
    let mut out = format!("{method} {uri} {version}\r\n");
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.push_str(body);
    out.into_bytes()
}

fn has(headers: &[(String, String)], name: &str) -> bool {
    headers
        .iter()
        .any(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// The older client: a body is a form unless something else is said, and is encoded as one.
fn magic(input: &Input, headers: &mut Vec<(String, String)>) -> String {
    let Some(data) = input.data.clone().filter(|data| !data.is_empty()) else {
        return String::new();
    };
    if input.stop_magic {
        return data;
    }
    if !has(headers, "Content-Type") {
        headers.push(("Content-Type".to_owned(), FORM.to_owned()));
    }
    let form = headers
        .iter()
        .any(|(name, value)| name.eq_ignore_ascii_case("Content-Type") && value == FORM);
    let body = if form && !is_encoded(&data) {
        encoded(&data)
    } else {
        data
    };
    if !has(headers, "Content-Length") {
        headers.push(("Content-Length".to_owned(), body.len().to_string()));
    }
    body
}

/// Today's client: adds headers that are missing; the body is sent as it is.
fn completed(input: &Input, headers: &mut Vec<(String, String)>) -> String {
    let body = input.data.clone().unwrap_or_default();
    if input.autocomplete_headers == Some(false) {
        return body;
    }
    if !has(headers, "Connection") {
        headers.push(("Connection".to_owned(), "close".to_owned()));
    }
    if !body.is_empty() {
        if !has(headers, "Content-Type") {
            headers.push(("Content-Type".to_owned(), FORM.to_owned()));
        }
        if !has(headers, "Content-Length") && !has(headers, "Transfer-Encoding") {
            headers.push(("Content-Length".to_owned(), body.len().to_string()));
        }
    }
    body
}

/// Whether percent-decoding would change it.
fn is_encoded(data: &str) -> bool {
    let bytes = data.as_bytes();
    bytes
        .windows(3)
        .any(|w| w[0] == b'%' && w[1].is_ascii_hexdigit() && w[2].is_ascii_hexdigit())
}

/// As a form is encoded; fields without a value are left out, and when none is left, all stays as it was.
fn encoded(data: &str) -> String {
    let fields = data
        .split('&')
        .filter_map(|field| field.split_once('='))
        .filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = fields
        .map(|(name, value)| format!("{}={}", quoted(name), quoted(value)))
        .collect();
    if pairs.is_empty() {
        data.to_owned()
    } else {
        pairs.join("&")
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte))
            }
            b' ' | b'+' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(data: &str) -> Stage {
        let input = Input {
            data: Some(data.to_owned()),
            ..Input::default()
        };
        Stage {
            input,
            output: Default::default(),
            schema: Schema::Old,
        }
    }

    #[test]
    fn the_older_client_encodes_forms() {
        let text = String::from_utf8(bytes(&old("a=1 OR 1=1&b="))).expect("ASCII");
        assert!(
            text.ends_with("Content-Length: 12\r\n\r\na=1+OR+1%3D1"),
            "{text}"
        );
    }

    #[test]
    fn what_is_encoded_stays() {
        let text = String::from_utf8(bytes(&old("a=%27 b"))).expect("ASCII");
        assert!(text.ends_with("\r\n\r\na=%27 b"), "{text}");
    }
}
