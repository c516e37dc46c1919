//! TLS and HTTP/2: the same verdicts over another wire.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use crate::stage::{Connection, hang, ok, wait_until};
use crate::tls_stage::{Secure, frame, on_runtime, request};

#[test]
fn http2_requests_are_tagged_like_others() -> Result<()> {
    let secure = Secure::new(ok)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let (response, _) = client.send_request(request("/a")?, true)?;
        let response = response.await?;
        ensure!(response.status() == 200);
        ensure!(response.headers().contains_key("x-request-id"));
        let head = secure.stage.upstream_head()?;
        let second = head.lines().nth(1).context("one line")?;
        ensure!(second.starts_with("x-clew-token: "), "{head}");
        ensure!(
            head.to_ascii_lowercase().contains("host: localhost"),
            "{head}"
        );
        ensure!(head.contains("https"), "{head}");
        Ok(())
    })
}

#[test]
fn a_hanging_http2_request_is_answered_403() -> Result<()> {
    let secure = Secure::new(hang)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let (victim, _) = client.send_request(request("/hang")?, true)?;
        let sequence = tokio::task::block_in_place(|| secure.stage.started())?.sequence;
        ensure!(secure.stage.cancel(sequence));
        ensure!(victim.await?.status() == 403);
        // Other streams of the connection go on.
        let (other, _) = client
            .ready()
            .await?
            .send_request(request("/fine")?, true)?;
        ensure!(other.await?.status() == 200);
        Ok(())
    })
}

fn stream(connection: &mut Connection) -> Result<()> {
    connection.head();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
    std::thread::sleep(Duration::from_secs(10));
    Ok(())
}

#[test]
fn a_streaming_http2_response_is_reset() -> Result<()> {
    let secure = Secure::new(stream)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let (response, _) = client.send_request(request("/")?, true)?;
        let mut body = response.await?.into_body();
        ensure!(body.data().await.context("no data")?? == "first");
        let sequence = tokio::task::block_in_place(|| secure.stage.started())?.sequence;
        ensure!(secure.stage.cancel(sequence));
        let end = body.data().await;
        ensure!(matches!(end, Some(Err(_))), "clean end: {end:?}");
        Ok(())
    })
}

#[test]
fn http1_over_tls() -> Result<()> {
    let secure = Secure::new(ok)?;
    on_runtime(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut client = secure.connect(&[b"http/1.1"], rustls::ALL_VERSIONS).await?;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut text = String::new();
        client.read_to_string(&mut text).await?;
        ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
        Ok(())
    })
}

/// A ClientHello of `version` at most, with all else that a TLS 1.2 handshake needs.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    // supported_groups: secp256r1; ec_point_formats: uncompressed; signature_algorithms:
    // ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256.
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4,
    ];
    let mut hello = version.to_vec();
    hello.extend([7; 32]);
    // No session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 and its RSA sister, no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![
        22,
        3,
        1,
        0,
        hello.len() as u8 + 4,
        1,
        0,
        0,
        hello.len() as u8,
    ];
    record.extend(hello);
    record
}

/// RFC 8996: refused for its version, and for nothing else.
#[test]
fn tls_below_1_2_is_refused() -> Result<()> {
    let secure = Secure::new(ok)?;
    let mut answers = Vec::new();
    for version in [[3, 1], [3, 2], [3, 3]] {
        let mut client = secure.stage.client()?;
        client.stream.write_all(&client_hello(version))?;
        let mut answer = [0; 7];
        std::io::Read::read_exact(&mut client.stream, &mut answer)?;
        answers.push(answer);
    }
    for answer in &answers[..2] {
        // A fatal alert, protocol_version (RFC 8446 §6).
        ensure!(answer[0] == 21 && answer[5..] == [2, 70], "{answers:?}");
    }
    // A ServerHello for the same with TLS 1.2.
    ensure!(answers[2][0] == 22 && answers[2][5] == 2, "{answers:?}");
    wait_until("counted", || {
        secure.stage.handle.counters().failed_handshakes >= 2
    })?;
    Ok(())
}

