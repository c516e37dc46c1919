//! TLS to receivers: who they are is checked against the system's certificate authorities, or those of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::Error;

/// The certificates of the authorities that are trusted: those of `file`, or the system's.
///
/// # Errors
/// When there are none.
pub fn authorities(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs().certs;
        return match found.is_empty() {
            true => Err(Error::NoAuthorities),
            false => Ok(found),
        };
    };
    let fail = |error: rustls::pki_types::pem::Error| Error::Authorities {
        path: file.to_owned(),
        problem: error.to_string(),
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(fail)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(fail)?;
    match certificates.is_empty() {
        true => Err(Error::Authorities {
            path: file.to_owned(),
            problem: "there is no certificate in it".to_owned(),
        }),
        false => Ok(certificates),
    }
}

/// What all of it is computed with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client that trusts `authorities`.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client(authorities: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    // Some of the system's may be of a kind that is not supported: they are left out.
    roots.add_parsable_certificates(authorities);
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}
