//! TLS and HTTP/2: the same verdicts over another wire.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clew_proxy::{Config, TlsConfig};
use h2::client::SendRequest;
use http::{Request, Version};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{Connection, PATIENCE, Script, Stage, ok, wait_until};

/// An edge with TLS, and the certificate that its clients trust.
struct Secure {
    stage: Stage,
    certificate: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

impl Secure {
    fn new(script: Script) -> Result<Self> {
        Self::with(script, |_| {})
    }

    fn with(script: Script, adjust: impl FnOnce(&mut Config)) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let tls = TlsConfig {
            certificate: files.path().join("cert.pem"),
            key: files.path().join("key.pem"),
        };
        std::fs::write(&tls.certificate, made.cert.pem())?;
        std::fs::write(&tls.key, made.signing_key.serialize_pem())?;
        let stage = Stage::with(script, |config| {
            config.listeners[0].tls = Some(tls);
            adjust(config);
        })?;
        Ok(Self {
            stage,
            certificate: made.cert.der().clone(),
            _files: files,
        })
    }

    async fn connect(
        &self,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let address: SocketAddr = self.stage.address;
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost")?;
        Ok(TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?)
    }

    async fn http2(&self) -> Result<SendRequest<Bytes>> {
        let stream = self.connect(&[b"h2"], rustls::ALL_VERSIONS).await?;
        let (client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(client.ready().await?)
    }
}

fn request(path: &str) -> Result<Request<()>> {
    let uri = format!("https://localhost{path}");
    Ok(Request::builder()
        .version(Version::HTTP_2)
        .uri(uri)
        .body(())?)
}

fn on_runtime(test: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, test).await? })
}

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

fn hang(connection: &mut Connection) -> Result<()> {
    while let Some(head) = connection.head() {
        if head.starts_with("GET /fine") {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    }
    Ok(())
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

/// RFC 8996: a ClientHello that offers TLS 1.1 at most is refused.
#[test]
fn tls_below_1_2_is_refused() -> Result<()> {
    let secure = Secure::new(ok)?;
    let mut client = secure.stage.client()?;
    let random = [7; 32];
    let mut hello = vec![3, 2];
    hello.extend(random);
    // No session, one cipher suite (TLS_RSA_WITH_AES_128_CBC_SHA), no compression.
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut handshake = vec![1, 0, 0, hello.len() as u8];
    handshake.extend(hello);
    let mut record = vec![22, 3, 1, 0, handshake.len() as u8];
    record.extend(handshake);
    client.stream.write_all(&record)?;
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut answer);
    // Nothing, or an alert (content type 21).
    ensure!(answer.first().is_none_or(|kind| *kind == 21), "{answer:?}");
    wait_until("counted", || {
        secure.stage.handle.counters().failed_handshakes == 1
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
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let length = (payload.len() as u32).to_be_bytes();
            let mut bytes = length[1..].to_vec();
            bytes.extend([kind, flags, 0, 0, 0, stream]);
            bytes.extend(payload);
            bytes
        };
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
