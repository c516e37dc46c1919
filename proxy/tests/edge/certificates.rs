//! Certificates: of the edge, replaced while it serves; of its clients; and what it shows to backends.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;

use anyhow::{Result, ensure};
use clew_proxy::{
    ClientCertificates, Config, Identity, Reports, TlsConfig, TlsVersion, UpstreamTls,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::inspection::{ATTACK, patient, rules};
use crate::stage::{PATIENCE, Stage, ok, wait_until};
use crate::tls_stage::on_runtime;

/// An authority, and what it signs.
struct Authority {
    files: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Result<Self> {
        let files = tempfile::tempdir()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let made = params.self_signed(&key)?;
        std::fs::write(files.path().join("ca.pem"), made.pem())?;
        Ok(Self {
            certificate: made.der().clone(),
            issuer: Issuer::new(params, key),
            files,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Files with a certificate for `name` and its key.
    fn sign(&self, name: &str) -> Result<Identity> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Partner");
        let key = KeyPair::generate()?;
        let made = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: self.file(&format!("{name}.pem")),
            key: self.file(&format!("{name}.key")),
        };
        std::fs::write(&identity.certificate, made.pem())?;
        std::fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }

    /// What a listener needs that shows a certificate for `localhost`.
    fn tls(&self) -> Result<TlsConfig> {
        let own = self.sign("localhost")?;
        Ok(TlsConfig::new(own.certificate, own.key))
    }

    fn clients(&self, required: bool) -> Option<ClientCertificates> {
        Some(ClientCertificates {
            authorities: self.file("ca.pem"),
            required,
        })
    }

    async fn connect(
        &self,
        stage: &Stage,
        shown: Option<&Identity>,
    ) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match shown {
            Some(it) => builder.with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&it.certificate)?],
                PrivateKeyDer::from_pem_file(&it.key)?,
            )?,
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(stage.address).await?;
        let name = ServerName::try_from("localhost")?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(connector.connect(name, stream).await?)
    }
}

/// The answer to one request.
async fn get(stream: &mut TlsStream<TcpStream>, target: &str) -> Result<String> {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let bytes = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await??;
    answer.truncate(bytes);
    Ok(String::from_utf8(answer)?)
}

fn shown(stream: &TlsStream<TcpStream>) -> Option<CertificateDer<'static>> {
    let shown = stream.get_ref().1.peer_certificates()?;
    Some(shown.first()?.clone().into_owned())
}

#[test]
fn certificates_are_replaced_while_connections_go_on() -> Result<()> {
    let authority = Authority::new()?;
    let tls = authority.tls()?;
    let stage = Stage::with(ok, |config| config.listeners[0].tls = Some(tls.clone()))?;
    on_runtime(async {
        let mut old = authority.connect(&stage, None).await?;
        ensure!(get(&mut old, "/").await?.starts_with("HTTP/1.1 200"));
        authority.sign("localhost")?;
        stage.handle.reload_certificates()?;
        let new = authority.connect(&stage, None).await?;
        ensure!(shown(&new).is_some() && shown(&new) != shown(&old));
        ensure!(get(&mut old, "/").await?.starts_with("HTTP/1.1 200"));
        // What cannot be used changes nothing.
        std::fs::write(&tls.certificate, "no certificate")?;
        let error = stage.handle.reload_certificates().expect_err("refused");
        ensure!(error.to_string().contains("localhost.pem"), "{error}");
        let again = authority.connect(&stage, None).await?;
        ensure!(shown(&again) == shown(&new));
        Ok(())
    })
}

