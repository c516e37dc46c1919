//! Backends that are talked to by TLS or HTTP/2: verified, announced, and ended by a verdict as others are.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clew_proxy::{Announcement, Announcer, HealthCheck, UpstreamTls};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::stage::{PATIENCE, Stage, ok};
use crate::tls_stage::{Secure, on_runtime, request};

/// How long a backend that has dropped a connection takes to shake hands for the next.
const BUSY: Duration = Duration::from_millis(400);

/// What a backend speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http1OverTls,
    Http2OverTls,
    Http2,
}

/// What a backend has been sent.
struct Seen {
    /// The client's end of the connection.
    from: SocketAddr,
    /// The head, more or less.
    head: String,
}

struct Backend {
    address: SocketAddr,
    seen: Receiver<Seen>,
    authorities: PathBuf,
    _files: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Backend {
    fn start(speaks: Speaks) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(vec!["backend".to_owned()])?;
        let authorities = files.path().join("ca.pem");
        std::fs::write(&authorities, made.cert.pem())?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::Pkcs8(key))?;
        if speaks == Speaks::Http2OverTls {
            tls.alpn_protocols = vec![b"h2".to_vec()];
        }
        let tls = TlsAcceptor::from(Arc::new(tls));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (tell, seen) = channel();
        runtime.spawn(async move {
            let dropped = Arc::new(AtomicBool::new(false));
            while let Ok((stream, from)) = listener.accept().await {
                let (tls, tell, dropped) = (tls.clone(), tell.clone(), dropped.clone());
                if dropped.load(Ordering::Relaxed) {
                    tokio::time::sleep(BUSY).await;
                }
                tokio::spawn(async move {
                    match speaks {
                        Speaks::Http2 => serve_http2(stream, from, &tell).await,
                        Speaks::Http2OverTls => {
                            serve_http2(tls.accept(stream).await?, from, &tell).await
                        }
                        Speaks::Http1OverTls => {
                            serve_http1(tls.accept(stream).await?, from, &tell, &dropped).await
                        }
                    }
                });
            }
        });
        Ok(Self {
            address,
            seen,
            authorities,
            _files: files,
            _runtime: runtime,
        })
    }

    /// An edge before it, and what it announces.
    fn stage(
        &self,
        tls: Option<UpstreamTls>,
        http2: bool,
    ) -> Result<(Stage, Receiver<Announcement>)> {
        let (tell, announced) = channel();
        let stage = Stage::with(ok, |config| {
            config.services[0].upstreams = vec![self.address];
            config.services[0].tls = tls;
            config.services[0].http2 = http2;
            if let Some(tagging) = &mut config.tagging {
                tagging.announcer = Announcer::new(move |it| tell.send(*it).is_ok());
            }
        })?;
        Ok((stage, announced))
    }
}

async fn serve_http1(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    from: SocketAddr,
    tell: &Sender<Seen>,
    dropped: &AtomicBool,
) -> Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        let hangs = head.starts_with("GET /hang");
        let drops = head.starts_with("GET /drop") && !dropped.load(Ordering::Relaxed);
        tell.send(Seen { from, head })?;
        if drops {
            dropped.store(true, Ordering::Relaxed);
            return Ok(stream.shutdown().await?);
        }
        if hangs {
            tokio::time::sleep(4 * PATIENCE).await;
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
            .await?;
    }
}

async fn serve_http2(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    from: SocketAddr,
    tell: &Sender<Seen>,
) -> Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    let mut hanging = Vec::new();
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        tell.send(Seen {
            from,
            head: format!("{request:?}"),
        })?;
        if request.uri().path() == "/hang" {
            hanging.push(respond);
            continue;
        }
        if request.headers().contains_key("grpc-timeout") {
            tokio::spawn(echo(request.into_body(), respond));
            continue;
        }
        let response = Response::builder().header("content-length", 4).body(())?;
        let mut body = respond.send_response(response, false)?;
        body.send_data(Bytes::from_static(b"fine"), true)?;
    }
    Ok(())
}

/// Each message as it comes, then the trailer.
async fn echo(mut messages: RecvStream, mut respond: SendResponse<Bytes>) -> Result<()> {
    let mut answers = respond.send_response(Response::new(()), false)?;
    while let Some(message) = messages.data().await {
        let message = message?;
        messages.flow_control().release_capacity(message.len())?;
        answers.send_data(message, false)?;
    }
    let mut trailer = HeaderMap::new();
    trailer.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(answers.send_trailers(trailer)?)
}

fn named(name: &str, authorities: Option<&Path>) -> Option<UpstreamTls> {
    Some(UpstreamTls {
        server_name: name.to_owned(),
        authorities: authorities.map(Path::to_owned),
        identity: None,
    })
}

