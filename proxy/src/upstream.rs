//! The backend's side of a request: how an attempt is named for the kernel, what the correlator is
//! told of it, and what the backend is told of the client.

use std::net::IpAddr;

use clew_protocol::identity::TOKEN_HEADER;
use clew_protocol::request::{ProxyRecord, RequestEnded, RequestStarted};
use clew_protocol::{Moment, Token};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use pingora::ErrorType::{HTTPStatus, InternalError, InvalidHTTPHeader};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, OrErr, Result};

use crate::client::{FORWARDED_FOR, own_authority};
use crate::config::{Announcement, OnFailure, Tagging};
use crate::downstream::phase;
use crate::exchange::{Exchange, Gateway};
use crate::inputs::{BodyInputs, Inputs};

pub(crate) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static TOKEN: HeaderName = HeaderName::from_static(TOKEN_HEADER);
/// What the edge says of each request.
static INTRODUCTION: [&HeaderName; 4] = [&TOKEN, &REQUEST_ID, &FORWARDED_FOR, &FORWARDED_PROTO];

impl Gateway {
    /// Names the attempt for the kernel and tells the correlator, before a byte goes upstream. What the
    /// kernel is to read in the request's head, where it can.
    ///
    /// # Errors
    ///
    /// The attempt cannot be named.
    pub(crate) fn name_attempt(
        &self,
        tagging: &Tagging,
        session: &Session,
        ctx: &mut Exchange,
    ) -> Result<Option<Token>> {
        let nameless = || Error::explain(InternalError, "attempt without a name");
        let service = ctx.service.as_ref().ok_or_else(nameless)?;
        let upstream = ctx.upstream.ok_or_else(nameless)?;
        let request = session.req_header();
        let peer = session
            .client_addr()
            .and_then(|address| address.as_inet())
            .ok_or_else(nameless)?;
        let inputs = Inputs::of_head(request);
        ctx.body_inputs = Some(BodyInputs::new(request, inputs.len()));
        let edge = ctx.rules.as_ref().map(|rules| rules.findings());
        let flight = self.flights.begin(Some(upstream), phase(session).cloned());
        let started = RequestStarted {
            sequence: flight.sequence,
            id: ctx.id,
            at: ctx.started,
            sent_at: Moment::now(),
            client: self.neighbours.client(*peer, request),
            method: request.method.as_str().into(),
            target: shown(request.raw_path(), 2048),
            authority: shown(own_authority(request), 255),
            service: service.config.name.as_str().into(),
            upstream: upstream.peer,
            inputs: inputs.into_bytes(),
            edge: edge.unwrap_or_default(),
        };
        let (id, sequence) = (service.id, flight.sequence);
        let is_opaque = service.config.is_opaque();
        let is_recorded = self.record(tagging, ProxyRecord::Started(Box::new(started)));
        ctx.flight = Some(flight);
        if !is_recorded && tagging.unrecorded == OnFailure::Closed {
            return Err(Error::new(HTTPStatus(503)));
        }
        if !is_opaque {
            return Ok(Some(Token::mint(&tagging.key, tagging.proxy, id, sequence)));
        }
        let announcement = Announcement {
            local: upstream.local,
            peer: upstream.peer,
            service: id,
            sequence,
        };
        if !tagging.announcer.tell(&announcement) {
            return Err(nameless());
        }
        Ok(None)
    }

    /// The attempt is over, for better or worse.
    pub(crate) fn end_attempt(&self, ctx: &mut Exchange, status: Option<u16>) {
        let (Some(tagging), Some(flight)) = (&self.tagging, ctx.flight.take()) else {
            return;
        };
        self.flights.end(&flight);
        ctx.incident = flight.verdict();
        let ended = RequestEnded {
            sequence: flight.sequence,
            at: Moment::now(),
            status,
            relayed_body_bytes: ctx.relayed_body_bytes,
            cancelled_at: ctx.cancelled_at,
        };
        self.record(tagging, ProxyRecord::Ended(ended));
    }

