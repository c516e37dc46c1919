//! HTTP/2 requests that would be other requests in HTTP/1.1.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::ok;
use crate::tls_stage::{Secure, frame, on_runtime, request};

/// `:method` GET, `:scheme` https and `:authority` localhost (RFC 7541, appendix A).
const START: &[u8] = b"\x82\x87\x01\x09localhost";
const ROOT: &[u8] = b"\x84";

/// One field, literal and not indexed (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0, name.len() as u8];
    bytes.extend(name.bytes());
    bytes.push(value.len() as u8);
    bytes.extend(value.bytes());
    bytes
}

/// Sends a request of these fields as they are; what the backend has read of it.
async fn relayed(secure: &Secure, fields: &[u8], body: &[u8]) -> Result<Option<String>> {
    let mut client = secure.connect(&[b"h2"], rustls::ALL_VERSIONS).await?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    // END_HEADERS, and END_STREAM where there is no body.
    let end = u8::from(body.is_empty());
    bytes.extend(frame(1, 4 | end, 1, fields));
    if !body.is_empty() {
        bytes.extend(frame(0, 1, 1, body));
    }
    client.write_all(&bytes).await?;
    let mut rest = Vec::new();
    let patience = Duration::from_millis(200);
    let _ = tokio::time::timeout(patience, client.read_to_end(&mut rest)).await;
    let mut heads = String::new();
    while let Some(head) = secure.stage.try_upstream_head() {
        heads.push_str(&head);
    }
    Ok((!heads.is_empty()).then_some(heads))
}

fn request_of(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = [START, ROOT].concat();
    for (name, value) in fields {
        bytes.extend(field(name, value));
    }
    bytes
}

/// RFC 9113 §8.2 and §8.3: malformed in HTTP/2, and another request in HTTP/1.1.
#[test]
fn malformed_http2_requests_never_reach_a_backend() -> Result<()> {
    let secure = Secure::new(ok)?;
    let shapes = [
        request_of(&[("transfer-encoding", "chunked")]),
        request_of(&[("connection", "x-clew-token")]),
        request_of(&[("x", "a\r\ninjected: b")]),
        request_of(&[("x", "a\ninjected: b")]),
        request_of(&[("x", "a\rinjected: b")]),
        request_of(&[("x", "a\0b")]),
        request_of(&[("x\r\ninjected", "b")]),
        request_of(&[("x: a\r\ninjected", "b")]),
        request_of(&[("X-Upper", "b")]),
        request_of(&[("x y", "b")]),
        request_of(&[("content-length", "5"), ("content-length", "6")]),
        request_of(&[("content-length", "+5")]),
        request_of(&[("content-length", "5")]),
        request_of(&[("host", "elsewhere")]),
        request_of(&[("host", "localhost"), ("host", "elsewhere")]),
        request_of(&[(":path", "/second")]),
        [START, &field(":path", "/ HTTP/1.1\r\ninjected: b")].concat(),
        [START, &field(":path", "/a b")].concat(),
        [START, &field(":path", "http://elsewhere/")].concat(),
        [START, &field(":path", "no-slash")].concat(),
        [
            &b"\x87\x84"[..],
            &field(":method", "GET / HTTP/1.1\r\nx: y"),
        ]
        .concat(),
        [
            &b"\x82\x87\x84"[..],
            &field(":authority", "a\r\ninjected: b"),
        ]
        .concat(),
        [&b"\x82\x87\x84"[..], &field(":authority", "a@b c")].concat(),
    ];
    on_runtime(async {
        let mut wrong = Vec::new();
        for shape in shapes {
            if let Some(heads) = relayed(&secure, &shape, b"").await? {
                wrong.push((String::from_utf8_lossy(&shape).into_owned(), heads));
            }
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        ensure!(
            relayed(&secure, &request_of(&[("x", "y")]), b"")
                .await?
                .is_some()
        );
        let posted = request_of(&[("content-length", "5")]);
        ensure!(relayed(&secure, &posted, b"hello").await?.is_some());
        Ok(())
    })
}

/// A body without a length is one request in chunks, whatever is in it.
#[test]
fn bodies_without_a_length_are_one_request() -> Result<()> {
    let secure = Secure::new(crate::stage::hang)?;
    on_runtime(async {
        let body = b"0\r\n\r\nGET /injected HTTP/1.1\r\nHost: a\r\n\r\n";
        let fields = [&b"\x83\x87\x84\x01\x09localhost"[..]].concat();
        let heads = relayed(&secure, &fields, body).await?.unwrap_or_default();
        ensure!(heads.starts_with("POST / HTTP/1.1\r\n"), "{heads}");
        let fields = heads.to_ascii_lowercase();
        ensure!(
            fields.matches("\r\ntransfer-encoding: chunked\r\n").count() == 1,
            "{heads}"
        );
        ensure!(!fields.contains("content-length"), "{heads}");
        Ok(())
    })
}

/// One authority, the same for routing, records and the backend.
#[test]
fn the_backend_reads_the_authority_that_was_routed() -> Result<()> {
    let secure = Secure::new(ok)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let mut same = request("/")?;
        same.headers_mut().insert("host", "localhost".parse()?);
        let (response, _) = client.send_request(same, true)?;
        ensure!(response.await?.status() == 200);
        let head = secure.stage.upstream_head()?.to_ascii_lowercase();
        ensure!(
            head.matches("\r\nhost: localhost\r\n").count() == 1,
            "{head}"
        );
        Ok(())
    })
}