/// CVE-2023-44487: streams opened and reset as fast as they go end the connection, and the edge
/// serves on.
#[test]
fn rapid_reset_ends_the_connection() -> Result<()> {
    let secure = Secure::new(hang)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let mut ended = false;
        for _ in 0..20_000 {
            let Ok(ready) = client.clone().ready().await else {
                ended = true;
                break;
            };
            client = ready;
            match client.send_request(request("/hang")?, false) {
                Ok((_, mut body)) => body.send_reset(h2::Reason::CANCEL),
                Err(_) => {
                    ended = true;
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
        ensure!(ended, "20,000 resets and still welcome");
        let mut other = secure.http2().await?;
        let (response, _) = other.send_request(request("/fine")?, true)?;
        ensure!(response.await?.status() == 200);
        Ok(())
    })
}

/// CVE-2024-27316: header fragments without end are not collected without end.
#[test]
fn continuation_floods_end_the_connection() -> Result<()> {
    let secure = Secure::new(ok)?;
    on_runtime(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut client = secure.connect(&[b"h2"], rustls::ALL_VERSIONS).await?;
        client
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await?;
        client.write_all(&frame(4, 0, 0, &[])).await?;
        // HEADERS without END_HEADERS, then CONTINUATION: a literal field of 1,000 bytes each.
        let mut field = vec![0x00, 1, b'a', 0x7f, 0xe9, 0x06];
        field.extend(vec![b'b'; 1000]);
        client.write_all(&frame(1, 0, 1, &field)).await?;
        let mut ended = false;
        for _ in 0..20_000 {
            if client.write_all(&frame(9, 0, 1, &field)).await.is_err() {
                ended = true;
                break;
            }
        }
        let mut rest = Vec::new();
        ended |= client.read_to_end(&mut rest).await.is_ok();
        ensure!(ended, "20 MB of header fields and still welcome");
        ensure!(secure.stage.handle.counters().requests == 0);
        Ok(())
    })
}

/// HTTP/2 names its authority in `:authority`: there is no `Host` to compare a `Referer` with, or
/// to find an attack in.
#[test]
fn the_authority_is_known_over_http2() -> Result<()> {
    let secure = Secure::new(ok)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        for (referer, cross_site) in [
            ("https://evil.example/", true),
            ("https://localhost/", false),
        ] {
            let mut request = request("/")?;
            request.headers_mut().insert("referer", referer.parse()?);
            let (response, _) = client.send_request(request, true)?;
            ensure!(response.await?.status() == 200);
            let started = tokio::task::block_in_place(|| secure.stage.started())?;
            ensure!(started.client.cross_site == cross_site, "{referer}");
            ensure!(String::from_utf8_lossy(&started.inputs).contains("\nlocalhost\n"));
            client = client.ready().await?;
        }
        Ok(())
    })
}

#[test]
fn large_http2_requests_are_refused() -> Result<()> {
    let secure = Secure::with(hang, |config| config.limits.body_bytes = 1000)?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let mut many = request("/")?;
        for number in 0..150 {
            let name: http::HeaderName = format!("x-{number}").parse()?;
            many.headers_mut().insert(name, "1".parse()?);
        }
        let (response, _) = client.send_request(many, true)?;
        ensure!(response.await?.status() == 431);
        let mut client = client.ready().await?;
        let (response, mut body) = client.send_request(request("/hang")?, false)?;
        body.send_data(Bytes::from(vec![b'x'; 2000]), true)?;
        ensure!(response.await?.status() == 413);
        let (response, _) = client
            .ready()
            .await?
            .send_request(request("/fine")?, true)?;
        ensure!(response.await?.status() == 200);
        Ok(())
    })
}

#[test]
fn an_http2_connection_without_a_preface_is_closed() -> Result<()> {
    let secure = Secure::with(ok, |config| {
        config.limits.head_deadline = Duration::from_millis(300);
    })?;
    on_runtime(async {
        use tokio::io::AsyncReadExt;
        let mut client = secure.connect(&[b"h2"], rustls::ALL_VERSIONS).await?;
        let start = Instant::now();
        let _ = client.read_to_end(&mut Vec::new()).await;
        ensure!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        Ok(())
    })
}

#[test]
fn a_tls_handshake_that_stalls_is_closed() -> Result<()> {
    let secure = Secure::with(ok, |config| {
        config.limits.handshake_deadline = Duration::from_millis(200);
    })?;
    let mut client = secure.stage.client()?;
    client.stream.write_all(&[22, 3, 1])?;
    let start = Instant::now();
    ensure!(client.rest()?.is_empty());
    ensure!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    Ok(())
}