    pub(crate) fn keep_input(&self, ctx: &mut Exchange, body: &[u8], is_last: bool) {
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

    /// Hands a record on; whether there was room for it.
    pub(crate) fn record(&self, tagging: &Tagging, record: ProxyRecord) -> bool {
        let lost = match &record {
            ProxyRecord::Input { .. } => &self.tally.lost_inputs,
            _ => &self.tally.lost_records,
        };
        let is_recorded = tagging.records.try_send(record).is_ok();
        if !is_recorded {
            lost.add_one();
        }
        is_recorded
    }

    /// Tells the backend what the request is called, by whom it was sent, and how: the peer is appended to
    /// `X-Forwarded-For`, and the scheme is the edge's own unless the peer is a trusted hop, that knows
    /// better. What a client says of this itself is taken out; order and spelling of its other fields
    /// are kept, behind the token.
    pub(crate) fn introduce(
        &self,
        session: &Session,
        request: &mut RequestHeader,
        token: Option<&Token>,
        id: HeaderValue,
    ) -> Result<()> {
        // Most clients say nothing of it, and looking once is cheaper than taking out what is not there.
        let is_said = request
            .headers
            .keys()
            .any(|name| INTRODUCTION.contains(&name));
        if is_said {
            request.remove_header(&TOKEN);
            request.remove_header(&REQUEST_ID);
        }
        make_room(request, token)?;
        append(request, &REQUEST_ID, id)?;
        let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) else {
            return Ok(());
        };
        let peer = peer.ip().to_canonical();
        let mut chain = match phase(session) {
            Some(phase) => phase.peer(peer)?,
            None => written(peer)?,
        };
        if is_said {
            chain = joined(request, &chain)?;
            request.remove_header(&FORWARDED_FOR);
            if self.neighbours.trusts(peer) && request.headers.contains_key(&FORWARDED_PROTO) {
                return append(request, &FORWARDED_FOR, chain);
            }
            request.remove_header(&FORWARDED_PROTO);
        }
        append(request, &FORWARDED_FOR, chain)?;
        let tls = session
            .digest()
            .is_some_and(|digest| digest.ssl_digest.is_some());
        let scheme = HeaderValue::from_static(if tls { "https" } else { "http" });
        append(request, &FORWARDED_PROTO, scheme)
    }
}

/// The hops that `request` names, and `own` behind them.
fn joined(request: &RequestHeader, own: &HeaderValue) -> Result<HeaderValue> {
    let hops = request.headers.get_all(&FORWARDED_FOR).iter();
    let hops: Vec<&[u8]> = hops.chain([own]).map(HeaderValue::as_bytes).collect();
    HeaderValue::try_from(hops.join(&b", "[..])).or_err(InvalidHTTPHeader, "joined values")
}

/// Not by inserting: what appends is in the processor's cache by then, for pingora does nothing else
/// with a head.
fn append(
    request: &mut RequestHeader,
    name: &'static HeaderName,
    value: HeaderValue,
) -> Result<()> {
    request.append_header(name.as_str(), value).map(drop)
}

/// Whether a head has fields that end at the edge (RFC 9110 §7.6.1), which pingora takes out of it one
/// by one, there or not.
pub(crate) fn has_hop_fields(headers: &HeaderMap) -> bool {
    let is_for_hop = |name: &HeaderName| {
        matches!(
            name.as_str(),
            "connection"
                | "upgrade"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "keep-alive"
                | "http2-settings"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
        )
    };
    headers.keys().any(is_for_hop)
}

/// A head of at most this many fields is made anew for those that are put in: its maps, made to
/// measure, would grow with nearly each of them.
const FEW: usize = 2;

/// Puts the token first, and room behind the other fields, whose order and spelling are kept.
fn make_room(request: &mut RequestHeader, token: Option<&Token>) -> Result<()> {
    if token.is_none() && request.headers.len() > FEW {
        return Ok(());
    }
    let mut roomy = RequestHeader::build(
        request.method.clone(),
        request.raw_path(),
        Some(request.headers.len() + INTRODUCTION.len()),
    )?;
    roomy.set_version(request.version);
    if let Some(token) = token {
        roomy.append_header(TOKEN.as_str(), &token.to_hex()[..])?;
    }
    if request.has_case() {
        for (name, value) in request.case_header_iter() {
            roomy.append_header(name.clone(), value)?;
        }
    } else {
        for (name, value) in &request.headers {
            roomy.append_header(name, value)?;
        }
    }
    *request = roomy;
    Ok(())
}

/// `address` as a field's value.
pub(crate) fn written(address: IpAddr) -> Result<HeaderValue> {
    HeaderValue::try_from(address.to_string()).or_err(InvalidHTTPHeader, "an address is ASCII")
}

fn shown(bytes: &[u8], limit: usize) -> Box<str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into()
}
