//! Phases 3 and 4: what a backend has answered, before the client hears of it.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;

use super::decode::{self, Coding, Outcome};
use super::kept::Share;
use super::{Inspection, denied};
use crate::held::Held;

/// The body of a response that waits for its verdict.
pub(super) struct ResponseBody {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    share: Share,
    codings: Vec<Coding>,
    has_begun: bool,
    /// Phase 4 has still to run, at the end of the body or of what is looked at.
    is_waiting: bool,
}

impl ResponseBody {
    pub(super) fn new(share: Share) -> Self {
        Self {
            pieces: VecDeque::new(),
            bytes: 0,
            share,
            codings: Vec::new(),
            has_begun: false,
            is_waiting: false,
        }
    }
}

impl Inspection {
    /// Where response bodies are looked at: asks the backend for whole ones, in codings that can
    /// be undone.
    pub(crate) fn narrow(&self, upstream: &mut RequestHeader) {
        let reads = self
            .transaction
            .as_ref()
            .is_some_and(|it| it.rules().settings().response_body_access);
        if !reads {
            return;
        }
        upstream.remove_header(&RANGE);
        upstream.remove_header(&IF_RANGE);
        if let Some(codings) = known_codings(&upstream.headers) {
            upstream.remove_header(&ACCEPT_ENCODING);
            // Insertion fails only for names and values that are none.
            let _ = upstream.insert_header(ACCEPT_ENCODING, codings);
        }
    }

    /// Phase 3, and phase 4 where there is no body to wait for. Otherwise the head waits, with the
    /// body, until [`Self::response_body`] has seen enough of it.
    ///
    /// # Errors
    ///
    /// The rules refuse the response.
    pub(crate) fn response_head(
        &mut self,
        session: &mut Session,
        held: &mut Option<Held>,
        response: &ResponseHeader,
        is_complete: bool,
    ) -> Result<()> {
        self.response.has_begun = true;
        self.show_response_head(response)?;
        let wants = self
            .transaction
            .as_ref()
            .is_some_and(|it| it.wants_response_body());
        let is_stream =
            response.status == StatusCode::SWITCHING_PROTOCOLS || is_stream(&response.headers);
        if !wants || is_complete || is_stream {
            return self.judge_response();
        }
        self.response.codings =
            decode::codings(response.headers.get_all(CONTENT_ENCODING)).unwrap_or_else(|_| {
                tracing::info!(target: "clew::rules", "a response's coding is unknown; rules see it as it is");
                Vec::new()
            });
        self.response.is_waiting = true;
        let held = held.get_or_insert_with(|| Held::hold(session, None));
        held.set_closed(true);
        Ok(())
    }

    /// Whether a response has begun to arrive.
    pub(crate) fn has_response(&self) -> bool {
        self.response.has_begun
    }

    fn show_response_head(&mut self, response: &ResponseHeader) -> Result<()> {
        let headers = || {
            let headers = response.headers.iter();
            headers.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
        };
        let status = response.status.as_u16();
        self.show(|specimen| specimen.response(status, headers()));
        let verdict = self.run(|transaction, late| {
            transaction.response_head(status, b"HTTP/1.1", headers(), late)
        });
        self.take(verdict).map_or(Ok(()), |_| Err(denied()))
    }

    /// Takes note of a piece, and runs phase 4 at the end, or where the rules' limit is.
    ///
    /// # Errors
    ///
    /// The rules refuse the response, or there is no memory left for bodies.
    pub(crate) fn response_body(
        &mut self,
        held: Option<&Held>,
        piece: Option<&Bytes>,
        is_last: bool,
    ) -> Result<()> {
        if !self.response.is_waiting {
            return Ok(());
        }
        let fits = piece.is_none_or(|piece| self.keep_response(piece));
        if !fits {
            self.refuse_response()?;
        }
        let limit = self
            .transaction
            .as_ref()
            .map_or(0, |it| it.response_body_limit());
        if fits && !is_last && self.response.bytes as u64 <= limit {
            return Ok(());
        }
        self.response.is_waiting = false;
        self.show_response_body(limit)?;
        self.judge_response()?;
        if let Some(held) = held {
            held.set_closed(false);
        }
        Ok(())
    }

    /// Keeps a piece, for the client and as the engine will; false when that was the last there is
    /// memory for.
    fn keep_response(&mut self, piece: &Bytes) -> bool {
        let fits = self.response.share.grow(2 * piece.len());
        self.response.bytes += piece.len();
        self.response.pieces.push_back(piece.clone());
        fits
    }

    /// There is no memory left; where rules only look, the rest passes unseen.
    fn refuse_response(&mut self) -> Result<()> {
        let refusal = self.refuse(503, "there is no memory left for bodies");
        refusal.map_or(Ok(()), |_| Err(denied()))
    }

    fn show_response_body(&mut self, limit: u64) -> Result<()> {
        let pieces = std::mem::take(&mut self.response.pieces);
        let codings = std::mem::take(&mut self.response.codings);
        if codings.is_empty() {
            return pieces
                .iter()
                .try_for_each(|piece| self.feed_response(piece));
        }
        let limits = decode::Limits {
            bytes: usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .saturating_add(1),
            expansion: usize::MAX,
        };
        let decoded = decode::decode(&codings, pieces.iter(), limits);
        if decoded.outcome == Outcome::Malformed {
            tracing::info!(target: "clew::rules", "a response is not coded as it says");
        }
        if !self.response.share.grow(decoded.bytes.len()) {
            self.refuse_response()?;
        }
        self.feed_response(&decoded.bytes)
    }

    fn feed_response(&mut self, piece: &[u8]) -> Result<()> {
        self.seen_bytes += piece.len();
        if let Some(specimen) = &mut self.specimen {
            // It is not shown bodies of responses.
            specimen.is_cut = true;
        }
        let verdict = self.transaction.as_mut().map(|it| it.response_body(piece));
        self.take(verdict).map_or(Ok(()), |_| Err(denied()))
    }

    /// Phase 4.
    fn judge_response(&mut self) -> Result<()> {
        let verdict = self.run(|transaction, late| transaction.response_body_done(late));
        self.take(verdict).map_or(Ok(()), |_| Err(denied()))
    }
}

/// What never ends, or may not: server-sent events and gRPC.
fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let starts = |with: &[u8]| {
        kind.get(..with.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(with))
    };
    starts(b"text/event-stream") || starts(b"application/grpc")
}

/// Of the codings that a client accepts, those that can be undone; none when it names none.
fn known_codings(headers: &HeaderMap) -> Option<String> {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return None;
    }
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let items = values.flat_map(|value| value.to_str().unwrap_or_default().split(','));
    let known = items.map(str::trim).filter(|item| {
        let name = item.split(';').next().unwrap_or_default().trim();
        ["gzip", "x-gzip", "deflate", "br", "zstd", "identity"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    });
    let known: Vec<&str> = known.collect();
    Some(if known.is_empty() {
        "identity".to_owned()
    } else {
        known.join(", ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_asked_for_codings_that_can_be_undone() {
        let known = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            known_codings(&headers)
        };
        assert_eq!(
            known("gzip, dcb, br;q=0.5"),
            Some("gzip, br;q=0.5".to_owned())
        );
        assert_eq!(known("*"), Some("identity".to_owned()));
        assert_eq!(known_codings(&HeaderMap::new()), None);
    }
}
