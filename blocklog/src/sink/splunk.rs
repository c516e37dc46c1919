//! Splunk's HTTP Event Collector. It knows no ids: an event that is sent again is there twice, with the same
//! `event.id`.

use clew_outbound::Secret;
use serde_json::json;

use super::http::Client;
use super::{Answer, Failure, Message, Transport, Writer};
use crate::event::Event;

#[derive(Debug)]
pub(crate) struct Splunk {
    client: Client,
    authorization: String,
    index: Option<String>,
    writer: Writer,
}

impl Splunk {
    pub(crate) fn new(
        client: Client,
        token: Secret,
        index: Option<String>,
        writer: Writer,
    ) -> Self {
        Self {
            client,
            authorization: format!("Splunk {}", token.reveal()),
            index,
            writer,
        }
    }
}

impl Transport for Splunk {
    fn write(&self, event: Event) -> Message {
        let id = event.id.clone();
        let at = event.at();
        let sourcetype = match self.writer.format {
            crate::Format::Ecs => "clew:ecs",
            crate::Format::Ocsf => "clew:ocsf",
        };
        let mut envelope = json!({
            "time": format!("{}.{:03}", at.as_secs(), at.subsec_millis()),
            "host": self.writer.observer.hostname,
            "source": "clew",
            "sourcetype": sourcetype,
        });
        if let Some(index) = &self.index {
            envelope["index"] = json!(index);
        }
        // The event is JSON already: it goes before the brace that closes.
        let mut bytes = envelope.to_string().into_bytes();
        bytes.pop();
        bytes.extend(b",\"event\":");
        bytes.extend(self.writer.line(event));
        bytes.extend(b"}\n");
        Message { id, bytes }
    }

    fn send(&mut self, messages: &[Message]) -> Result<Answer, Failure> {
        let body: Vec<u8> = messages
            .iter()
            .flat_map(|it| it.bytes.iter().copied())
            .collect();
        let headers = [
            ("content-type", "application/json"),
            ("authorization", &self.authorization),
        ];
        self.client.post(&headers, &body)?;
        Ok(Answer::default())
    }
}
