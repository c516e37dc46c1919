//! Elasticsearch's bulk API, and that of OpenSearch: each event is created under its own id, so that one that is sent
//! again is there once (status 409), as long as it goes to the same index or backing index.

use clew_outbound::Secret;
use serde::Deserialize;
use serde_json::json;

use super::http::Client;
use super::{Answer, Failure, Message, Transport, Writer};
use crate::event::Event;

#[derive(Debug)]
pub(crate) struct Elasticsearch {
    client: Client,
    authorization: Option<String>,
    writer: Writer,
}

impl Elasticsearch {
    pub(crate) fn new(client: Client, token: Option<Secret>, writer: Writer) -> Self {
        let authorization = token.map(|it| format!("ApiKey {}", it.reveal()));
        Self {
            client,
            authorization,
            writer,
        }
    }
}

/// What is read of an answer.
#[derive(Debug, Deserialize)]
struct Bulk {
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    create: Created,
}

#[derive(Debug, Deserialize)]
struct Created {
    status: u16,
    error: Option<serde_json::Value>,
}

impl Transport for Elasticsearch {
    fn write(&self, event: Event) -> Message {
        let id = event.id.clone();
        let mut bytes = json!({"create": {"_id": id}}).to_string().into_bytes();
        bytes.push(b'\n');
        bytes.extend(self.writer.line(event));
        bytes.push(b'\n');
        Message { id, bytes }
    }

    fn send(&mut self, messages: &[Message]) -> Result<Answer, Failure> {
        let body: Vec<u8> = messages
            .iter()
            .flat_map(|it| it.bytes.iter().copied())
            .collect();
        let mut headers = vec![("content-type", "application/x-ndjson")];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        let response = self.client.post(&headers, &body)?;
        let bulk: Bulk = serde_json::from_slice(&response.body).map_err(|error| {
            Failure::Later(format!("the answer is not that of a bulk request: {error}"))
        })?;
        if bulk.items.len() != messages.len() {
            let problem = "the answer has not as many items as the request";
            return Err(Failure::Later(problem.to_owned()));
        }
        let mut answer = Answer::default();
        for (place, item) in bulk.items.into_iter().enumerate() {
            match item.create.status {
                // There already: it was sent before, and the answer was lost.
                200..=299 | 409 => {}
                429 | 500..=599 => answer.again.push((place, reason(item.create))),
                _ => answer.refused.push((place, reason(item.create))),
            }
        }
        Ok(answer)
    }
}

fn reason(created: Created) -> String {
    let text = |key: &str| {
        created
            .error
            .as_ref()?
            .get(key)?
            .as_str()
            .map(str::to_owned)
    };
    let kind = text("type").unwrap_or_default();
    let why = text("reason").unwrap_or_default();
    let mut reason = format!("status {}: {kind}: {why}", created.status);
    reason.truncate(reason.floor_char_boundary(300));
    crate::event::mask::text(&reason)
}
