//! One request at a time to an HTTP receiver, and what its answers mean.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Failure, tls};
use crate::StartError;
use crate::config::Place;
use crate::event::mask;

/// Most bytes of an answer that are read: of a bulk request of 10,000 events a kilobyte each.
const ANSWER_BYTES: u64 = 16 << 20;
/// Most bytes of an answer that an error shows.
const SHOWN_BYTES: usize = 200;

/// A token, or a key. It is never shown.
pub(crate) struct Secret(String);

impl Secret {
    /// Reads it from where it is. White space around it is left out.
    ///
    /// # Errors
    /// When it is not there, is empty, or is no text that a header can have.
    pub(crate) fn read(place: &Place) -> Result<Self, StartError> {
        let (name, text) = match place {
            Place::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| StartError::Secret {
                    place: path.display().to_string(),
                    problem: error.to_string(),
                })?;
                (path.display().to_string(), text)
            }
            Place::Environment(name) => (name.clone(), std::env::var(name).unwrap_or_default()),
        };
        let text = text.trim();
        match text.is_empty() || !text.bytes().all(|it| it.is_ascii_graphic()) {
            true => Err(StartError::Secret {
                place: name,
                problem: "it must be one word of visible ASCII".to_owned(),
            }),
            false => Ok(Self(text.to_owned())),
        }
    }

    /// To be put where it belongs.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Posts to one URL.
#[derive(Debug)]
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// `timeout` is for one request, all in all.
    pub(crate) fn open(
        url: &str,
        authorities: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, StartError> {
        let mut certificates = Vec::new();
        if url.starts_with("https:") {
            let found = tls::authorities(authorities)?;
            certificates.extend(found.iter().map(|it| Certificate::from_der(it).to_owned()));
        }
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&certificates))
            .unversioned_rustls_crypto_provider(tls::provider())
            .build();
        // Neither a proxy nor a redirect that nobody configured gets to see events.
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent("clew")
            .timeout_global(Some(timeout))
            .build();
        Ok(Self {
            agent: config.new_agent(),
            url: url.to_owned(),
        })
    }

    /// Posts `body`.
    ///
    /// # Errors
    /// When there is no answer, or one that says that nothing was taken.
    pub(crate) fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Result<Response, Failure> {
        let mut request = self.agent.post(&self.url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let later = |error: ureq::Error| Failure::Later(error.to_string());
        let mut response = request.send(body).map_err(later)?;
        let status = response.status().as_u16();
        let limited = response.body_mut().with_config().limit(ANSWER_BYTES);
        let body = limited.read_to_vec().map_err(later)?;
        let response = Response { status, body };
        match status {
            200..=299 => Ok(response),
            // The server has looked at what was sent, and did not like it.
            400 | 413 | 422 => Err(Failure::Content(response.shown(headers))),
            _ => Err(Failure::Later(response.shown(headers))),
        }
    }
}

impl Response {
    /// For an error: the beginning of the body, without what a server may repeat of the request's secrets.
    fn shown(&self, headers: &[(&str, &str)]) -> String {
        let mut text = String::from_utf8_lossy(&self.body).into_owned();
        for (_, value) in headers {
            for word in value.split_whitespace().filter(|it| it.len() >= 8) {
                text = text.replace(word, mask::MASK);
            }
        }
        text.truncate(text.floor_char_boundary(SHOWN_BYTES));
        let text: String = text.chars().filter(|it| !it.is_control()).collect();
        format!("HTTP status {}: {}", self.status, mask::text(&text))
    }
}
