//! Phases 1 and 2: what a client has sent, before a backend hears of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clew_protocol::report;
use clew_rules::engine::Connection;
use http::Version;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HOST, TE};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, Result};
use tokio::time::{Instant, timeout_at};

use super::decode::{self, Coding, Outcome};
use super::kept::Share;
use super::{Inspection, Inspector};
use crate::client::Neighbours;
use crate::config::UnknownCoding;
use crate::exchange::{Exchange, Gateway};
use crate::held::{Held, Replay};
use crate::page::Answer;
use crate::request_line::RequestLine;

/// The body of a request, as far as it was read for the rules.
pub(super) struct RequestBody {
    pieces: VecDeque<Bytes>,
    pub(super) bytes: usize,
    /// For `pieces`.
    share: Share,
    /// For what the engine makes of them.
    copied: Option<Share>,
    /// Nothing of the body is left on the client's connection.
    is_complete: bool,
    /// The client was told to go on; the backend need not.
    is_continued: bool,
}

impl RequestBody {
    pub(super) fn new(share: Share) -> Self {
        Self {
            pieces: VecDeque::new(),
            bytes: 0,
            share,
            copied: None,
            is_complete: false,
            is_continued: false,
        }
    }
}

impl Gateway {
    /// Phases 1 and 2: the answer that the request gets instead of its backend's. What pingora did
    /// not get as it was is in `line`.
    ///
    /// # Errors
    ///
    /// The client has gone, or what it sends is no body.
    pub(crate) async fn inspect_request(
        &self,
        inspector: &Arc<Inspector>,
        session: &mut Session,
        line: Option<&RequestLine>,
        ctx: &mut Exchange,
    ) -> Result<Option<Answer>> {
        let id = ctx.id_value()?;
        let bounds = Bounds {
            time_left: self.body_time_left(ctx),
            bytes: self.limits.body_bytes,
            // Nobody is sent the body of a request that is refused.
            has_body: line.is_none_or(|line| line.refusal.is_none()),
        };
        ctx.rules = inspector.begin_request(session, &self.neighbours, line, id.as_bytes());
        let Some(rules) = &mut ctx.rules else {
            return Ok(None);
        };
        let answer = rules.request(session, &bounds).await?;
        if rules.has_whole_body()
            && let Some(upload) = &ctx.upload
        {
            upload.set_done();
        }
        if rules.denial().is_some() {
            ctx.outcome = Some(report::Outcome::Denied);
            self.tally.denied_requests.add_one();
        }
        Ok(answer)
    }

    /// Puts the client's session back as it was.
    pub(crate) fn release(&self, session: &mut Session, ctx: &mut Exchange) {
        if let Some(held) = ctx.held.take() {
            held.release(session);
        }
    }
}

/// How long a body may take, and how long it may be, whoever looks at it; whether anybody does.
struct Bounds {
    time_left: Duration,
    bytes: u64,
    has_body: bool,
}

impl Inspector {
    /// Begins a request and runs phase 1; none when the rules are switched off.
    fn begin_request(
        self: &Arc<Self>,
        session: &Session,
        neighbours: &Neighbours,
        line: Option<&RequestLine>,
        unique_id: &[u8],
    ) -> Option<Box<Inspection>> {
        let connection = connection(session, neighbours)?;
        let mut inspection = self.begin(connection, unique_id)?;
        inspection.show_head(session.req_header(), line);
        let verdict = inspection.run(|transaction, late| transaction.request_headers_done(late));
        inspection.take(verdict);
        Some(inspection)
    }
}

/// Who talks to whom: the client behind hops that are trusted.
fn connection(session: &Session, neighbours: &Neighbours) -> Option<Connection> {
    let peer = session.client_addr()?.as_inet()?;
    let server = session.server_addr().and_then(|address| address.as_inet());
    let client = neighbours.address(peer.ip(), &session.req_header().headers);
    Some(Connection {
        client: (client, peer.port()),
        server: server.map_or((client, 0), |server| (server.ip(), server.port())),
    })
}

