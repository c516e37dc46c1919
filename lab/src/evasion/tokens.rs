//! Tokens where none belongs. A visitor's request is in flight, the attacker knows its token, and
//! sends it, or one like it, along with an attack: through Clew, and straight to the backend. What
//! must not happen is that the visitor is blamed for it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clew_protocol::incident::Incident;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::cases::news;
use super::stage::{Mode, Stage, get};
use super::watch::{Outcome, Verdict, concerns, describe, mentions, named};
use crate::clew::Clew;
use crate::client::send;

const VICTIM: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 7);
const STRAIGHT: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 2);
const NAME: &str = "x-clew-token";
/// Hexadecimal digits of a token.
const DIGITS: usize = 32;
const SETTLE: Duration = Duration::from_millis(400);

/// What kind of token, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A header; the visitor's token with another MAC.
    Forged,
    /// A header; the visitor's.
    Replayed,
    /// A header; one that the attacker's own request before was answered with.
    Echoed,
    /// A header; the first digits of the visitor's.
    Truncated,
    /// The query.
    Url,
    /// The body, looking like a head.
    Body,
    /// A folded header line.
    Continuation,
    /// The trailer of a chunked body.
    Trailer,
}

/// Plays the case through Clew and straight.
pub(crate) fn play(
    stage: &mut Stage,
    clew: &Clew,
    name: &str,
    place: Place,
    source: Ipv4Addr,
) -> Result<Outcome> {
    let victim = Visitor::wait(clew.port)?;
    let token = token_for(place, &victim.token, clew, source)?;
    let before = clew.incidents()?;
    let backend = stage.backend(Mode::Plain)?;
    let (through, straight) = (stage.mark(name, "through"), stage.mark(name, "straight"));
    let request = |mark: &str| request(place, &token, mark);
    let answer = send(source, clew.port, &request(&through))?;
    std::thread::sleep(SETTLE);
    send(STRAIGHT, backend, &request(&straight))?;
    std::thread::sleep(SETTLE);
    // An incident of the case before may come late, after a flood.
    let is_own = |it: &Incident| {
        mentions(it, &through) || mentions(it, &straight) || named(it) == Some(IpAddr::V4(VICTIM))
    };
    let mut news = news(clew, &before)?;
    news.retain(is_own);
    drop(victim);
    for incident in &news {
        let is_straight = mentions(incident, &straight);
        let wrong = match named(incident) {
            Some(address) if is_straight => Some(address),
            Some(address) => (address != IpAddr::V4(source)).then_some(address),
            None => None,
        };
        if let Some(address) = wrong {
            let how = if is_straight {
                "straight"
            } else {
                "through Clew"
            };
            let reason = format!(
                "{address} is blamed for what was sent {how}: {}",
                describe(incident)
            );
            return Ok(Outcome::new(Verdict::Missed, reason));
        }
    }
    let own = news
        .iter()
        .find(|it| concerns(it, source) && mentions(it, &through));
    let ran = if stage.is_marked(&straight) {
        "ran"
    } else {
        "did not run"
    };
    if stage.is_marked(&through) {
        return Ok(Outcome::new(Verdict::Missed, "the program ran"));
    }
    let reason = match own {
        Some(incident) => describe(incident),
        None => {
            ensure!(
                answer.status == 400,
                "status {} and no incident for the attack",
                answer.status
            );
            "refused as malformed".to_owned()
        }
    };
    Ok(Outcome::new(
        Verdict::Stopped,
        format!("{reason}; sent straight, the program {ran}, and nobody is blamed"),
    ))
}

fn token_for(place: Place, seen: &str, clew: &Clew, source: Ipv4Addr) -> Result<String> {
    Ok(match place {
        Place::Forged => format!("{}{}", &seen[..DIGITS / 2], "0123456789abcdef"),
        Place::Truncated => seen[..DIGITS - 12].to_owned(),
        Place::Echoed => {
            let answer = send(source, clew.port, &get(Mode::Plain, "/echo"))?;
            token_in(&answer.body).context("the echo has no token")?
        }
        _ => seen.to_owned(),
    })
}

fn request(place: Place, token: &str, mark: &str) -> String {
    let target = format!("/run?case=exec&mark={mark}&port=9");
    let line = format!("{NAME}: {token}");
    match place {
        Place::Forged | Place::Replayed | Place::Echoed | Place::Truncated => {
            format!("GET {target} HTTP/1.1\r\n{line}\r\nHost: plain\r\n\r\n")
        }
        Place::Url => format!(
            "GET {target}&x=%0d%0a{NAME}:%20{token}%0d%0a&y={NAME}:+{token} HTTP/1.1\r\nHost: plain\r\n\r\n"
        ),
        Place::Body => {
            let body = format!("\r\n{line}\r\n\r\nGET / HTTP/1.1\r\n{line}\r\n\r\n");
            format!(
                "POST {target} HTTP/1.1\r\nHost: plain\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }
        Place::Continuation => {
            format!("GET {target} HTTP/1.1\r\nX-A: b\r\n {line}\r\n\t{line}\r\nHost: plain\r\n\r\n")
        }
        Place::Trailer => format!(
            "POST {target} HTTP/1.1\r\nHost: plain\r\nTransfer-Encoding: chunked\r\n\
             Trailer: {NAME}\r\n\r\n1\r\nx\r\n0\r\n{line}\r\n\r\n"
        ),
    }
}

/// A request in flight, of which the token is known: the application shows its request's head.
struct Visitor {
    token: String,
    _stream: TcpStream,
}

impl Visitor {
    fn wait(port: u16) -> Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::from((VICTIM, 0)))?;
        connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(get(Mode::Plain, "/wait?ms=3000").as_bytes())?;
        let mut text = String::new();
        let mut buffer = [0; 2048];
        let token = loop {
            let read = stream.read(&mut buffer)?;
            ensure!(read > 0, "the visitor's request was cut: {text}");
            text += &String::from_utf8_lossy(&buffer[..read]);
            if let Some(token) = token_in(&text) {
                break token;
            }
        };
        Ok(Self {
            token,
            _stream: stream,
        })
    }
}

/// The token in what an application shows of its request.
fn token_in(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("{NAME}: "))?;
    Some(rest.get(..DIGITS)?.to_owned())
}
