//! Where it goes: files and standard output directly, network sinks from the spool.

pub(crate) mod courier;
pub(crate) mod elasticsearch;
pub(crate) mod file;
pub(crate) mod http;
pub(crate) mod local;
pub(crate) mod splunk;
pub(crate) mod syslog;
pub(crate) mod webhook;

use std::time::Duration;

use clew_outbound::Secret;

use crate::config::Format;
use crate::event::{Event, LINE_BYTES, ecs, ocsf};
use crate::{Observer, StartError};

/// Writes events in a format.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) format: Format,
    pub(crate) observer: Observer,
}

impl Writer {
    /// One line of JSON, without its end; at most [`LINE_BYTES`].
    pub(crate) fn line(&self, event: Event) -> Vec<u8> {
        self.line_within(event, LINE_BYTES)
    }

    /// The same of at most `limit` bytes, if that is enough for who, what and when.
    pub(crate) fn line_within(&self, event: Event, limit: usize) -> Vec<u8> {
        let write = |event: &Event| {
            let object = match self.format {
                Format::Ecs => ecs::object(event, &self.observer),
                Format::Ocsf => ocsf::object(event, &self.observer),
            };
            object.to_string().into_bytes()
        };
        event.fitted(limit, write).1
    }
}

/// An event as it goes on the wire.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
}

/// The other end of a network sink.
pub(crate) trait Transport: Send {
    /// What is sent of an event.
    fn write(&self, event: Event) -> Message;

    /// Sends messages, in order.
    ///
    /// # Errors
    /// When nothing is known of any of them to have arrived.
    fn send(&mut self, messages: &[Message]) -> Result<Answer, Failure>;
}

/// What the receiver said of the messages, by their places; of those not named, that it has them.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// It will never take them, and why.
    pub(crate) refused: Vec<(usize, String)>,
    /// It may take them later, and why.
    pub(crate) again: Vec<(usize, String)>,
}

/// Why nothing arrived.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The receiver is down, busy, or does not accept us: later it may be otherwise.
    #[error("{0}")]
    Later(String),
    /// What was sent is at fault: alone, some of it may be accepted.
    #[error("{0}")]
    Content(String),
}

/// The transport that the configuration asks for. Reads tokens and certificates.
pub(crate) fn transport(
    protocol: &crate::config::Protocol,
    authorities: Option<&std::path::Path>,
    timeout: Duration,
    writer: Writer,
) -> Result<Box<dyn Transport>, StartError> {
    use crate::config::Protocol;
    Ok(match protocol {
        Protocol::Syslog(receiver) => Box::new(syslog::Syslog::open(
            receiver,
            authorities,
            timeout,
            writer,
        )?),
        Protocol::Elasticsearch { url, token } => {
            let client = http::Client::open(url, authorities, timeout)?;
            let token = token.as_ref().map(Secret::read).transpose()?;
            Box::new(elasticsearch::Elasticsearch::new(client, token, writer))
        }
        Protocol::Splunk { url, index, token } => {
            let client = http::Client::open(url, authorities, timeout)?;
            let token = Secret::read(token)?;
            Box::new(splunk::Splunk::new(client, token, index.clone(), writer))
        }
        Protocol::Webhook {
            url,
            token,
            secret,
            body,
        } => {
            let client = http::Client::open(url, authorities, timeout)?;
            let token = token.as_ref().map(Secret::read).transpose()?;
            let secret = secret.as_ref().map(Secret::read).transpose()?;
            Box::new(webhook::Webhook::new(client, token, secret, *body, writer))
        }
    })
}
