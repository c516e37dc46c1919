//! The PROXY header (haproxy.org, "The PROXY protocol", versions 1 and 2) before anything else
//! on a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest header taken: version 2 with the largest addresses and a kilobyte of extensions.
const LIMIT_BYTES: usize = 1280;

/// What the header says, and what came after it.
#[derive(Debug)]
pub(crate) struct Preface {
    /// The client; none for a connection of the balancer's own (`LOCAL`, `UNKNOWN`).
    pub(crate) client: Option<SocketAddr>,
    /// Bytes read beyond the header.
    pub(crate) rest: Vec<u8>,
}

/// Reads the header from the start of `stream`.
///
/// # Errors
///
/// `InvalidData` when it is malformed, or longer than the bound; what reading gives otherwise.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Preface> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = HeaderResult::parse(&bytes);
        if is_incomplete(&bytes, &header) && bytes.len() < LIMIT_BYTES {
            continue;
        }
        let (client, length) = decode(&header).ok_or(io::ErrorKind::InvalidData)?;
        let rest = bytes.split_off(length);
        return Ok(Preface { client, rest });
    }
}

/// Whether more may come. The parser takes a line that ends just before its last port for
/// malformed, so a version 1 header is judged by its line's end.
fn is_incomplete(bytes: &[u8], header: &HeaderResult<'_>) -> bool {
    header.is_incomplete() || (bytes.starts_with(b"PROXY ") && !bytes.contains(&b'\n'))
}

fn decode(header: &HeaderResult<'_>) -> Option<(Option<SocketAddr>, usize)> {
    match header {
        HeaderResult::V1(Ok(header)) => Some((client_v1(&header.addresses), header.header.len())),
        HeaderResult::V2(Ok(header)) => {
            let client = match header.command {
                v2::Command::Proxy => client_v2(&header.addresses),
                v2::Command::Local => None,
            };
            Some((client, header.len()))
        }
        _ => None,
    }
}

fn client_v1(addresses: &v1::Addresses) -> Option<SocketAddr> {
    match addresses {
        v1::Addresses::Tcp4(it) => Some((IpAddr::V4(it.source_address), it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((IpAddr::V6(it.source_address), it.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

fn client_v2(addresses: &v2::Addresses) -> Option<SocketAddr> {
    match addresses {
        v2::Addresses::IPv4(it) => Some((IpAddr::V4(it.source_address), it.source_port).into()),
        v2::Addresses::IPv6(it) => Some((IpAddr::V6(it.source_address), it.source_port).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_header_is_incomplete() {
        let mut version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
        version_2.extend([0; 12]);
        let version_1 = b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n";
        let mut wrong = Vec::new();
        for header in [
            &version_2[..],
            version_1,
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"PROXY UNKNOWN\r\n",
        ] {
            for length in 1..header.len() {
                let part = &header[..length];
                if !is_incomplete(part, &HeaderResult::parse(part)) {
                    wrong.push(String::from_utf8_lossy(part));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
