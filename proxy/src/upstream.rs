//! The backend's side of a request: how an attempt is named for the kernel, what the correlator is
//! told of it, and what the backend is told of the client.

use std::net::IpAddr;

use clew_protocol::identity::TOKEN_HEADER;
use clew_protocol::request::{ProxyRecord, RequestEnded, RequestStarted};
use clew_protocol::{Moment, Token};
use http::HeaderValue;
use http::header::HeaderName;
use pingora::ErrorType::InvalidHTTPHeader;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{OrErr, Result};

use crate::client::{FORWARDED_FOR, own_authority};
use crate::config::Tagging;
use crate::downstream::phase;
use crate::exchange::{Exchange, Gateway};
use crate::inputs::{BodyInputs, Inputs};

static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The header of the token, parsed once.
pub(crate) static TOKEN: HeaderName = HeaderName::from_static(TOKEN_HEADER);

impl Gateway {
    /// Names the attempt for the kernel and tells the correlator, before a byte goes upstream.
    pub(crate) fn name_attempt(
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
        let token = Token::mint(&tagging.key, tagging.proxy, service.id, flight.sequence);
        self.record(tagging, ProxyRecord::Started(Box::new(started)));
        ctx.flight = Some(flight);
        Some(token)
    }

    /// The attempt is over, for better or worse.
    pub(crate) fn end_attempt(&self, ctx: &mut Exchange, status: Option<u16>) {
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

    pub(crate) fn record(&self, tagging: &Tagging, record: ProxyRecord) {
        let lost = match &record {
            ProxyRecord::Input { .. } => &self.tally.lost_inputs,
            _ => &self.tally.lost_records,
        };
        if tagging.records.try_send(record).is_err() {
            lost.add_one();
        }
    }

    /// Appends the peer to `X-Forwarded-For`, and says how it came unless it is a trusted hop that
    /// knows better how its own client did.
    pub(crate) fn forward_client(
        &self,
        session: &Session,
        request: &mut RequestHeader,
    ) -> Result<()> {
        let Some(peer) = session.client_addr().and_then(|address| address.as_inet()) else {
            return Ok(());
        };
        let peer = peer.ip().to_canonical();
        let own = match phase(session) {
            Some(phase) => phase.peer(peer)?,
            None => written(peer)?,
        };
        let chain = if request.headers.contains_key(&FORWARDED_FOR) {
            let hops = request.headers.get_all(&FORWARDED_FOR).iter();
            let hops: Vec<&[u8]> = hops
                .map(|it| it.as_bytes())
                .chain([own.as_bytes()])
                .collect();
            HeaderValue::try_from(hops.join(&b", "[..]))
                .or_err(InvalidHTTPHeader, "joined values")?
        } else {
            own
        };
        put(request, &FORWARDED_FOR, chain)?;
        if self.neighbours.trusts(peer) && request.headers.contains_key(&FORWARDED_PROTO) {
            return Ok(());
        }
        let tls = session
            .digest()
            .is_some_and(|digest| digest.ssl_digest.is_some());
        let scheme = HeaderValue::from_static(if tls { "https" } else { "http" });
        put(request, &FORWARDED_PROTO, scheme)
    }
}

/// Sets a field. Not by inserting: what removes and appends is in the processor's cache by then, for
/// pingora does nothing else with a head.
pub(crate) fn put(
    request: &mut RequestHeader,
    name: &'static HeaderName,
    value: HeaderValue,
) -> Result<()> {
    request.remove_header(name);
    request.append_header(name.as_str(), value).map(drop)
}

/// A head of at most this many fields is made anew for those that are put in: its maps, made to
/// measure, would grow with nearly each of them.
const FEW: usize = 2;
/// Fields that are put in.
const OWN: usize = 4;

/// Takes out what only the edge may say, and puts the token first; order and spelling of the other
/// fields are kept.
pub(crate) fn make_room(request: &mut RequestHeader, token: Option<&Token>) -> Result<()> {
    request.remove_header(&TOKEN);
    if token.is_none() && request.headers.len() > FEW {
        return Ok(());
    }
    let mut roomy = RequestHeader::build(
        request.method.clone(),
        request.raw_path(),
        Some(request.headers.len() + OWN),
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