impl Inspection {
    fn show_head(&mut self, request: &RequestHeader, line: Option<&RequestLine>) {
        let version: &[u8] = match request.version {
            Version::HTTP_2 => b"HTTP/2.0",
            Version::HTTP_10 => b"HTTP/1.0",
            _ => b"HTTP/1.1",
        };
        match line {
            Some(line) => self.show_line(&line.method, &line.target, &line.version),
            None => {
                let method = request.method.as_str().as_bytes();
                self.show_line(method, request.raw_path(), version);
            }
        }
        // HTTP/2 says the host in `:authority`; rules ask for it in `Host`, as backends do.
        if let Some(authority) = request.uri.authority()
            && !request.headers.contains_key(HOST)
        {
            self.show_header(b"Host", authority.as_str().as_bytes());
        }
        if request.has_case() {
            for (name, value) in request.case_header_iter() {
                self.show_header(name.as_slice(), value.as_bytes());
            }
        } else {
            for (name, value) in &request.headers {
                self.show_header(name.as_str().as_bytes(), value.as_bytes());
            }
        }
    }

    fn show_line(&mut self, method: &[u8], target: &[u8], version: &[u8]) {
        if let Some(transaction) = &mut self.transaction {
            transaction.request_line(method, target, version);
        }
        self.show(|specimen| specimen.line(method, target, version));
    }

    fn show_header(&mut self, name: &[u8], value: &[u8]) {
        if let Some(transaction) = &mut self.transaction {
            transaction.request_header(name, value);
        }
        self.show(|specimen| specimen.header(name, value));
    }

    /// Both phases, with what of the body is to be seen before a backend is asked.
    async fn request(&mut self, session: &mut Session, bounds: &Bounds) -> Result<Option<Answer>> {
        if let Some(answer) = &self.denial {
            if let Some(specimen) = &mut self.specimen {
                specimen.is_cut = !session.is_body_empty();
            }
            return Ok(Some(answer.clone()));
        }
        if bounds.has_body
            && self.wants_request_body(session)
            && let Some(answer) = self.read_request_body(session, bounds).await?
        {
            return Ok(Some(answer));
        }
        Ok(self.judge_request(session.req_header()))
    }

