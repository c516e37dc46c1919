//! Groups of equal backends: which one takes the next request.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clew_protocol::ServiceId;
use http::HeaderMap;
use http::header::HOST;
use pingora::lb::LoadBalancer;
use pingora::lb::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use pingora::lb::selection::RoundRobin;
use pingora::protocols::TcpKeepalive;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509};

use crate::config::{Identity, ServiceConfig};
use crate::listener::{certificates, private_key};

/// How the kernel looks for backends that have vanished: after a minute of silence, given up after half a
/// minute more.
const PROBES: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 3,
    user_timeout: Duration::ZERO,
};
/// How many backends are tried before the service counts as down.
const TRIES: usize = 256;

/// A service at work.
pub(crate) struct Service {
    pub(crate) id: ServiceId,
    pub(crate) config: ServiceConfig,
    balancer: LoadBalancer<RoundRobin>,
    /// Who is believed about a backend's name; none: whom this machine believes.
    authorities: Option<Arc<[WrappedX509]>>,
    /// What backends are shown.
    identity: Option<Arc<CertKey>>,
}

impl Service {
    pub(crate) fn new(id: ServiceId, config: ServiceConfig) -> std::io::Result<Self> {
        let file = config.tls.as_ref().and_then(|tls| tls.authorities.as_ref());
        let authorities = file.map(|path| read_authorities(path)).transpose()?;
        let identity = config.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        let identity = identity.map(cert_key).transpose()?;
        let mut balancer = LoadBalancer::try_from_iter(config.upstreams.iter())?;
        if config.health_check.is_some() {
            balancer.set_health_check(health_check(
                &config,
                authorities.clone(),
                identity.clone(),
            )?);
        }
        Ok(Self {
            id,
            authorities,
            identity,
            config,
            balancer,
        })
    }

    /// Checks the backends for ever, where the configuration says so.
    pub(crate) async fn watch_health(self: Arc<Self>) {
        let Some(check) = self.config.health_check else {
            return;
        };
        loop {
            self.balancer.backends().run_health_check(true).await;
            tokio::time::sleep(check.interval).await;
        }
    }

    /// The next backend that is up.
    pub(crate) fn pick(&self) -> Option<SocketAddr> {
        if let [only] = self.config.upstreams[..]
            && self.config.health_check.is_none()
        {
            return Some(only);
        }
        self.balancer.select(b"", TRIES)?.addr.as_inet().copied()
    }

    /// How `address` is talked to.
    pub(crate) fn peer(&self, address: SocketAddr) -> HttpPeer {
        let tls = self.config.tls.as_ref();
        let name = tls.map_or_else(String::new, |tls| tls.server_name.clone());
        let mut peer = HttpPeer::new(address, tls.is_some(), name);
        if self.config.is_opaque() {
            // Connections of another service are not this one's, whatever they have in common.
            peer.group_key = u64::from(self.id.0);
            peer.options.ca.clone_from(&self.authorities);
            peer.client_cert_key.clone_from(&self.identity);
            if self.config.http2 {
                peer.options.set_http_version(2, 2);
                peer.options.max_h2_streams = 1;
            }
        }
        let some = |span: Duration| Some(span);
        peer.options.connection_timeout = some(self.config.connect_timeout);
        peer.options.total_connection_timeout = some(self.config.connect_timeout);
        peer.options.read_timeout = some(self.config.read_timeout);
        peer.options.write_timeout = some(self.config.write_timeout);
        peer.options.idle_timeout = self.config.idle_timeout;
        // Of a backend that has vanished, unused connections would be kept for good; a timer for each
        // request would find it too, and costs a hundredth of the request.
        peer.options.tcp_keepalive = Some(PROBES);
        peer
    }
}

/// The certificates in a PEM file.
fn read_authorities(path: &Path) -> std::io::Result<Arc<[WrappedX509]>> {
    let fail =
        |reason: String| std::io::Error::other(format!("authorities {}: {reason}", path.display()));
    let certificates = certificates(path).map_err(std::io::Error::other)?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in &certificates {
        // pingora's parser panics at what is no certificate.
        roots
            .add(certificate.clone())
            .map_err(|error| fail(error.to_string()))?;
    }
    let wrapped = certificates
        .iter()
        .map(|certificate| WrappedX509::new(certificate.to_vec(), pingora::utils::tls::parse_x509));
    Ok(wrapped.collect())
}

/// What is shown to backends. Looked through here: pingora panics at a key that is none.
fn cert_key(identity: &Identity) -> std::io::Result<Arc<CertKey>> {
    let chain = certificates(&identity.certificate).map_err(std::io::Error::other)?;
    let key = private_key(&identity.key).map_err(std::io::Error::other)?;
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(
        |error| {
            let path = identity.certificate.display();
            std::io::Error::other(format!("{path} and its key: {error}"))
        },
    )?;
    let chain = chain.iter().map(|it| it.to_vec()).collect();
    Ok(Arc::new(CertKey::new(chain, key.secret_der().to_vec())))
}

fn health_check(
    config: &ServiceConfig,
    authorities: Option<Arc<[WrappedX509]>>,
    identity: Option<Arc<CertKey>>,
) -> std::io::Result<Box<dyn HealthCheck + Send + Sync + 'static>> {
    let Some(path) = &config.health_path else {
        return Ok(TcpHealthCheck::new());
    };
    let host = config.hosts.first().map_or("localhost", String::as_str);
    let name = config.tls.as_ref().map(|tls| tls.server_name.as_str());
    let mut check = HttpHealthCheck::new(name.unwrap_or(host), name.is_some());
    check.peer_template.options.ca = authorities;
    check.peer_template.client_cert_key = identity;
    if config.http2 {
        check.peer_template.options.set_http_version(2, 2);
    }
    let target = path.parse().map_err(std::io::Error::other)?;
    check.req.set_uri(target);
    Ok(Box::new(check))
}

/// All services; the first without host names, or else the first, takes what no other names.
pub(crate) struct Services(Vec<Arc<Service>>);

impl Services {
    pub(crate) fn new(configs: Vec<ServiceConfig>) -> std::io::Result<Self> {
        let services: std::io::Result<Vec<_>> = configs
            .into_iter()
            .enumerate()
            .map(|(index, config)| Service::new(id_of(index), config).map(Arc::new))
            .collect();
        services.map(Self)
    }

    pub(crate) fn all(&self) -> &[Arc<Service>] {
        &self.0
    }

    /// The service for a request.
    pub(crate) fn route(&self, uri: &http::Uri, headers: &HeaderMap) -> Option<&Arc<Service>> {
        if let [only] = &self.0[..] {
            return Some(only);
        }
        let host = host_of(uri, headers);
        let named = self.0.iter().find(|service| {
            service
                .config
                .hosts
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host))
        });
        let default = || self.0.iter().find(|it| it.config.hosts.is_empty());
        named.or_else(default).or_else(|| self.0.first())
    }
}

/// The name in tokens; those that are too many for one are all 0 there.
fn id_of(index: usize) -> ServiceId {
    ServiceId(u8::try_from(index + 1).unwrap_or(0))
}

/// The host of a request without its port; empty when it names none.
fn host_of<'a>(uri: &'a http::Uri, headers: &'a HeaderMap) -> &'a str {
    if let Some(host) = uri.host() {
        return host;
    }
    let value = headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match value.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => value,
    }
}
