//! The client's side of a request: what is refused, what the edge answers by itself, and how long
//! a body may take.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clew_protocol::report::Outcome;
use clew_protocol::{Moment, RequestId};
use http::header::{CONTENT_LENGTH, HOST};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::connection::Phase;
use crate::exchange::{Exchange, Gateway};
use crate::framing;
use crate::held::nothing;
use crate::page::Answer;
use crate::rate::Excess;
use crate::request_line::RequestLine;

impl Gateway {
    /// Whether the request is refused before any backend hears of it.
    pub(crate) fn refusal(&self, session: &Session) -> Option<(Outcome, Answer)> {
        let request = session.req_header();
        let peer = session
            .client_addr()
            .and_then(|address| address.as_inet())?;
        let client = || self.neighbours.address(peer.ip(), &request.headers);
        if !self.bans.is_empty() && self.bans.contains(client()) {
            self.tally.banned_requests.add_one();
            return Some((Outcome::Banned, Answer::Blocked));
        }
        if let Some(answer) = self.excess(client, request) {
            self.tally.limited_requests.add_one();
            return Some((Outcome::Limited, answer));
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
        Some((Outcome::Malformed, Answer::Status(status)))
    }

    /// The answer to a client who asks too often.
    fn excess(&self, client: impl Fn() -> IpAddr, request: &RequestHeader) -> Option<Answer> {
        let limit = self.inspector.as_ref()?.exceeded(&client, request)?;
        let (status, bans) = match limit.excess {
            Excess::Detect => {
                tracing::info!(target: "clew::rules", limit = limit.name, "would be refused: asks too often");
                return None;
            }
            Excess::Refuse(status) => (status, false),
            Excess::Ban(status) => (status, true),
        };
        tracing::info!(target: "clew::rules", limit = limit.name, "refused: asks too often");
        if bans
            && let Some(offenders) = &self.offenders
            && !self.neighbours.trusts(client())
        {
            offenders.tell(client(), &limit.name);
        }
        Some(Answer::Limited(status, limit.window.as_secs()))
    }

    /// Shows the request to the rules, and answers it where they, or the edge by itself (`refusal`,
    /// `line`), will not have it; whether that was done.
    ///
    /// # Errors
    ///
    /// The client has gone, or what it sends is no body.
    pub(crate) async fn judge(
        &self,
        session: &mut Session,
        line: Option<RequestLine>,
        refusal: Option<(Outcome, Answer)>,
        ctx: &mut Exchange,
    ) -> Result<bool> {
        let (outcome, mut answer) = refusal.unzip();
        ctx.outcome = outcome;
        if answer.is_none()
            && let Some(inspector) = &self.inspector
        {
            let line = line.as_ref();
            answer = self.inspect_request(inspector, session, line, ctx).await?;
        }
        let unserved = line.and_then(|line| line.refusal);
        if let (None, Some(status)) = (&answer, unserved) {
            self.tally.bad_requests.add_one();
            ctx.outcome = Some(Outcome::Malformed);
            answer = Some(Answer::Status(status));
        }
        let Some(answer) = answer else {
            return Ok(false);
        };
        self.answer(session, ctx.id, &answer).await?;
        Ok(true)
    }

    /// Writes an answer of the edge's own; the connection can go on only if nothing of the
    /// request is left on it.
    pub(crate) async fn answer(
        &self,
        session: &mut Session,
        id: RequestId,
        answer: &Answer,
    ) -> Result<()> {
        if let Some(phase) = phase(session) {
            phase.set_relayed(None);
        }
        if !session.is_body_done() || !answer.keeps_connection() {
            session.set_keepalive(None);
        }
        if *answer == Answer::Silence {
            session.as_downstream_mut().shutdown().await;
            return Ok(());
        }
        let (header, body) = answer.render(id, Some(&session.req_header().headers), &self.pages)?;
        let head_only = session.req_header().method == http::Method::HEAD;
        session
            .write_response_header(Box::new(header), head_only)
            .await?;
        if !head_only {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }

    /// Whether the body is larger or slower than it may be.
    pub(crate) fn body_excess(&self, ctx: &Exchange) -> Option<u16> {
        if ctx.request_body_bytes > self.limits.body_bytes {
            return Some(413);
        }
        let is_late = !ctx.has_whole_body() && self.body_time_left(ctx).is_zero();
        is_late.then_some(408)
    }

    pub(crate) fn body_time_left(&self, ctx: &Exchange) -> Duration {
        let spent = Moment::now().since(ctx.started);
        self.limits.body_deadline.saturating_sub(spent)
    }

    /// Leaves the reads of an unfinished body what is left of its deadline. pingora starts its
    /// timeout anew for each read, and for each piece of a response that arrives meanwhile.
    pub(crate) fn hurry_body(&self, session: &mut Session, ctx: &Exchange) {
        if !session.is_body_done() && !session.was_upgraded() {
            session.set_read_timeout(Some(self.body_time_left(ctx)));
        }
    }
}

/// What a failed request is answered with; none when nobody listens any more.
pub(crate) fn answer_for(error: &Error) -> Option<Answer> {
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

/// Keeps the connection from being closed: pingora ends it after any failed request, also when
/// the failure was a verdict and the answer a complete 403.
pub(crate) async fn spare(session: &mut Session, phase: &Phase) {
    let ended = std::mem::replace(&mut session.downstream_session, nothing());
    if let Ok(Some(reusable)) = ended.finish().await
        && let (stream, None) = reusable.into_parts()
    {
        phase.spare(stream);
    }
}

pub(crate) fn phase(session: &Session) -> Option<&Arc<Phase>> {
    Phase::of(session.digest()?.proxy_digest.as_deref())
}

/// HTTP/2 frames have lengths of their own; what can be ambiguous is an HTTP/1 head.
fn is_unambiguous(session: &Session) -> bool {
    let http1 = session.as_downstream().as_http1();
    http1.is_none_or(|http1| framing::is_unambiguous(&http1.get_headers_raw_bytes()))
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

/// RFC 9112 §3.2: an HTTP/1.1 request names its host once. Of what RFC 3986 allows in a name only
/// what names in the DNS and addresses are made of: no percent-encoding, which backends undo or not.
fn has_one_host(request: &RequestHeader) -> bool {
    let all = request.headers.get_all(HOST);
    let is_wanted = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    if !all.iter().all(|host| host.as_bytes().iter().all(is_wanted)) {
        return false;
    }
    let hosts = all.iter().count();
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
