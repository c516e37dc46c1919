//! Clients that speak HTTP/2 over TLS, each on a connection that it keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::load::Tally;

/// Longest that a request may take: longer than one clew waits for another to end.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);
/// The server's name.
const NAME: &str = "lab.test";
/// A request is sent so many times at most where it was not processed.
const ATTEMPTS: u32 = 4;

/// A certificate and its key, for [`NAME`].
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Identity {
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let identity = Self {
            certificate: folder.join("tls.pem"),
            key: folder.join("tls.key"),
        };
        std::fs::write(&identity.certificate, made.cert.pem())?;
        std::fs::write(&identity.key, made.signing_key.serialize_pem())?;
        Ok(identity)
    }

    fn connector(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.certificate)?)?;
        let provider = Arc::new(crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let mut config = builder
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Clients at work; stopped by [`Load::stop`], or by drop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(Tally, u64)>>>,
}

impl Load {
    /// Each client has an address of its own, 127.0.`net`.1 and up.
    pub(super) fn start(to: SocketAddr, net: u8, clients: u8, identity: &Identity) -> Result<Self> {
        let connector = identity.connector()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for client in 1..=clients {
                    let visitor = Visitor {
                        source: Ipv4Addr::new(127, 0, net, client),
                        to,
                        connector: connector.clone(),
                        sender: None,
                        tally: Tally::default(),
                        resent: 0,
                    };
                    all.spawn(visitor.visit(Arc::clone(&stopped)));
                }
                let (mut tally, mut resent) = (Tally::default(), 0);
                for (seen, again) in all.join_all().await {
                    tally.add(seen);
                    resent += again;
                }
                Ok((tally, resent))
            })
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// What they saw, and how many requests were sent again because the server said that it had not processed them
    /// (RFC 9113 §8.7): those are no failures.
    pub(super) fn stop(mut self) -> Result<(Tally, u64)> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("it is stopped")?;
        thread.join().map_err(|_| anyhow!("a client panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

struct Visitor {
    source: Ipv4Addr,
    to: SocketAddr,
    connector: TlsConnector,
    sender: Option<SendRequest<bytes::Bytes>>,
    tally: Tally,
    resent: u64,
}

impl Visitor {
    async fn visit(mut self, stop: Arc<AtomicBool>) -> (Tally, u64) {
        while !stop.load(Ordering::Acquire) {
            let begun = Instant::now();
            let done = timeout(PATIENCE, self.request()).await;
            let done = done.unwrap_or_else(|_| Err(anyhow!("no answer")));
            self.tally.note("HTTP/2", done, &[200], begun.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        (self.tally, self.resent)
    }

    async fn request(&mut self) -> Result<u16> {
        for _ in 0..ATTEMPTS {
            let sender = match self.sender.take() {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            // One that says it takes no more was closed in good order: nothing has been sent on it.
            let Ok(mut sender) = sender.ready().await else {
                continue;
            };
            match exchange(&mut sender).await {
                Ok(status) => {
                    self.sender = Some(sender);
                    return Ok(status);
                }
                Err(error) if is_unprocessed(&error) => self.resent += 1,
                Err(error) => return Err(error).context("on an open connection"),
            }
        }
        Err(anyhow!("not processed {ATTEMPTS} times"))
    }

    async fn connect(&mut self) -> Result<SendRequest<bytes::Bytes>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let stream = socket.connect(self.to).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(NAME)?;
        let stream = self.connector.connect(name, stream).await.context("TLS")?;
        let (_, session) = stream.get_ref();
        ensure!(session.alpn_protocol() == Some(b"h2"), "no HTTP/2");
        let (sender, connection) = h2::client::handshake(stream).await?;
        // It ends with the connection; what is wrong with it, requests tell.
        tokio::spawn(connection);
        self.tally.connections += 1;
        Ok(sender)
    }
}

async fn exchange(sender: &mut SendRequest<bytes::Bytes>) -> Result<u16, h2::Error> {
    let request = http::Request::get(format!("https://{NAME}/item")).body(());
    let request = request.map_err(|_| h2::Error::from(Reason::INTERNAL_ERROR))?;
    let (response, _) = sender.send_request(request, true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    drain(response.into_body()).await?;
    Ok(status)
}

async fn drain(mut body: RecvStream) -> Result<(), h2::Error> {
    while let Some(chunk) = body.data().await {
        body.flow_control().release_capacity(chunk?.len())?;
    }
    Ok(())
}

fn is_unprocessed(error: &h2::Error) -> bool {
    error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR))
}