    fn wants_request_body(&self, session: &mut Session) -> bool {
        let wants = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.wants_request_body());
        wants && !session.is_body_empty() && !is_grpc(session.req_header())
    }

    /// Reads the body up to the rules' limit; an answer is why that was not possible.
    ///
    /// # Errors
    ///
    /// The client has gone, or what it sends is no body.
    async fn read_request_body(
        &mut self,
        session: &mut Session,
        bounds: &Bounds,
    ) -> Result<Option<Answer>> {
        let deadline = Instant::now() + bounds.time_left;
        let limit = self.request_body_limit();
        self.invite_body(session).await?;
        session.as_downstream_mut().enable_retry_buffering();
        while self.request.bytes <= limit {
            let read = session.as_downstream_mut().read_request_body();
            let Ok(read) = timeout_at(deadline, read).await else {
                return Ok(Some(Answer::Status(408)));
            };
            let Some(piece) = read.map_err(Error::into_down)? else {
                self.request.is_complete = true;
                return Ok(None);
            };
            if !self.keep(piece) {
                // Where rules only look, the rest passes unseen.
                return Ok(self.refuse(503, "there is no memory left for bodies"));
            }
            if self.request.bytes as u64 > bounds.bytes {
                return Ok(Some(Answer::Status(413)));
            }
        }
        Ok(None)
    }

    fn request_body_limit(&self) -> usize {
        let limit = self
            .transaction
            .as_ref()
            .map_or(0, |transaction| transaction.request_body_limit());
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// Tells a client to go on that waits for it (RFC 9110 §10.1.1).
    async fn invite_body(&mut self, session: &mut Session) -> Result<()> {
        let expects = session.req_header().headers.get(EXPECT);
        let is_asked =
            expects.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if !is_asked || session.as_downstream().is_http2() {
            return Ok(());
        }
        // pingora takes a response before the end of the body for the last of its connection.
        let keepalive = session.get_keepalive();
        session
            .as_downstream_mut()
            .write_continue_response()
            .await?;
        session.set_keepalive(keepalive);
        self.request.is_continued = true;
        Ok(())
    }

    /// Keeps a piece, for the backend and as the engine will; false when that was the last there is
    /// memory for.
    fn keep(&mut self, piece: Bytes) -> bool {
        if piece.is_empty() {
            return true;
        }
        let request = &mut self.request;
        let inspector = &self.inspector;
        let copied = request.copied.get_or_insert_with(|| inspector.kept.share());
        let fits = request.share.grow(piece.len()) && copied.grow(piece.len());
        request.bytes += piece.len();
        request.pieces.push_back(piece);
        fits
    }

    /// Phase 2, with the body as far as it was read.
    fn judge_request(&mut self, request: &RequestHeader) -> Option<Answer> {
        if self.request.bytes > 0
            && let Some(answer) = self.show_request_body(request)
        {
            return Some(answer);
        }
        let verdict = self.run(|transaction, late| transaction.request_body_done(late));
        let answer = self.take(verdict);
        self.tell();
        answer
    }

    fn show_request_body(&mut self, request: &RequestHeader) -> Option<Answer> {
        let codings = match decode::codings(request.headers.get_all(CONTENT_ENCODING)) {
            Ok(codings) => codings,
            Err(decode::Unknown) if self.inspector.unknown_coding == UnknownCoding::Pass => {
                Vec::new()
            }
            Err(decode::Unknown) => {
                return self.refuse(415, "the request body's coding is unknown");
            }
        };
        if codings.is_empty() {
            let pieces = self.request.pieces.iter();
            // Not copied: a piece is a reference to its bytes.
            let pieces: Vec<Bytes> = pieces.cloned().collect();
            return pieces.iter().find_map(|piece| self.feed_request(piece));
        }
        self.show_decoded(&codings)
    }

    fn show_decoded(&mut self, codings: &[Coding]) -> Option<Answer> {
        let limits = decode::Limits {
            bytes: self.request_body_limit().saturating_add(1),
            expansion: self.inspector.expansion,
        };
        let decoded = decode::decode(codings, self.request.pieces.iter(), limits);
        if !self.hold_copy(decoded.bytes.len())
            && let Some(answer) = self.refuse(503, "there is no memory left for bodies")
        {
            return Some(answer);
        }
        let refusal = match decoded.outcome {
            Outcome::Bomb => self.refuse(413, "the request body expands too far"),
            Outcome::Malformed => self.refuse(400, "the request body is not coded as it says"),
            Outcome::Unfinished if self.request.is_complete => {
                self.refuse(400, "the request body ends before its coding does")
            }
            Outcome::Complete | Outcome::Full | Outcome::Unfinished => None,
        };
        refusal.or_else(|| self.feed_request(&decoded.bytes))
    }

    fn hold_copy(&mut self, bytes: usize) -> bool {
        self.request
            .copied
            .as_mut()
            .is_none_or(|copied| copied.grow(bytes))
    }

    fn feed_request(&mut self, piece: &[u8]) -> Option<Answer> {
        self.seen_bytes += piece.len();
        self.show(|specimen| specimen.body(piece));
        let verdict = self.transaction.as_mut().map(|it| it.request_body(piece));
        self.take(verdict)
    }

    /// Nothing of the body is left on the client's connection.
    pub(crate) fn has_whole_body(&self) -> bool {
        self.request.is_complete
    }

    /// Lets the backend have the request: its body from memory where pingora's own buffer was too
    /// small for it, and no invitation to send a body that is here.
    pub(crate) fn replay(
        &mut self,
        session: &mut Session,
        held: &mut Option<Held>,
        upstream: &mut RequestHeader,
    ) {
        if self.request.is_continued {
            upstream.remove_header(&EXPECT);
        }
        let pieces = std::mem::take(&mut self.request.pieces);
        if pieces.is_empty() || !session.as_downstream().retry_buffer_truncated() {
            return;
        }
        let share = std::mem::replace(&mut self.request.share, self.inspector.kept.share());
        *held = Some(Held::hold(session, Some(Replay { pieces, share })));
    }
}

/// gRPC (over HTTP/2, with trailers): a stream both ways, whose messages no rule can read.
fn is_grpc(request: &RequestHeader) -> bool {
    let is_typed = request.headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind == b"application/grpc" || kind.starts_with(b"application/grpc+")
    });
    let trailers = request.headers.get(TE).is_some_and(|te| te == "trailers");
    is_typed && trailers && request.version == Version::HTTP_2
}
