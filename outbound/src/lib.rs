//! How Clew speaks to the receivers that a configuration names: what is sent tells much, so it goes where it is meant
//! to, to nobody in between, and what proves who sends it is never shown.
#![forbid(unsafe_code)]

mod error;
mod secret;
pub mod tls;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

pub use error::Error;
pub use secret::{Place, Secret};
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A client for `url`, blocking. `timeout` is for one request, all in all. Statuses are for the caller to judge.
///
/// # Errors
/// When the authorities that its certificate is to be of cannot be read.
pub fn client(
    url: &str,
    authorities: Option<&Path>,
    timeout: Duration,
) -> Result<ureq::Agent, Error> {
    let mut certificates = Vec::new();
    if url.starts_with("https:") {
        let found = tls::authorities(authorities)?;
        certificates.extend(found.iter().map(|it| Certificate::from_der(it).to_owned()));
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(tls::provider())
        .build();
    // Neither a proxy nor a redirect that nobody configured gets to see what is sent.
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent("clew")
        .timeout_global(Some(timeout))
        .build();
    Ok(config.new_agent())
}

/// `url`, as it is in a configuration, without the slash at its end.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn checked(url: &str, has_token: bool) -> Result<String, String> {
    let parsed: Uri = url
        .parse()
        .map_err(|error| format!("`url` cannot be read: {error}"))?;
    let authority = parsed.authority().map_or("", |it| it.as_str());
    if authority.contains('@') {
        return Err("`url` has a user in it; give the secret by `token_file`".to_owned());
    }
    let is_plain = match parsed.scheme_str() {
        Some("https") => false,
        Some("http") => true,
        _ => return Err("`url` must begin with https:// or http://".to_owned()),
    };
    let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = |it: IpAddr| it.is_loopback();
    let is_here = host == "localhost" || host.parse().is_ok_and(is_loopback);
    if is_plain && has_token && !is_here {
        return Err("a token over http:// can be read on its way; use https://".to_owned());
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_where_a_secret_may_go() {
        assert_eq!(checked("https://a:1/b/", true), Ok("https://a:1/b".into()));
        assert_eq!(checked("http://a", false), Ok("http://a".into()));
        for here in ["http://localhost:1", "http://127.9.0.1", "http://[::1]:2"] {
            assert!(checked(here, true).is_ok(), "{here}");
        }
        for (url, complaint) in [
            ("http://a", "use https://"),
            ("https://a:b@c", "token_file"),
            ("ftp://a", "begin with"),
            ("a b", "cannot be read"),
        ] {
            let error = checked(url, true).expect_err(url);
            assert!(error.contains(complaint), "{error}");
        }
    }
}
