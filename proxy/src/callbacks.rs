//! One request's way through the edge, as pingora calls it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use clew_protocol::Moment;
use clew_protocol::report::Outcome;
use http::header::CONTENT_LENGTH;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::downstream::{answer_for, phase, spare};
use crate::exchange::{Exchange, Gateway};
use crate::flight::Upstream;
use crate::gate::guard;
use crate::page::Answer;
use crate::trace::Span;
use crate::upstream::{REQUEST_ID, has_hop_fields};

/// Upstream attempts per request: a backend that refuses is passed over twice.
const ATTEMPTS: u8 = 3;

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
    /// In a box: pingora moves it about, and keeps a copy's room in each of its futures.
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Self::CTX {
        Box::new(Exchange::fresh())
    }

    // No compression: what a backend sends is what a client gets.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<()> {
        self.tally.requests.add_one();
        if let Some(phase) = phase(session) {
            phase.set_in_request(true);
            phase.set_relayed(None);
        }
        let request = session.req_header();
        ctx.upload = request.extensions.get().cloned();
        ctx.span = self
            .tracing
            .map(|it| Span::begin(it, &request.headers, ctx.id));
        session.set_write_timeout(Some(self.limits.write_deadline));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> Result<bool> {
        let line = phase(session).and_then(|phase| phase.take_line());
        let refusal = self.refusal(session);
        // In a box of its own: what most requests wait for is small without it.
        let is_looked_at = self.inspector.as_ref().is_some_and(|it| it.looks());
        if (line.is_some() || refusal.is_some() || is_looked_at)
            && Box::pin(self.judge(session, line, refusal, ctx)).await?
        {
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
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        if end_of_stream && let Some(upload) = &ctx.upload {
            upload.set_done();
        }
        // pingora writes an empty last piece (an HTTP/2 frame of nothing) as a chunk that ends the
        // body, and then its end: the second would be taken for the start of the next request.
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
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
        self.hurry_body(session, ctx);
        self.keep_input(ctx, piece, end_of_stream);
        Ok(())
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        let service = ctx
            .service
            .as_ref()
            .ok_or_else(|| Error::new(ErrorType::HTTPStatus(503)))?;
        let address = service
            .pick()
            .ok_or_else(|| Error::new(ErrorType::HTTPStatus(503)))?;
        ctx.attempts += 1;
        let mut peer = Box::new(service.peer(address));
        // Without a body nothing but the response is waited for, and the client's connection sees to
        // it that it comes: pingora sets a timer for each request.
        if session.is_body_empty()
            && !session.is_upgrade_req()
            && let Some(phase) = phase(session)
        {
            phase.await_backend(peer.options.read_timeout.take());
        }
        if !has_hop_fields(&session.req_header().headers) {
            peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        }
        Ok(peer)
    }

    async fn connected_to_upstream(
        &self,
        _: &mut Session,
        _reused: bool,
        _: &HttpPeer,
        fd: std::os::fd::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let is_wanted = self.tagging.is_some() || self.reports.is_some() || self.accesses.is_some();
        if !is_wanted && ctx.upload.is_none() {
            return Ok(());
        }
        let socket = digest.and_then(|digest| digest.socket_digest.as_ref());
        ctx.upstream = socket.and_then(|socket| {
            let local = *socket.local_addr()?.as_inet()?;
            let peer = *socket.peer_addr()?.as_inet()?;
            Some(Upstream { fd, local, peer })
        });
        if let Some(upload) = &ctx.upload {
            upload.connect(ctx.upstream);
        }
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream_request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        // An attempt before this one has failed.
        self.end_attempt(ctx, None);
        // It is sent the body from the start.
        ctx.request_body_bytes = 0;
        self.hurry_body(session, ctx);
        let mut token = None;
        if let Some(tagging) = &self.tagging {
            token = self.name_attempt(tagging, session, ctx)?;
        }
        self.introduce(session, upstream_request, token.as_ref(), ctx.id_value()?)?;
        if let Some(span) = ctx.span {
            span.tell(upstream_request)?;
        }
        if let Some(rules) = &mut ctx.rules {
            rules.replay(session, &mut ctx.held, upstream_request);
            rules.narrow(upstream_request);
        }
        if self.reports.is_some() {
            (ctx.asked, ctx.answered) = (Some(Moment::now()), None);
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> Result<()> {
        let is_complete = is_complete(session, response);
        note_word(session, is_complete);
        if is_complete && let Some(flight) = &ctx.flight {
            flight.let_go();
        }
        guard(&self.0, session, ctx)?;
        if ctx.asked.is_some() && is_final(response) {
            ctx.answered = Some(Moment::now());
        }
        if is_final(response)
            && let Some(rules) = &mut ctx.rules
        {
            rules.response_head(session, &mut ctx.held, response, is_complete)?;
        }
        if is_final(response)
            && let (Some(phase), Some(flight)) = (phase(session), &ctx.flight)
        {
            phase.set_relayed(Some(flight.sequence));
        }
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
            session.set_read_timeout(None);
        } else {
            self.hurry_body(session, ctx);
        }
        response.remove_header(&REQUEST_ID);
        response
            .append_header(REQUEST_ID.as_str(), ctx.id_value()?)
            .map(drop)
    }

    fn upstream_response_body_filter(
        &self,
        session: &mut Session,
        _: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        note_word(session, end_of_stream);
        if end_of_stream && let Some(flight) = &ctx.flight {
            flight.let_go();
        }
        ctx.check_verdict()?;
        Ok(None)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        is_last: bool,
        ctx: &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        guard(&self.0, session, ctx)?;
        if let Some(rules) = &mut ctx.rules {
            rules.response_body(ctx.held.as_ref(), body.as_ref(), is_last)?;
        }
        self.hurry_body(session, ctx);
        ctx.relayed_body_bytes += body.as_ref().map_or(0, |body| body.len() as u64);
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut Self::CTX,
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
        ctx: &mut Self::CTX,
        client_reused: bool,
    ) -> Box<Error> {
        let is_late = phase(session).is_some_and(|phase| phase.is_backend_late());
        let error = if is_late {
            Error::explain(ErrorType::ReadTimedout, "silent for too long").into_up()
        } else {
            error
        };
        let mut error = error.more_context(format!("Peer: {peer}"));
        if ctx.is_cancelled() {
            ctx.cancelled_at.get_or_insert_with(Moment::now);
            error.set_retry(false);
        } else if ctx.is_overdue()
            || ctx.has_answer()
            || !session.req_header().method.is_idempotent()
            || session.as_ref().retry_buffer_truncated()
            || ctx.attempts >= ATTEMPTS
        {
            error.set_retry(false);
        } else {
            error.retry.decide_reuse(client_reused);
        }
        if error.retry() {
            // Now, not when there is a connection for the next: the thread that has read it is at others
            // meanwhile.
            self.end_attempt(ctx, None);
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Self::CTX,
    ) -> FailToProxy {
        self.release(session, ctx);
        let cancelled = ctx.is_cancelled();
        let denial = ctx.denial().cloned();
        let is_denied = denial.is_some();
        if is_denied {
            ctx.outcome = Some(Outcome::Denied);
            self.tally.denied_requests.add_one();
        }
        if cancelled {
            ctx.outcome = Some(Outcome::Cancelled);
            self.tally.cancelled.add_one();
            ctx.cancelled_at.get_or_insert_with(Moment::now);
        }
        let answer = if cancelled {
            Some(Answer::Blocked)
        } else if is_denied {
            denial
        } else if ctx.is_overdue() {
            Some(Answer::Status(408))
        } else {
            answer_for(error)
        };
        if ctx.outcome.is_none() && answer.as_ref().is_some_and(Answer::blames_client) {
            ctx.outcome = Some(Outcome::Malformed);
        }
        let begun = session.response_written().is_some_and(is_final);
        let mut status = 0;
        if let Some(answer) = answer
            && !begun
        {
            status = answer.status();
            match self.answer(session, ctx.id, &answer).await {
                Ok(()) => {
                    let is_kept = cancelled || (is_denied && answer.keeps_connection());
                    ctx.reusable = is_kept && session.is_body_done();
                }
                Err(error) => tracing::debug!(%error, "error page not delivered"),
            }
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Self::CTX) {
        self.count_ending(session, error, ctx);
        let status = session
            .response_written()
            .map(|header| header.status.as_u16());
        self.end_attempt(ctx, status);
        self.release(session, ctx);
        self.report(session, ctx, status);
        self.tell_access(session, ctx, status);
        ctx.rules = None;
        let Some(phase) = phase(session) else {
            return;
        };
        phase.set_in_request(false);
        if ctx.reusable {
            let phase = phase.clone();
            // Rare: in a box of its own, the box of every request is smaller.
            Box::pin(spare(session, &phase)).await;
        }
    }

    fn suppress_error_log(&self, _: &Session, ctx: &Self::CTX, error: &Error) -> bool {
        ctx.is_cancelled() || ctx.denial().is_some() || *error.esource() == ErrorSource::Downstream
    }
}

/// The backend has said something: its last word, or one to be followed by others.
fn note_word(session: &Session, is_last: bool) {
    match phase(session) {
        Some(phase) if is_last => phase.await_backend(None),
        Some(phase) => phase.note_word(),
        None => {}
    }
}

/// Whether no other header follows: after 101 the connection speaks another protocol.
fn is_final(response: &ResponseHeader) -> bool {
    let status = response.status;
    !status.is_informational() || status == http::StatusCode::SWITCHING_PROTOCOLS
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
