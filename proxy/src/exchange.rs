//! One request's way through the edge, as pingora calls it.

use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use clew_protocol::identity::TOKEN_HEADER;
use clew_protocol::request::{ProxyRecord, RequestEnded, RequestStarted};
use clew_protocol::{Moment, RequestId, Token};
use http::header::{CONTENT_LENGTH, HOST, HeaderName};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::bans::Bans;
use crate::client::{Neighbours, own_authority};
use crate::config::{Limits, Tagging};
use crate::connection::Phase;
use crate::counters::Tally;
use crate::flight::{Flight, Flights, Upstream};
use crate::framing;
use crate::inputs::{BodyInputs, Inputs};
use crate::page::Answer;
use crate::service::{Service, Services};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Error type of a request that a verdict has ended.
const CONDEMNED: ErrorType = ErrorType::new("condemned");
/// Upstream attempts per request: a backend that refuses is passed over twice.
const ATTEMPTS: u8 = 3;

/// What all requests share.
pub(crate) struct Gateway {
    pub(crate) services: Services,
    pub(crate) limits: Limits,
    pub(crate) neighbours: Neighbours,
    pub(crate) tagging: Option<Tagging>,
    pub(crate) flights: Flights,
    pub(crate) bans: Bans,
    pub(crate) tally: Arc<Tally>,
}

/// What one request carries.
pub(crate) struct Exchange {
    id: RequestId,
    started: Moment,
    service: Option<Arc<Service>>,
    upstream: Option<Upstream>,
    flight: Option<Arc<Flight>>,
    attempts: u8,
    request_body_bytes: u64,
    /// What is reported of the body; none before the attempt has a name.
    body_inputs: Option<BodyInputs>,
    relayed_body_bytes: u64,
    cancelled_at: Option<Moment>,
    /// Answered by the edge after a failure, with nothing of the request left on the connection.
    reusable: bool,
}

impl Exchange {
    fn is_cancelled(&self) -> bool {
        self.flight
            .as_ref()
            .is_some_and(|flight| flight.is_cancelled())
    }

    /// Stops relaying when a verdict has come.
    fn check_verdict(&mut self) -> Result<()> {
        if !self.is_cancelled() {
            return Ok(());
        }
        self.cancelled_at.get_or_insert_with(Moment::now);
        Err(Error::new(CONDEMNED))
    }
}

impl Gateway {
    fn record(&self, tagging: &Tagging, record: ProxyRecord) {
        if tagging.records.try_send(record).is_err() {
            self.tally.lost_records.add_one();
        }
    }

    /// Whether the request is refused before any backend hears of it.
    fn refusal(&self, session: &Session) -> Option<Answer> {
        let request = session.req_header();
        let peer = session
            .client_addr()
            .and_then(|address| address.as_inet())?;
        if self
            .bans
            .contains(self.neighbours.address(peer.ip(), &request.headers))
        {
            self.tally.banned_requests.add_one();
            return Some(Answer::Blocked);
        }
        let bytes = request.raw_path().len() + head_bytes(request);
        let status =
            if request.headers.len() > self.limits.headers || bytes > self.limits.head_bytes {
                431
            } else if !has_one_host(request) || !is_unambiguous(session) {
                400
            } else if declared_length(request).is_some_and(|bytes| bytes > self.limits.body_bytes) {
                413
            } else {
                return None;
            };
        self.tally.bad_requests.add_one();
        Some(Answer::Status(status))
    }

