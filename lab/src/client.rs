//! HTTP clients at loopback addresses of their own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a client got.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// 0: no response head came.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
    /// From the first byte sent to the last received.
    pub(crate) took: Duration,
}

impl Answer {
    /// Value of a header field.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends `request` from `source` to `port` on this host and reads what comes, whole or cut.
///
/// # Errors
///
/// The connection was refused or closed before anything was sent.
pub(crate) fn send(source: Ipv4Addr, port: u16, request: &str) -> Result<Answer> {
    send_to(source, (Ipv4Addr::LOCALHOST, port).into(), request)
}

/// A connection from an address of this host's.
pub(crate) fn connect_from(source: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// As [`send`], to wherever.
pub(crate) fn send_to(source: Ipv4Addr, to: SocketAddr, request: &str) -> Result<Answer> {
    let start = Instant::now();
    let mut stream = connect_from(source, to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let bytes = read_response(&mut stream);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Ok(Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
        took: start.elapsed(),
    })
}

/// Up to the declared length, else to the end of the connection.
fn read_response(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if is_whole(&bytes) {
            return bytes;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return bytes,
        }
    }
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return bytes.ends_with(b"0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| bytes.len() >= end + 4 + length)
}
