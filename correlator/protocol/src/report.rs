//! What the edge says of a request that is worth a line in the block log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::request::Client;
use crate::{IncidentId, RequestId};

/// Most matches that a [`Report`] has; `matches_cut` counts the rest.
pub const REPORT_MATCHES: usize = 64;
/// Most bytes of each text of a [`Report`] whose bound is not given; what is longer is cut.
pub const REPORT_TEXT_BYTES: usize = 2048;
/// Most entries of `forwarded`: of longer chains the far end is cut.
pub const REPORT_HOPS: usize = 32;

/// One request, when the edge is done with it: one that a rule matched, that was refused, or that a verdict of
/// the correlator ended. Texts are lossy UTF-8 of what a client sent, at most [`REPORT_TEXT_BYTES`] each, and
/// secrets are in them still: who writes them down masks them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When its head had been read, since the Unix epoch.
    pub at: Duration,
    /// Its public name.
    pub id: RequestId,
    /// Who sent it: behind trusted hops whom they name.
    pub client: Client,
    /// The socket's peer.
    pub peer: IpAddr,
    /// What the forwarding header of the trusted hops says, nearest first, as it came.
    pub forwarded: Vec<String>,
    /// The address and port it came in at.
    pub server: SocketAddr,
    /// None for plain HTTP.
    pub tls: Option<Tls>,
    /// From `traceparent` (W3C Trace Context).
    pub trace: Option<Trace>,
    /// Of HTTP: `1.1`, `2`.
    pub version: String,
    /// Method (RFC 9110 §9).
    pub method: String,
    /// Request target as received.
    pub target: String,
    /// `Host` or `:authority`.
    pub authority: String,
    /// `User-Agent`, if there is one.
    pub user_agent: Option<String>,
    /// `Referer`, if there is one.
    pub referrer: Option<String>,
    /// `Content-Type`, if there is one.
    pub content_type: Option<String>,
    /// Body bytes that were read of it.
    pub request_body_bytes: u64,
    /// Body bytes that came from the backend and went to the client.
    pub response_body_bytes: u64,
    /// Name of the configured service; none where it was refused before one was chosen.
    pub service: Option<String>,
    /// The backend that was asked; none where none was.
    pub upstream: Option<SocketAddr>,
    /// What the client was answered; none when the connection was cut before.
    pub status: Option<u16>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was ended, where a verdict of the correlator did.
    pub incident: Option<IncidentId>,
    /// Anomaly scores as the Core Rule Set counts them: of the request, of the response.
    pub score: (i64, i64),
    /// Rules that matched and say so (`log`), in order.
    pub matches: Vec<RuleMatch>,
    /// Matches beyond [`REPORT_MATCHES`].
    pub matches_cut: u32,
    /// The packs whose rules it was judged by.
    pub packs: Arc<[PackVersion]>,
    /// How long it took.
    pub timing: ReportTiming,
}

/// What became of a request at the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Rules matched, and it went on.
    Detected,
    /// Rules have refused it, or its response.
    Denied,
    /// Its form or size is not acceptable.
    Malformed,
    /// Its source is banned.
    Banned,
    /// Its source asks too often.
    Limited,
    /// A verdict of the correlator has ended it.
    Cancelled,
}

impl Outcome {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detected => "detected",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Banned => "banned",
            Self::Limited => "limited",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The client's TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// `1.2`, `1.3`.
    pub version: String,
    /// IANA's name of the cipher suite.
    pub cipher: String,
    /// The subject of the client's certificate; none when it showed none.
    pub client_subject: Option<String>,
    /// SHA-256 of that certificate, in lower-case hexadecimal.
    pub client_sha256: Option<String>,
}

/// Where a request stands in a trace (W3C Trace Context, `traceparent`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// 32 lower-case hexadecimal digits.
    pub trace_id: String,
    /// The span of the edge: 16 lower-case hexadecimal digits; none where the edge makes none.
    pub span_id: Option<String>,
    /// The client's span: 16 lower-case hexadecimal digits; none where the trace begins here.
    pub parent_id: Option<String>,
}

/// A rule that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMatch {
    /// Its id; 0: a limit of the engine itself.
    pub id: u64,
    /// `msg`, macros expanded.
    pub message: String,
    /// `logdata`, macros expanded.
    pub data: String,
    /// The first variable that matched, for example `ARGS:id`.
    pub variable: String,
    /// 0 (emergency) to 7 (debug).
    pub severity: Option<u8>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The file it stands in.
    pub file: String,
    /// 1-based.
    pub line: u32,
    /// The request, or its response, was stopped for it.
    pub disruptive: bool,
}

/// A rule pack, as it was in force.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PackVersion {
    /// Its name.
    pub name: String,
    /// Its version (Semantic Versioning 2).
    pub version: String,
}

/// How long a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportTiming {
    /// From its head to when the edge was done with it.
    pub total: Duration,
    /// Processor time of the rules.
    pub rules: Duration,
    /// From the first byte to the backend to the head of its response; none without one.
    pub upstream: Option<Duration>,
}