    /// Writes an answer of the edge's own; the connection can go on only if nothing of the
    /// request is left on it.
    async fn answer(&self, session: &mut Session, id: RequestId, answer: Answer) -> Result<()> {
        let (header, body) = answer.render(id, Some(&session.req_header().headers))?;
        if !session.is_body_done() || answer != Answer::Blocked {
            session.set_keepalive(None);
        }
        let head_only = session.req_header().method == http::Method::HEAD;
        session
            .write_response_header(Box::new(header), head_only)
            .await?;
        if !head_only {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }

    /// Names the attempt for the kernel and tells the correlator, before a byte goes upstream.
    fn name_attempt(
        &self,
        tagging: &Tagging,
        session: &Session,
        ctx: &mut Exchange,
    ) -> Option<Token> {
        let (service, upstream) = (ctx.service.as_ref()?, ctx.upstream?);
        let request = session.req_header();
        let peer = session
            .client_addr()
            .and_then(|address| address.as_inet())?;
        let inputs = Inputs::of_head(request);
        ctx.body_inputs = Some(BodyInputs::new(request, inputs.len()));
        let flight = self.flights.begin(Some(upstream));
        let started = RequestStarted {
            sequence: flight.sequence,
            id: ctx.id,
            at: ctx.started,
            client: self.neighbours.client(*peer, request),
            method: request.method.as_str().into(),
            target: shown(request.raw_path(), 2048),
            authority: shown(own_authority(request), 255),
            service: service.config.name.as_str().into(),
            upstream: upstream.peer,
            inputs: inputs.into_bytes(),
        };
        let token = Token::mint(&tagging.key, tagging.proxy, flight.sequence);
        self.record(tagging, ProxyRecord::Started(Box::new(started)));
        ctx.flight = Some(flight);
        Some(token)
    }

    /// The attempt is over, for better or worse.
    fn end_attempt(&self, ctx: &mut Exchange, status: Option<u16>) {
        let (Some(tagging), Some(flight)) = (&self.tagging, ctx.flight.take()) else {
            return;
        };
        self.flights.end(&flight);
        let ended = RequestEnded {
            sequence: flight.sequence,
            at: Moment::now(),
            status,
            relayed_body_bytes: ctx.relayed_body_bytes,
            cancelled_at: ctx.cancelled_at,
        };
        self.record(tagging, ProxyRecord::Ended(ended));
    }

    fn keep_input(&self, ctx: &mut Exchange, body: &[u8], is_last: bool) {
        let (Some(tagging), Some(flight)) = (&self.tagging, &ctx.flight) else {
            return;
        };
        let Some(inputs) = &mut ctx.body_inputs else {
            return;
        };
        let bytes = inputs.next(body, is_last);
        if bytes.is_empty() {
            return;
        }
        let record = ProxyRecord::Input {
            sequence: flight.sequence,
            bytes,
        };
        self.record(tagging, record);
    }

    /// Whether the body is larger or slower than it may be.
    fn body_excess(&self, ctx: &Exchange) -> Option<u16> {
        if ctx.request_body_bytes > self.limits.body_bytes {
            return Some(413);
        }
        (Moment::now().since(ctx.started) > self.limits.body_deadline).then_some(408)
    }
}

/// The gateway as pingora calls it; others hold it too.
pub(crate) struct Callbacks(pub(crate) Arc<Gateway>);

impl Deref for Callbacks {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.0
    }
}

