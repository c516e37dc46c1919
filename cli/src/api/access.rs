//! Who may ask: processes of this host at the socket, holders of tokens or certificates on TCP.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use subtle::{Choice, ConstantTimeEq};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::problem::Problem;
use crate::audit::Actor;
use crate::raw;

/// Fewest bytes of a token: 32 random letters cannot be guessed.
const TOKEN_BYTES: usize = 32;
/// Most tokens; all are compared.
const TOKENS: usize = 32;

/// The API on TCP, as it is configured.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    token_file: Option<PathBuf>,
    tls: Option<RemoteTls>,
}

#[derive(Debug, Clone)]
struct RemoteTls {
    certificate: PathBuf,
    key: PathBuf,
    client_authorities: PathBuf,
}

impl Remote {
    /// None where the table names no address.
    ///
    /// # Errors
    ///
    /// Anybody could ask, or anybody could listen.
    pub(crate) fn check(table: &raw::AdminTable) -> Result<Option<Self>> {
        let Some(address) = table.listen else {
            ensure!(
                table.token_file.is_none() && table.tls.is_none(),
                "[admin] has no listen: who would be asked for a token or a certificate?"
            );
            return Ok(None);
        };
        if table.tls.is_none() {
            ensure!(
                address.ip().is_loopback(),
                "admin.listen = \"{address}\" is open to others: they need certificates (admin.tls), \
                 or listen on 127.0.0.1"
            );
            ensure!(
                table.token_file.is_some(),
                "admin.listen needs admin.token_file, or admin.tls: anybody on this host could ask"
            );
        }
        let tls = table.tls.as_ref().map(|tls| RemoteTls {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            client_authorities: tls.client_authorities.clone(),
        });
        Ok(Some(Self {
            address,
            token_file: table.token_file.clone(),
            tls,
        }))
    }

    /// Reads the tokens, while there are rights to.
    pub(crate) fn tokens(&self) -> Result<Option<Tokens>> {
        self.token_file.as_deref().map(Tokens::read).transpose()
    }

