//! An edge with TLS, and clients for it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use clew_proxy::{Config, TlsConfig};
use h2::client::SendRequest;
use http::{Request, Version};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{PATIENCE, Script, Stage};

/// An edge with TLS, and the certificate that its clients trust.
pub(crate) struct Secure {
    pub(crate) stage: Stage,
    certificate: CertificateDer<'static>,
    _files: tempfile::TempDir,
}

impl Secure {
    pub(crate) fn new(script: Script) -> Result<Self> {
        Self::with(script, |_| {})
    }

    pub(crate) fn with(script: Script, adjust: impl FnOnce(&mut Config)) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let at = files.path();
        let tls = TlsConfig::new(at.join("cert.pem"), at.join("key.pem"));
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

    pub(crate) async fn connect(
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

    pub(crate) async fn http2(&self) -> Result<SendRequest<Bytes>> {
        let stream = self.connect(&[b"h2"], rustls::ALL_VERSIONS).await?;
        let (client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(client.ready().await?)
    }
}

pub(crate) fn request(path: &str) -> Result<Request<()>> {
    let uri = format!("https://localhost{path}");
    Ok(Request::builder()
        .version(Version::HTTP_2)
        .uri(uri)
        .body(())?)
}

pub(crate) fn on_runtime<T>(test: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, test).await? })
}

/// One HTTP/2 frame (RFC 9113 §4.1) of a stream below 256.
pub(crate) fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, stream]);
    bytes.extend(payload);
    bytes
}
