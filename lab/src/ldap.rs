//! An LDAP responder (RFC 4511) that answers every search with a reference to an object factory:
//! what an attacker runs for Log4Shell. It knows three messages and reads no more than it needs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND_REQUEST: u8 = 0x42;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_RESULT_ENTRY: u8 = 0x64;
const SEARCH_RESULT_DONE: u8 = 0x65;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Longest message taken.
const LIMIT_BYTES: usize = 4096;

/// The responder; its thread ends with the process.
pub(crate) struct Responder {
    pub(crate) port: u16,
}

impl Responder {
    /// Answers a search below `NAME` with a reference whose marker is `markers/NAME`.
    pub(crate) fn start(markers: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let markers = markers.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let markers = markers.clone();
                std::thread::spawn(move || converse(stream, &markers));
            }
        });
        Ok(Self { port })
    }
}

fn converse(mut stream: TcpStream, markers: &Path) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    loop {
        let message = read_message(&mut stream)?;
        let (id, rest) = element(&message, INTEGER)?;
        match rest.first() {
            Some(&BIND_REQUEST) => stream.write_all(&result(id, BIND_RESPONSE))?,
            Some(&SEARCH_REQUEST) => {
                let (search, _) = element(rest, SEARCH_REQUEST)?;
                let (base, _) = element(search, OCTET_STRING)?;
                let name = std::str::from_utf8(base).context("name is not UTF-8")?;
                ensure!(is_plain(name), "name {name:?} is no marker");
                stream.write_all(&entry(id, name, &markers.join(name)))?;
                stream.write_all(&result(id, SEARCH_RESULT_DONE))?;
            }
            Some(&UNBIND_REQUEST) | None => return Ok(()),
            Some(other) => bail!("unexpected operation {other:#x}"),
        }
    }
}

/// A name that cannot lead out of the marker directory.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The contents of the next message.
fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    ensure!(head[0] == SEQUENCE, "not an LDAP message");
    let length = match head[1] {
        short @ 0..=0x7f => usize::from(short),
        long => {
            let mut bytes = [0; 4];
            let count = usize::from(long & 0x7f);
            ensure!((1..=4).contains(&count), "length of {count} bytes");
            stream.read_exact(&mut bytes[4 - count..])?;
            u32::from_be_bytes(bytes) as usize
        }
    };
    ensure!(length <= LIMIT_BYTES, "message of {length} bytes");
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// The contents of the element of type `tag` at the start of `bytes`, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first().context("message ends early")?;
    ensure!(found == tag, "element {found:#x} where {tag:#x} belongs");
    let (&first, rest) = rest.split_first().context("message ends early")?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let count = usize::from(long & 0x7f);
            ensure!(count <= 2 && count <= rest.len(), "length of {count} bytes");
            let (bytes, rest) = rest.split_at(count);
            (
                bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
                rest,
            )
        }
    };
    ensure!(length <= rest.len(), "element is cut short");
    Ok(rest.split_at(length))
}

fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend(content);
    out
}

/// LDAPResult: success.
fn result(id: &[u8], tag: u8) -> Vec<u8> {
    let empty = encode(OCTET_STRING, &[]);
    let result = encode(tag, &[&encode(ENUMERATED, &[&[0]]), &empty, &empty]);
    encode(SEQUENCE, &[&encode(INTEGER, &[id]), &result])
}

/// A naming reference (RFC 2713 §3.3) to the factory on the service's own class path.
fn entry(id: &[u8], name: &str, marker: &Path) -> Vec<u8> {
    let address = format!("#0#marker#{}", marker.display());
    let attributes: Vec<u8> = [
        ("objectClass", "javaNamingReference"),
        ("javaClassName", "java.lang.String"),
        ("javaFactory", "MarkerFactory"),
        ("javaReferenceAddress", &address),
    ]
    .iter()
    .flat_map(|(kind, value)| {
        let values = encode(SET, &[&encode(OCTET_STRING, &[value.as_bytes()])]);
        encode(
            SEQUENCE,
            &[&encode(OCTET_STRING, &[kind.as_bytes()]), &values],
        )
    })
    .collect();
    let name = encode(OCTET_STRING, &[name.as_bytes()]);
    let entry = encode(
        SEARCH_RESULT_ENTRY,
        &[&name, &encode(SEQUENCE, &[&attributes])],
    );
    encode(SEQUENCE, &[&encode(INTEGER, &[id]), &entry])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_bounded() {
        assert!(element(&[OCTET_STRING, 5, 1, 2], OCTET_STRING).is_err());
        assert!(element(&[OCTET_STRING, 0x84, 0xff, 0xff, 0xff, 0xff], OCTET_STRING).is_err());
        assert!(element(&[], OCTET_STRING).is_err());
        let long = encode(OCTET_STRING, &[&[7; 300]]);
        let (content, rest) = element(&long, OCTET_STRING).expect("element");
        assert_eq!((content.len(), rest.len()), (300, 0));
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        assert!(is_plain("m-17"));
        for name in ["", "../x", "a/b", "a b"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
