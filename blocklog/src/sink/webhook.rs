//! Any HTTP endpoint: JSON lines or an array, signed where there is a secret.
//!
//! `x-clew-signature: sha256=HEX` is HMAC-SHA256 (RFC 2104) of `x-clew-timestamp`, a dot, and the body; the time is
//! seconds since the Unix epoch, so that a receiver can refuse what is old.

use std::time::{SystemTime, UNIX_EPOCH};

use clew_outbound::Secret;
use ring::hmac;

use super::http::Client;
use super::{Answer, Failure, Message, Transport, Writer};
use crate::config::WebhookBody;
use crate::event::Event;

pub(crate) struct Webhook {
    client: Client,
    authorization: Option<String>,
    key: Option<hmac::Key>,
    body: WebhookBody,
    writer: Writer,
}

impl Webhook {
    pub(crate) fn new(
        client: Client,
        token: Option<Secret>,
        secret: Option<Secret>,
        body: WebhookBody,
        writer: Writer,
    ) -> Self {
        let key = |it: Secret| hmac::Key::new(hmac::HMAC_SHA256, it.reveal().as_bytes());
        Self {
            client,
            authorization: token.map(|it| format!("Bearer {}", it.reveal())),
            key: secret.map(key),
            body,
            writer,
        }
    }

    fn body(&self, messages: &[Message]) -> Vec<u8> {
        let lines: Vec<&[u8]> = messages.iter().map(|it| it.bytes.as_slice()).collect();
        match self.body {
            WebhookBody::Lines => {
                let mut body = lines.join(&b'\n');
                body.push(b'\n');
                body
            }
            WebhookBody::Array => [b"[", lines.join(&b',').as_slice(), b"]"].concat(),
        }
    }
}

impl Transport for Webhook {
    fn write(&self, event: Event) -> Message {
        Message {
            id: event.id.clone(),
            bytes: self.writer.line(event),
        }
    }

    fn send(&mut self, messages: &[Message]) -> Result<Answer, Failure> {
        let body = self.body(messages);
        let kind = match self.body {
            WebhookBody::Lines => "application/x-ndjson",
            WebhookBody::Array => "application/json",
        };
        let mut headers = vec![("content-type", kind)];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        let signed = self.key.as_ref().map(|key| signature(key, &body));
        if let Some((at, signature)) = &signed {
            headers.push(("x-clew-timestamp", at));
            headers.push(("x-clew-signature", signature));
        }
        self.client.post(&headers, &body)?;
        Ok(Answer::default())
    }
}

fn signature(key: &hmac::Key, body: &[u8]) -> (String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let at = now.unwrap_or_default().as_secs().to_string();
    let mut context = hmac::Context::with_key(key);
    context.update(at.as_bytes());
    context.update(b".");
    context.update(body);
    let hex: String = context
        .sign()
        .as_ref()
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect();
    (at, format!("sha256={hex}"))
}