#[async_trait]
impl ProxyHttp for Callbacks {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange {
            id: RequestId::fresh(),
            started: Moment::now(),
            service: None,
            upstream: None,
            flight: None,
            attempts: 0,
            request_body_bytes: 0,
            body_inputs: None,
            relayed_body_bytes: 0,
            cancelled_at: None,
            reusable: false,
        }
    }

    // No compression: what a backend sends is what a client gets.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Exchange) -> Result<()> {
        self.tally.requests.add_one();
        if let Some(phase) = phase(session) {
            phase.set_in_request(true);
        }
        session.set_read_timeout(Some(self.limits.body_deadline));
        session.set_write_timeout(Some(self.limits.write_deadline));
        // pingora waits for ever for the next request of an HTTP/1.1 client.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(self.limits.keepalive.as_secs().max(1)));
        }
        ctx.started = Moment::now();
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Exchange) -> Result<bool> {
        if let Some(answer) = self.refusal(session) {
            self.answer(session, ctx.id, answer).await?;
            return Ok(true);
        }
        let request = session.req_header();
        ctx.service = self.services.route(&request.uri, &request.headers).cloned();
        Ok(false)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Exchange,
    ) -> Result<()> {
        let piece = body.as_deref().unwrap_or_default();
        if piece.is_empty() && ctx.request_body_bytes == 0 {
            return Ok(());
        }
        ctx.request_body_bytes += piece.len() as u64;
        // What follows an upgrade is no body: a WebSocket may say what it likes, as long as it
        // likes.
        if !session.was_upgraded()
            && let Some(status) = self.body_excess(ctx)
        {
            return Err(Error::new(ErrorType::HTTPStatus(status)));
        }
        self.keep_input(ctx, piece, end_of_stream);
        Ok(())
    }

    async fn upstream_peer(&self, _: &mut Session, ctx: &mut Exchange) -> Result<Box<HttpPeer>> {
        let service = ctx
            .service
            .as_ref()
            .ok_or_else(|| Error::new(ErrorType::HTTPStatus(503)))?;
        let address = service
            .pick()
            .ok_or_else(|| Error::new(ErrorType::HTTPStatus(503)))?;
        ctx.attempts += 1;
        Ok(Box::new(service.peer(address)))
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _reused: bool,
        _: &HttpPeer,
        fd: std::os::fd::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Exchange,
    ) -> Result<()> {
        if self.tagging.is_none() {
            return Ok(());
        }
        let socket = digest.and_then(|digest| digest.socket_digest.as_ref());
        ctx.upstream = socket.and_then(|socket| {
            let local = *socket.local_addr()?.as_inet()?;
            let peer = *socket.peer_addr()?.as_inet()?;
            Some(Upstream { fd, local, peer })
        });
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Exchange,
    ) -> Result<()> {
        // An attempt before this one has failed.
        self.end_attempt(ctx, None);
        // It is sent the body from the start.
        ctx.request_body_bytes = 0;
        upstream_request.remove_header(TOKEN_HEADER);
        upstream_request.insert_header(&REQUEST_ID, ctx.id.to_string())?;
        forward_client(session, upstream_request)?;
        if let Some(tagging) = &self.tagging {
            let token = self.name_attempt(tagging, session, ctx).ok_or_else(|| {
                Error::explain(ErrorType::InternalError, "attempt without a name")
            })?;
            put_first(upstream_request, &token)?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Exchange,
    ) -> Result<()> {
        if is_complete(session, response)
            && let Some(flight) = &ctx.flight
        {
            flight.let_go();
        }
        ctx.check_verdict()?;
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
            session.set_read_timeout(None);
        }
        response.insert_header(&REQUEST_ID, ctx.id.to_string())
    }

    fn upstream_response_body_filter(
        &self,
        _: &mut Session,
        _: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Exchange,
    ) -> Result<Option<std::time::Duration>> {
        if end_of_stream && let Some(flight) = &ctx.flight {
            flight.let_go();
        }
        ctx.check_verdict()?;
        Ok(None)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        _: bool,
        ctx: &mut Exchange,
    ) -> Result<Option<std::time::Duration>> {
        ctx.check_verdict()?;
        ctx.relayed_body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let others = ctx
            .service
            .as_ref()
            .is_some_and(|it| it.config.upstreams.len() > 1);
        error.set_retry(others && ctx.attempts < ATTEMPTS);
        error
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        ctx: &mut Exchange,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context(format!("Peer: {peer}"));
        if ctx.is_cancelled() {
            ctx.cancelled_at.get_or_insert_with(Moment::now);
            error.set_retry(false);
        } else if !session.req_header().method.is_idempotent()
            || session.as_ref().retry_buffer_truncated()
            || ctx.attempts >= ATTEMPTS
        {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(client_reused);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Exchange,
    ) -> FailToProxy {
        let cancelled = ctx.is_cancelled();
        if cancelled {
            self.tally.cancelled.add_one();
            ctx.cancelled_at.get_or_insert_with(Moment::now);
        }
        let answer = if cancelled {
            Some(Answer::Blocked)
        } else {
            answer_for(error)
        };
        let begun = session
            .response_written()
            .is_some_and(|header| !header.status.is_informational());
        let mut status = 0;
        if let Some(answer) = answer
            && !begun
        {
            status = answer.status();
            match self.answer(session, ctx.id, answer).await {
                Ok(()) => ctx.reusable = cancelled && session.is_body_done(),
                Err(error) => tracing::debug!(%error, "error page not delivered"),
            }
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Exchange) {
        let status = session
            .response_written()
            .map(|header| header.status.as_u16());
        self.end_attempt(ctx, status);
        let Some(phase) = phase(session).cloned() else {
            return;
        };
        phase.set_in_request(false);
        if ctx.reusable {
            spare(session, &phase).await;
        }
    }

    fn suppress_error_log(&self, _: &Session, ctx: &Exchange, error: &Error) -> bool {
        ctx.is_cancelled() || *error.esource() == ErrorSource::Downstream
    }
}

/// Keeps the connection from being closed: pingora ends it after any failed request, also when
/// the failure was a verdict and the answer a complete 403.
async fn spare(session: &mut Session, phase: &Phase) {
    let nothing = ServerSession::new_http1(Box::new(std::io::Cursor::new(Vec::new())));
    let ended = std::mem::replace(&mut session.downstream_session, Box::new(nothing));
    if let Ok(Some(reusable)) = ended.finish().await
        && let (stream, None) = reusable.into_parts()
    {
        phase.spare(stream);
    }
}

fn phase(session: &Session) -> Option<&Arc<Phase>> {
    Phase::of(session.digest()?.proxy_digest.as_deref())
}

/// What a failed request is answered with; none when nobody listens any more.
fn answer_for(error: &Error) -> Option<Answer> {
    let status = match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(status), _) => *status,
        (
            ErrorType::ReadTimedout | ErrorType::ConnectTimedout | ErrorType::WriteTimedout,
            ErrorSource::Upstream,
        ) => 504,
        (_, ErrorSource::Upstream) => 502,
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => 408,
        (
            ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed,
            ErrorSource::Downstream,
        ) => return None,
        (_, ErrorSource::Downstream) => 400,
        _ => 500,
    };
    Some(Answer::Status(status))
}