#[test]
fn clients_show_who_they_are() -> Result<()> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let mut tls = authority.tls()?;
    tls.clients = authority.clients(true);
    let (tell, reports) = channel();
    let judged = rules(ATTACK)?;
    let stage = Stage::with(ok, |config| {
        config.listeners[0].tls = Some(tls);
        config.rules = Some(patient(judged));
        config.reports = Some(Reports::new(move |report| {
            let _ = tell.send(report);
        }));
    })?;
    let (known, unknown) = (authority.sign("partner")?, stranger.sign("partner")?);
    on_runtime(async {
        let mut stream = authority.connect(&stage, Some(&known)).await?;
        ensure!(get(&mut stream, "/").await?.starts_with("HTTP/1.1 200"));
        ensure!(
            get(&mut stream, "/?a=attack")
                .await?
                .starts_with("HTTP/1.1 403")
        );
        for who in [None, Some(&unknown)] {
            // With TLS 1.3 a client learns that it is turned away when it reads.
            let answer = match authority.connect(&stage, who).await {
                Ok(mut stream) => get(&mut stream, "/").await,
                Err(error) => Err(error),
            };
            ensure!(answer.is_err() || answer.is_ok_and(|it| it.is_empty()));
        }
        Ok(())
    })?;
    let told = reports.recv_timeout(PATIENCE)?.tls;
    let told = told.ok_or_else(|| anyhow::anyhow!("no TLS in the report"))?;
    ensure!(told.version == "1.3" && told.cipher.starts_with("TLS_AES_"));
    ensure!(told.client_subject.as_deref() == Some("Partner"));
    ensure!(told.client_sha256.is_some_and(|it| it.len() == 64));
    wait_until("both are turned away", || {
        stage.handle.counters().failed_handshakes == 2
    })
}

#[test]
fn certificates_of_clients_may_be_optional() -> Result<()> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let mut tls = authority.tls()?;
    tls.clients = authority.clients(false);
    let stage = Stage::with(ok, |config| config.listeners[0].tls = Some(tls))?;
    let unknown = stranger.sign("partner")?;
    on_runtime(async {
        let mut stream = authority.connect(&stage, None).await?;
        ensure!(get(&mut stream, "/").await?.starts_with("HTTP/1.1 200"));
        let refused = match authority.connect(&stage, Some(&unknown)).await {
            Ok(mut stream) => get(&mut stream, "/").await.map_or(true, |it| it.is_empty()),
            Err(_) => true,
        };
        ensure!(refused);
        Ok(())
    })
}

#[test]
fn old_versions_are_turned_away_where_the_minimum_says_so() -> Result<()> {
    let authority = Authority::new()?;
    let speaks = |minimum, version| -> Result<bool> {
        let mut tls = authority.tls()?;
        tls.minimum = minimum;
        let stage = Stage::with(ok, |config| config.listeners[0].tls = Some(tls))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        on_runtime(async {
            let stream = TcpStream::connect(stage.address).await?;
            let name = ServerName::try_from("localhost")?;
            let connector = TlsConnector::from(Arc::new(config));
            Ok(connector.connect(name, stream).await.is_ok())
        })
    };
    ensure!(speaks(TlsVersion::Tls12, &rustls::version::TLS12)?);
    ensure!(speaks(TlsVersion::Tls13, &rustls::version::TLS13)?);
    ensure!(!speaks(TlsVersion::Tls13, &rustls::version::TLS12)?);
    Ok(())
}

/// The backend is another edge, which asks for certificates.
#[test]
fn backends_are_shown_who_asks() -> Result<()> {
    let authority = Authority::new()?;
    let mut tls = authority.tls()?;
    tls.clients = authority.clients(true);
    let backend = Stage::with(ok, |config| config.listeners[0].tls = Some(tls))?;
    let own = authority.sign("edge")?;
    let before = |identity: Option<Identity>| {
        Stage::with(ok, |config: &mut Config| {
            config.services[0].upstreams = vec![backend.address];
            config.services[0].tls = Some(UpstreamTls {
                server_name: "localhost".to_owned(),
                authorities: Some(authority.file("ca.pem")),
                identity,
            });
        })
    };
    ensure!(before(Some(own.clone()))?.client()?.get("/")?.status == 200);
    ensure!(before(None)?.client()?.get("/")?.status == 502);
    let mixed = Identity {
        key: authority.sign("other")?.key,
        ..own
    };
    let error = before(Some(mixed)).err().map(|it| it.to_string());
    ensure!(
        error.as_ref().is_some_and(|it| it.contains("and its key")),
        "{error:?}"
    );
    Ok(())
}

#[test]
fn a_socket_that_listens_already_is_taken_over() -> Result<()> {
    let socket = TcpListener::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    // A client that has come before the edge has.
    let early = crate::stage::Client::of(address)?;
    let stage = Stage::with(ok, |config| {
        config.listeners[0].address = address;
        config.inherited = vec![socket];
    })?;
    let mut early = early;
    ensure!(early.get("/")?.status == 200);
    ensure!(stage.address == address);
    ensure!(TcpListener::bind(address).is_err());
    Ok(())
}
