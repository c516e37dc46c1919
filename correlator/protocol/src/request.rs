//! What the proxy tells the correlator about requests.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Moment, RequestId, Sequence};

/// Most bytes of decoded input kept per request, head and body together; the rest is cut.
///
/// Content proof compares kernel events with these bytes; 16 KiB covers a full head and the
/// start of any form or JSON body, and bounds what a flood of requests can make us remember.
pub const INPUT_LIMIT_BYTES: usize = 16 * 1024;

/// Most rules that [`EdgeFindings`] names.
pub const EDGE_RULES: usize = 32;

/// One message from the proxy, in the order things happened to one request.
#[derive(Debug)]
pub enum ProxyRecord {
    /// An upstream attempt is about to be written; sent before the first byte goes upstream.
    Started(Box<RequestStarted>),
    /// More decoded input (body bytes) of an attempt that has started.
    Input {
        /// The attempt.
        sequence: Sequence,
        /// Decoded bytes, at most [`INPUT_LIMIT_BYTES`] over the life of the request.
        bytes: Box<[u8]>,
    },
    /// The whole response has come from the backend and waits for a verdict on its way to the client. Said
    /// of those alone that wait.
    Answered {
        /// The attempt.
        sequence: Sequence,
        /// When its last byte came.
        at: Moment,
    },
    /// The proxy is done with the attempt.
    Ended(RequestEnded),
    /// All that is in flight. Records are lost when the queue is full; this makes up for it.
    InFlight(InFlight),
}

/// The attempts in flight at one moment: any older one that is not among them has ended.
///
/// Sent every few seconds, and soon after a record was lost. A `Started` of an attempt in `open`
/// and an `Ended` of one that is not may still be on their way.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// When `open` was listed.
    pub at: Moment,
    /// The sequence that the next attempt was to get a while *before* `open` was listed (a
    /// second is plenty): what is not in `open` and below this was not just about to be entered.
    pub below: Sequence,
    /// All attempts in flight, in any order; those from `below` on may be left out.
    pub open: Box<[Sequence]>,
    /// Since the last of these messages, an `Input` record was lost.
    pub inputs_lost: bool,
}

/// Head of one upstream attempt.
#[derive(Debug)]
pub struct RequestStarted {
    /// The attempt's name in the kernel.
    pub sequence: Sequence,
    /// The request's public name.
    pub id: RequestId,
    /// When the request head had been read.
    pub at: Moment,
    /// When the attempt was about to be written to a connection that was open: the backend could have
    /// read it soon after.
    pub sent_at: Moment,
    /// Who sent it.
    pub client: Client,
    /// Method (RFC 9110 §9).
    pub method: Box<str>,
    /// Request target as received, lossy UTF-8, at most 2 KiB.
    pub target: Box<str>,
    /// `Host` or `:authority`, at most 255 bytes.
    pub authority: Box<str>,
    /// Name of the configured service.
    pub service: Box<str>,
    /// Where the attempt goes.
    pub upstream: SocketAddr,
    /// Every input a client controls, one after the other, each ended by a newline:
    /// the target raw and percent-decoded, and each header value raw and percent-decoded where
    /// that differs. At most [`INPUT_LIMIT_BYTES`].
    pub inputs: Box<[u8]>,
    /// What the rules have said of it so far.
    pub edge: EdgeFindings,
}

/// What the rules of the edge had to say of a request when it went upstream. It is suspicion and no
/// proof: nobody is banned for it, but where several requests could have been it, it says which is likelier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EdgeFindings {
    /// Inbound anomaly score, as the Core Rule Set counts it; 0 where `rules` is empty.
    pub score: i64,
    /// Ids of the rules that matched and say so (`log`), in order; at most [`EDGE_RULES`].
    #[cfg_attr(feature = "schema", schema(value_type = Vec<u64>))]
    pub rules: Box<[u64]>,
}

/// The sender of a request, as far as a ban is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Source address: of the socket, or what a trusted hop forwarded.
    pub address: IpAddr,
    /// Source port of the socket that reached the proxy.
    pub port: u16,
    /// The configuration says that many people share this address (NAT).
    pub shared: bool,
    /// Another site sent the browser here (`Sec-Fetch-Site: cross-site`, or a `Referer` whose
    /// authority is not the request's): the sender may be the victim.
    pub cross_site: bool,
}

/// How one upstream attempt ended.
#[derive(Clone, Debug)]
pub struct RequestEnded {
    /// The attempt.
    pub sequence: Sequence,
    /// When the proxy was done with it.
    pub at: Moment,
    /// Status sent to the client; none when the connection was cut before a status.
    pub status: Option<u16>,
    /// Response body bytes that came from the backend and were handed to the client.
    pub relayed_body_bytes: u64,
    /// When the proxy stopped relaying because of a verdict, if it did.
    pub cancelled_at: Option<Moment>,
}