    /// TLS 1.3 that only clients of the authorities can speak.
    pub(crate) fn acceptor(&self) -> Result<Option<tokio_rustls::TlsAcceptor>> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&tls.client_authorities)? {
            authorities
                .add(authority)
                .with_context(|| format!("cannot use {}", tls.client_authorities.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
        let verifier = verifier
            .build()
            .with_context(|| format!("cannot use {}", tls.client_authorities.display()))?;
        let key = PrivateKeyDer::from_pem_file(&tls.key)
            .with_context(|| format!("cannot use the key {}", tls.key.display()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&tls.certificate)?, key)
            .with_context(|| format!("cannot use {}", tls.certificate.display()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Arc::new(config).into()))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .collect();
    let chain = chain.with_context(|| format!("cannot use {}", path.display()))?;
    ensure!(!chain.is_empty(), "{} has no certificate", path.display());
    Ok(chain)
}

/// The subject of a certificate (RFC 5280 §4.1.2.6) as the audit log has it.
pub(crate) fn subject_of(certificate: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => certificate.subject().to_string(),
        Err(_) => "unreadable".to_owned(),
    }
}

/// Tokens and the names of those who have them. Nothing prints a token.
pub(crate) struct Tokens(Vec<(String, Vec<u8>)>);

impl Tokens {
    /// # Errors
    ///
    /// Others could read the file, or a line is no name and token.
    fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let metadata = std::fs::metadata(path)
            .with_context(|| format!("cannot read admin.token_file {name}"))?;
        ensure!(
            metadata.mode() & 0o077 == 0,
            "{name} can be read by others: chmod 600 {name}"
        );
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read admin.token_file {name}"))?;
        let mut tokens = Vec::new();
        for (nth, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(holder), Some(token), None) = (words.next(), words.next(), words.next())
            else {
                bail!("{name}:{}: a line is a name and a token", nth + 1);
            };
            ensure!(
                token.len() >= TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic()),
                "{name}:{}: a token has {TOKEN_BYTES} bytes of ASCII or more: openssl rand -hex 32",
                nth + 1
            );
            tokens.push((holder.to_owned(), token.as_bytes().to_vec()));
        }
        ensure!(
            (1..=TOKENS).contains(&tokens.len()),
            "{name} has {} tokens; 1 to {TOKENS} are used",
            tokens.len()
        );
        Ok(Self(tokens))
    }

    /// Whose token the request has (RFC 6750 §2.1). Takes as long whichever it is like, and however much.
    pub(crate) fn holder(&self, headers: &HeaderMap) -> Result<Actor, Problem> {
        let refused = || {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "Authorization: Bearer TOKEN is needed",
            )
        };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(refused());
        };
        let value = value.as_bytes();
        let (scheme, given) = value.split_at_checked(7).unwrap_or_default();
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
        let mut found = None;
        for (name, token) in &self.0 {
            let is_it: Choice = token.as_slice().ct_eq(given);
            if bool::from(is_it) && is_bearer {
                found = Some(name.clone());
            }
        }
        let name = found.ok_or_else(refused)?;
        Ok(Actor::Token { name })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn tokens(text: &str, mode: u32) -> Result<Tokens> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("tokens");
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        Tokens::read(&path)
    }

    #[test]
    fn a_token_names_its_holder() {
        let text = format!("# who\n\nops {TOKEN}\nother {}\n", TOKEN.to_uppercase());
        let tokens = tokens(&text, 0o600).expect("tokens");
        let with = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value.parse().expect("value"));
            }
            tokens.holder(&headers)
        };
        let right = format!("Bearer {TOKEN}");
        let name = "ops".to_owned();
        assert_eq!(with(&[&right]), Ok(Actor::Token { name }));
        let cut = &right[..right.len() - 1];
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &[cut],
            &[TOKEN],
            &[&format!("Basic  {TOKEN}")],
            &[&format!("{right}x")],
            &[&right, &right],
        ] {
            let error = with(wrong).expect_err("refused");
            assert_eq!(error.status, 401, "{wrong:?}");
        }
    }

    #[test]
    fn weak_files_are_refused() {
        let many: String = (0..33).map(|n| format!("n{n} {TOKEN}{n}\n")).collect();
        for (text, mode, complaint) in [
            (format!("ops {TOKEN}"), 0o640, "chmod 600"),
            (String::new(), 0o600, "has 0 tokens"),
            (many, 0o600, "has 33 tokens"),
            ("ops short".to_owned(), 0o600, "openssl rand"),
            (TOKEN.to_owned(), 0o600, "a name and a token"),
        ] {
            let error = tokens(&text, mode).err().expect("refused").to_string();
            assert!(error.contains(complaint), "{error}");
            assert!(!error.contains(TOKEN), "{error}");
        }
    }

    #[test]
    fn nobody_listens_to_everybody() {
        let check = |text: &str| Remote::check(&toml::from_str(text).expect("table"));
        let tls = "tls = { certificate = \"c\", key = \"k\", client_authorities = \"a\" }";
        for (text, complaint) in [
            (
                "listen = \"0.0.0.0:9\"\ntoken_file = \"t\"".to_owned(),
                "certificates",
            ),
            ("listen = \"127.0.0.1:9\"".to_owned(), "admin.token_file"),
            ("token_file = \"t\"".to_owned(), "no listen"),
            (tls.to_owned(), "no listen"),
        ] {
            let error = check(&text).expect_err("refused").to_string();
            assert!(error.contains(complaint), "{error}");
        }
        assert!(check("").expect("table").is_none());
        for text in [
            "listen = \"127.0.0.1:9\"\ntoken_file = \"t\"".to_owned(),
            format!("listen = \"0.0.0.0:9\"\n{tls}"),
        ] {
            assert!(check(&text).expect("table").is_some());
        }
    }
}
