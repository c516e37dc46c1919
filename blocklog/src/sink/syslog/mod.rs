//! Syslog messages (RFC 5424), whose text is the event as JSON.
//!
//! Neither UDP nor TCP syslog has an answer that says "I have it". Over TCP and TLS each group of messages has a
//! connection of its own, which is closed in good order; a receiver that has read all closes its side then, one
//! that went away resets it, and the group is sent again. Over UDP what the network loses is lost.

mod connection;

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use connection::Endpoint;

use super::{Answer, Failure, Message, Transport, Writer};
use crate::StartError;
use crate::config::{SyslogReceiver, SyslogTransport};
use crate::event::{Event, Severity};

#[derive(Debug)]
pub(crate) struct Syslog {
    carrier: Carrier,
    facility: u8,
    /// None: without structured data.
    enterprise: Option<u32>,
    message_bytes: usize,
    process: u32,
    writer: Writer,
}

#[derive(Debug)]
enum Carrier {
    /// Each message is a datagram (RFC 5426).
    Datagrams(SocketAddr),
    /// Octet counting (RFC 6587 §3.4.1, RFC 5425 §4.3).
    Stream(Endpoint),
}

impl Syslog {
    pub(crate) fn open(
        receiver: &SyslogReceiver,
        authorities: Option<&Path>,
        timeout: Duration,
        writer: Writer,
    ) -> Result<Self, StartError> {
        let address = receiver.address;
        let name = &receiver.server_name;
        let carrier = match receiver.transport {
            SyslogTransport::Udp => Carrier::Datagrams(address),
            SyslogTransport::Tcp => Carrier::Stream(Endpoint::plain(address, timeout)),
            SyslogTransport::Tls => {
                Carrier::Stream(Endpoint::secure(address, timeout, name, authorities)?)
            }
        };
        Ok(Self {
            carrier,
            facility: receiver.facility,
            enterprise: receiver.enterprise,
            message_bytes: receiver.message_bytes,
            process: std::process::id(),
            writer,
        })
    }

    /// All that is before the text: `<110>1 TIMESTAMP HOSTNAME clew PID ACTION SD `.
    fn head(&self, event: &Event) -> String {
        let priority = u16::from(self.facility) * 8 + severity(event.severity());
        let hostname = printable(&self.writer.observer.hostname, 255);
        format!(
            "<{priority}>1 {} {hostname} clew {} {} {} ",
            event.timestamp(),
            self.process,
            event.action().name(),
            self.structured_data(event),
        )
    }

    /// RFC 5424 §6.3; `-` for none.
    fn structured_data(&self, event: &Event) -> String {
        let Some(enterprise) = self.enterprise else {
            return "-".to_owned();
        };
        let rule = event.leading_match().map(|it| it.id.to_string());
        let client = event.report.as_ref().map(|it| it.client.address);
        let client = client.or_else(|| Some(event.incident()?.request.as_ref()?.source_ip));
        let parameters = [
            ("id", Some(event.id.clone())),
            ("severity", Some(event.severity().caption().to_lowercase())),
            ("service", event.service().map(str::to_owned)),
            ("client", client.map(|it| it.to_string())),
            ("rule", rule),
            ("incident", event.incident().map(|it| it.id.to_string())),
        ];
        let mut data = format!("[clew@{enterprise}");
        for (name, value) in parameters {
            let Some(value) = value else { continue };
            data.push_str(&format!(" {name}=\"{}\"", escaped(&value)));
        }
        data.push(']');
        data
    }
}

/// RFC 5424 table 2.
fn severity(severity: Severity) -> u16 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Informational => 6,
    }
}

/// Visible ASCII, at most `limit` bytes; `-` for none.
fn printable(text: &str, limit: usize) -> String {
    let visible = text.chars().filter(char::is_ascii_graphic).take(limit);
    let visible: String = visible.collect();
    if visible.is_empty() {
        "-".to_owned()
    } else {
        visible
    }
}

/// RFC 5424 §6.3.3; at most 128 bytes of a value.
fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for letter in value[..value.floor_char_boundary(128)].chars() {
        if matches!(letter, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(if letter.is_control() { ' ' } else { letter });
    }
    escaped
}

impl Transport for Syslog {
    fn write(&self, event: Event) -> Message {
        let id = event.id.clone();
        let mut bytes = self.head(&event).into_bytes();
        let rest = self.message_bytes.saturating_sub(bytes.len());
        bytes.extend(self.writer.line_within(event, rest));
        Message { id, bytes }
    }

    fn send(&mut self, messages: &[Message]) -> Result<Answer, Failure> {
        let sent = match &mut self.carrier {
            Carrier::Datagrams(address) => datagrams(*address, messages),
            Carrier::Stream(endpoint) => endpoint.deliver(&frames(messages)),
        };
        sent.map(|()| Answer::default())
            .map_err(|error| Failure::Later(error.to_string()))
    }
}

fn frames(messages: &[Message]) -> Vec<u8> {
    let mut frames = Vec::new();
    for message in messages {
        frames.extend(format!("{} ", message.bytes.len()).into_bytes());
        frames.extend(&message.bytes);
    }
    frames
}

/// That nobody listens is known on this host, and where a router says so.
fn datagrams(address: SocketAddr, messages: &[Message]) -> std::io::Result<()> {
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(address)?;
    for message in messages {
        socket.send(&message.bytes)?;
    }
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
