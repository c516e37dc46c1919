//! One request at a time to an HTTP receiver, and what its answers mean.

use std::path::Path;
use std::time::Duration;

use super::Failure;
use crate::StartError;
use crate::event::mask;

/// Most bytes of an answer that are read: of a bulk request of 10,000 events a kilobyte each.
const ANSWER_BYTES: u64 = 16 << 20;
/// Most bytes of an answer that an error shows.
const SHOWN_BYTES: usize = 200;

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
        Ok(Self {
            agent: clew_outbound::client(url, authorities, timeout)?,
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