/// Rebuilds the head with the token as its first field, order and spelling of the others kept.
fn put_first(request: &mut RequestHeader, token: &Token) -> Result<()> {
    let mut tagged = RequestHeader::build(
        request.method.clone(),
        request.raw_path(),
        Some(request.headers.len() + 1),
    )?;
    tagged.set_version(request.version);
    tagged.insert_header(TOKEN_HEADER, &token.to_hex()[..])?;
    if request.has_case() {
        for (name, value) in request.case_header_iter() {
            tagged.append_header(name.clone(), value)?;
        }
    } else {
        for (name, value) in &request.headers {
            tagged.append_header(name, value)?;
        }
    }
    *request = tagged;
    Ok(())
}

/// Appends the peer to `X-Forwarded-For` and says how it came.
fn forward_client(session: &Session, request: &mut RequestHeader) -> Result<()> {
    let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) else {
        return Ok(());
    };
    let peer = peer.ip().to_canonical();
    let chain = request
        .headers
        .get_all(&FORWARDED_FOR)
        .iter()
        .filter_map(|hops| hops.to_str().ok());
    let mut chain: String = chain.flat_map(|hops| [hops, ", "]).collect();
    chain.push_str(&peer.to_string());
    request.insert_header(&FORWARDED_FOR, chain)?;
    let tls = session
        .digest()
        .is_some_and(|digest| digest.ssl_digest.is_some());
    request.insert_header(&FORWARDED_PROTO, if tls { "https" } else { "http" })
}

/// Whether the response ends with its header: pingora shows no end of a body that there is not.
fn is_complete(session: &Session, response: &ResponseHeader) -> bool {
    let is_empty = || {
        let length = response.headers.get(CONTENT_LENGTH);
        length.is_some_and(|length| length == "0")
    };
    !response.status.is_informational()
        && (session.req_header().method == http::Method::HEAD
            || matches!(response.status.as_u16(), 204 | 304)
            || is_empty())
}

/// HTTP/2 frames have lengths of their own; what can be ambiguous is an HTTP/1 head.
fn is_unambiguous(session: &Session) -> bool {
    let http1 = session.as_downstream().as_http1();
    http1.is_none_or(|http1| framing::is_unambiguous(&http1.get_headers_raw_bytes()))
}

fn shown(bytes: &[u8], limit: usize) -> Box<str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into()
}

fn declared_length(request: &RequestHeader) -> Option<u64> {
    request
        .headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// RFC 9112 §3.2: an HTTP/1.1 request names its host once.
fn has_one_host(request: &RequestHeader) -> bool {
    let hosts = request.headers.get_all(HOST).iter().count();
    match request.version {
        http::Version::HTTP_2 => request.uri.authority().is_some() || hosts == 1,
        http::Version::HTTP_11 => hosts == 1,
        _ => hosts <= 1,
    }
}

/// Bytes of the fields as they came, give or take white space.
fn head_bytes(request: &RequestHeader) -> usize {
    request
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}
