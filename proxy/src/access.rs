//! Every request, for a log of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clew_protocol::report::Outcome;
use clew_protocol::{IncidentId, Moment, RequestId};
use http::header::{HeaderName, REFERER, USER_AGENT};
use pingora::proxy::Session;

use crate::client::own_authority;
use crate::exchange::{Exchange, Gateway};
use crate::report::version;
use crate::trace::Span;

/// A request that is over. Bytes are a client's own.
#[derive(Debug)]
pub struct Access<'a> {
    /// When it was over, since the Unix epoch.
    pub at: Duration,
    /// From its head to then.
    pub took: Duration,
    /// Its public name.
    pub id: RequestId,
    /// Its place in a trace; none where the edge makes no spans.
    pub span: Option<Span>,
    /// Who sent it: behind trusted hops whom they name.
    pub client: IpAddr,
    /// The other end of the connection that it came by.
    pub peer: SocketAddr,
    /// Whether that spoke TLS.
    pub is_secure: bool,
    /// Method (RFC 9110 §9).
    pub method: &'a str,
    /// Request target as received.
    pub target: &'a [u8],
    /// Of HTTP: `1.1`, `2`.
    pub version: &'a str,
    /// `Host` or `:authority`.
    pub authority: &'a [u8],
    /// `Referer`, if there is one.
    pub referrer: Option<&'a [u8]>,
    /// `User-Agent`, if there is one.
    pub user_agent: Option<&'a [u8]>,
    /// What the client was answered; none when the connection was cut before.
    pub status: Option<u16>,
    /// What the edge has made of it, where it was not passed on and answered.
    pub outcome: Option<Outcome>,
    /// Why a verdict has ended it.
    pub incident: Option<IncidentId>,
    /// Body bytes that came from the backend and went to the client.
    pub body_bytes: u64,
    /// Name of the service; none where none was chosen.
    pub service: Option<&'a str>,
    /// The backend that was asked, where that is known.
    pub upstream: Option<SocketAddr>,
}

/// Who is told of every request.
#[derive(Clone)]
pub struct Accesses(Arc<dyn Fn(&Access<'_>) + Send + Sync>);

impl Accesses {
    /// `tell` is called by the thread that serves the request, when it is over: it must not wait.
    pub fn new(tell: impl Fn(&Access<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Tells both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(move |access| {
            (self.0)(access);
            (other.0)(access);
        })
    }
}

impl std::fmt::Debug for Accesses {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Accesses")
    }
}

impl Gateway {
    /// Tells of a request that is over, if somebody wants to know of all.
    pub(crate) fn tell_access(&self, session: &Session, ctx: &Exchange, status: Option<u16>) {
        let Some(accesses) = &self.accesses else {
            return;
        };
        let request = session.req_header();
        let peer = session.client_addr().and_then(|it| it.as_inet());
        let Some(peer) = peer else {
            return;
        };
        let field = |name: &HeaderName| request.headers.get(name).map(|it| it.as_bytes());
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        (accesses.0)(&Access {
            at: now.unwrap_or_default(),
            took: Moment::now().since(ctx.started),
            id: ctx.id,
            span: ctx.span,
            client: self
                .neighbours
                .address(peer.ip().to_canonical(), &request.headers),
            peer: *peer,
            is_secure: session
                .digest()
                .is_some_and(|digest| digest.ssl_digest.is_some()),
            method: request.method.as_str(),
            target: request.raw_path(),
            version: version(request.version),
            authority: own_authority(request),
            referrer: field(&REFERER),
            user_agent: field(&USER_AGENT),
            status,
            outcome: ctx.outcome,
            incident: ctx.incident,
            body_bytes: ctx.relayed_body_bytes,
            service: ctx.service.as_ref().map(|it| it.config.name.as_str()),
            upstream: ctx.upstream.map(|it| it.peer),
        });
    }
}