/// A request is served, bears no name that anybody could read, and is announced for its connection; one that
/// hangs is ended.
fn is_served(speaks: Speaks) -> Result<()> {
    let backend = Backend::start(speaks)?;
    let tls = named("backend", Some(&backend.authorities)).filter(|_| speaks != Speaks::Http2);
    let (stage, announced) = backend.stage(tls, speaks != Speaks::Http1OverTls)?;
    let mut client = stage.client()?;
    for _ in 0..2 {
        let answer = client.get("/")?;
        ensure!(answer.status == 200 && answer.body == "fine", "{answer:?}");
        let (seen, told) = (backend.seen.recv_timeout(PATIENCE)?, announced.try_recv()?);
        ensure!(!seen.head.contains("clew-token"), "{}", seen.head);
        ensure!(
            (told.local, told.peer) == (seen.from, backend.address),
            "{told:?}"
        );
        ensure!(told.sequence == stage.started()?.sequence);
    }
    client.send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let victim = backend.seen.recv_timeout(PATIENCE)?;
    // One request at a time on each connection: another takes another.
    let mut other = stage.client()?;
    ensure!(other.get("/")?.status == 200);
    ensure!(backend.seen.recv_timeout(PATIENCE)?.from != victim.from);
    let told = announced.try_iter().find(|it| it.local == victim.from);
    ensure!(stage.cancel(told.context("not announced")?.sequence));
    ensure!(client.response()?.status == 403);
    ensure!(other.get("/")?.status == 200);
    Ok(())
}

#[test]
fn http1_over_tls() -> Result<()> {
    is_served(Speaks::Http1OverTls)
}

#[test]
fn http2_over_tls() -> Result<()> {
    is_served(Speaks::Http2OverTls)
}

#[test]
fn http2_by_prior_knowledge() -> Result<()> {
    is_served(Speaks::Http2)
}

/// An attempt is over when it has failed, not when the next has a connection: whoever has read it is at others
/// by then.
#[test]
fn a_failed_attempt_is_over_at_once() -> Result<()> {
    let backend = Backend::start(Speaks::Http1OverTls)?;
    let (stage, _announced) = backend.stage(named("backend", Some(&backend.authorities)), false)?;
    let mut client = stage.client()?;
    ensure!(client.get("/")?.status == 200);
    stage.started()?;
    ensure!(client.get("/drop")?.status == 200);
    let first = stage.started()?;
    let ended = stage.ended()?;
    ensure!(ended.sequence == first.sequence, "{ended:?}");
    let second = stage.started()?;
    ensure!(second.id == first.id);
    let waited = second.sent_at.since(ended.at);
    ensure!(waited >= BUSY / 2, "{waited:?}");
    Ok(())
}

/// Health is asked for in the backend's own language.
#[test]
fn health_checks() -> Result<()> {
    for speaks in [Speaks::Http1OverTls, Speaks::Http2OverTls, Speaks::Http2] {
        let backend = Backend::start(speaks)?;
        let dead = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let stage = Stage::with(ok, |config| {
            let service = &mut config.services[0];
            service.upstreams = vec![backend.address, dead];
            service.tls =
                named("backend", Some(&backend.authorities)).filter(|_| speaks != Speaks::Http2);
            service.http2 = speaks != Speaks::Http1OverTls;
            service.health_path = Some("/health".to_owned());
            service.health_check = Some(HealthCheck {
                interval: Duration::from_millis(50),
            });
        })?;
        for _ in 0..3 {
            let seen = backend.seen.recv_timeout(PATIENCE)?;
            ensure!(seen.head.contains("/health"), "{}", seen.head);
        }
        for _ in 0..4 {
            ensure!(stage.client()?.get("/")?.status == 200);
        }
    }
    Ok(())
}

/// gRPC: messages go both ways before the request ends, and its result is a trailer.
#[test]
fn a_grpc_call() -> Result<()> {
    let backend = Backend::start(Speaks::Http2)?;
    let secure = Secure::with(ok, |config| {
        config.services[0].upstreams = vec![backend.address];
        config.services[0].http2 = true;
    })?;
    on_runtime(async {
        let mut client = secure.http2().await?;
        let mut call = request("/shop.Orders/Watch")?;
        *call.method_mut() = http::Method::POST;
        for (name, value) in [
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", "1S"),
        ] {
            call.headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        let (response, mut messages) = client.send_request(call, false)?;
        messages.send_data(Bytes::from_static(b"one"), false)?;
        let mut answers = response.await?.into_body();
        ensure!(answers.data().await.context("no answer")?? == "one");
        messages.send_data(Bytes::from_static(b"two"), true)?;
        ensure!(answers.data().await.context("no second answer")?? == "two");
        let trailer = answers.trailers().await?.context("no trailer")?;
        ensure!(trailer["grpc-status"] == "0");
        let seen = backend.seen.recv_timeout(PATIENCE)?;
        ensure!(seen.head.contains("\"te\": \"trailers\""), "{}", seen.head);
        Ok(())
    })
}

/// Whoever has another name, or nobody to vouch for it, is sent nothing.
#[test]
fn a_backend_that_is_not_the_one_named() -> Result<()> {
    let backend = Backend::start(Speaks::Http1OverTls)?;
    for tls in [
        named("other", Some(&backend.authorities)),
        named("backend", None),
    ] {
        let (stage, announced) = backend.stage(tls, false)?;
        let mut client = stage.client()?;
        let answer = client.get("/")?;
        ensure!(answer.status == 502, "{answer:?}");
        ensure!(
            backend
                .seen
                .recv_timeout(Duration::from_millis(50))
                .is_err()
        );
        ensure!(announced.try_recv().is_err());
    }
    Ok(())
}

/// What is no certificate is said at start, with the file's name.
#[test]
fn authorities_that_are_none() -> Result<()> {
    let backend = Backend::start(Speaks::Http1OverTls)?;
    for text in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&backend.authorities, text)?;
        let tls = named("backend", Some(&backend.authorities));
        let error = backend.stage(tls, false).err().context("it starts")?;
        let path = backend.authorities.display().to_string();
        ensure!(format!("{error:#}").contains(&path), "{error:#}");
    }
    Ok(())
}
