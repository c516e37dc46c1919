//! Where clients come in: sockets, and the certificates that are shown there.

use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use pingora::listeners::tls::Acceptor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::{ClientCertificates, ListenerConfig, TlsConfig, TlsVersion};
use crate::edge::BindError;

/// One of them.
pub(crate) struct Listener {
    /// None once nobody is to come in any more.
    socket: Mutex<Option<TcpListener>>,
    pub(crate) proxy_protocol: bool,
    tls: Option<Tls>,
}

/// What is shown, and what it is made of.
struct Tls {
    config: TlsConfig,
    acceptor: ArcSwap<Acceptor>,
}

impl Listener {
    /// Takes the port, or that of `inherited` which is bound to the address already.
    ///
    /// # Errors
    ///
    /// See [`BindError`].
    pub(crate) fn bind(
        config: &ListenerConfig,
        inherited: &mut Vec<TcpListener>,
    ) -> Result<Self, BindError> {
        let listen = |source| BindError::Listen {
            address: config.address,
            source,
        };
        let is_it = |it: &TcpListener| it.local_addr().is_ok_and(|it| it == config.address);
        let socket = match inherited.iter().position(is_it) {
            Some(index) => inherited.swap_remove(index),
            None => TcpListener::bind(config.address).map_err(listen)?,
        };
        socket.set_nonblocking(true).map_err(listen)?;
        let tls = config.tls.as_ref().map(Tls::load).transpose()?;
        Ok(Self {
            socket: Mutex::new(Some(socket)),
            proxy_protocol: config.proxy_protocol,
            tls,
        })
    }

    /// The socket, for others to hold too; none once it is closed.
    ///
    /// # Errors
    ///
    /// No descriptors left.
    pub(crate) fn socket(&self) -> io::Result<Option<TcpListener>> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.as_ref().map(TcpListener::try_clone).transpose()
    }

    /// Nobody comes in from now on, unless others hold the socket too.
    pub(crate) fn close(&self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What a connection that comes in now is shown; none for plain HTTP.
    pub(crate) fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.tls.as_ref().map(|tls| tls.acceptor.load_full())
    }

    /// Reads certificates, keys and authorities anew, for connections that come in from now on.
    ///
    /// # Errors
    ///
    /// A file cannot be used; what was shown is shown on.
    pub(crate) fn reload(&self) -> Result<(), BindError> {
        if let Some(tls) = &self.tls {
            tls.acceptor.store(Arc::new(acceptor(&tls.config)?));
        }
        Ok(())
    }
}

impl Tls {
    fn load(config: &TlsConfig) -> Result<Self, BindError> {
        Ok(Self {
            config: config.clone(),
            acceptor: ArcSwap::from_pointee(acceptor(config)?),
        })
    }
}

/// HTTP/2 before HTTP/1.1; of TLS 1.2 (RFC 8996 retires what is older) and 1.3 those that may be.
fn acceptor(config: &TlsConfig) -> Result<Acceptor, BindError> {
    let fail = |error: rustls::Error| unusable(&config.certificate, error.to_string());
    let chain = certificates(&config.certificate)?;
    let key = private_key(&config.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(config.minimum))
        .map_err(fail)?;
    let builder = match &config.clients {
        Some(clients) => builder.with_client_cert_verifier(verifier(clients)?),
        None => builder.with_no_client_auth(),
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(fail)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Acceptor::from_server_config(Arc::new(tls)))
}

fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];
    match minimum {
        TlsVersion::Tls12 => &ALL,
        TlsVersion::Tls13 => &ALL[1..],
    }
}

/// Whose certificates clients may show.
fn verifier(clients: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, BindError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&clients.authorities)? {
        roots
            .add(certificate)
            .map_err(|error| unusable(&clients.authorities, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map_err(|error| unusable(&clients.authorities, error.to_string()))
}

/// The certificates in a PEM file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BindError> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| unusable(path, error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable(path, "no certificate in it".to_owned()));
    }
    Ok(certificates)
}

/// The private key in a PEM file.
pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, BindError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable(path, error.to_string()))
}

fn unusable(path: &Path, reason: String) -> BindError {
    BindError::Tls {
        path: path.display().to_string(),
        reason,
    }
}
