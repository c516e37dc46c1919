//! Pages the edge answers with by itself: its own, or those of whoever runs it.

use bytes::Bytes;
use clew_protocol::RequestId;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use pingora::Result;
use pingora::http::ResponseHeader;

/// Why the edge answers instead of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A verdict, or a ban.
    Blocked,
    /// A rule, with the status that it names.
    Denied(u16),
    /// A rule that sends the client to another address.
    Elsewhere(u16, HeaderValue),
    /// A rule that wants the connection closed without an answer.
    Silence,
    /// Asked too often: the status, and for how many seconds that is so at most.
    Limited(u16, u64),
    /// The request's form or size, or the backend's failure, by status.
    Status(u16),
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Answer::Blocked => 403,
            Answer::Denied(status)
            | Answer::Status(status)
            | Answer::Elsewhere(status, _)
            | Answer::Limited(status, _) => *status,
            Answer::Silence => 0,
        }
    }

    /// Whether the client's next request is welcome: what failed may have left the connection in
    /// any state.
    pub(crate) fn keeps_connection(&self) -> bool {
        matches!(
            self,
            Answer::Blocked | Answer::Denied(_) | Answer::Elsewhere(..) | Answer::Limited(..)
        )
    }

    /// Whether it is the request's form, size or pace that is not acceptable.
    pub(crate) fn blames_client(&self) -> bool {
        matches!(self, Answer::Status(400..=499))
    }

    /// Says what the client can act on, and nothing of how it was found out.
    fn sentence(&self) -> &'static str {
        match self {
            Answer::Blocked | Answer::Denied(_) | Answer::Silence => "This request was blocked.",
            Answer::Elsewhere(..) => "This request is answered elsewhere.",
            Answer::Limited(..) => "Too many requests; try again later.",
            Answer::Status(400) => "The request is malformed.",
            Answer::Status(405) => "The request's method is not supported.",
            Answer::Status(408) => "The request took too long to arrive.",
            Answer::Status(413) => "The request body is too large.",
            Answer::Status(415) => "The request body's coding is not supported.",
            Answer::Status(431) => "The request head is too large.",
            Answer::Status(502) => "The service gave no valid answer.",
            Answer::Status(503) => "The service is not available.",
            Answer::Status(504) => "The service did not answer in time.",
            Answer::Status(_) => "The request could not be served.",
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Answer::Status(_) => "failed",
            _ => "blocked",
        }
    }

    /// Header and body, HTML or JSON as the client prefers.
    pub(crate) fn render(
        &self,
        id: RequestId,
        asked: Option<&HeaderMap>,
        pages: &Pages,
    ) -> Result<(ResponseHeader, Bytes)> {
        let json = asked.is_some_and(prefers_json);
        let own = pages.page(self, json).map(|page| page.fill(self, id));
        let body = if let Some(body) = own {
            body
        } else if json {
            format!(
                "{{\"error\":\"{}\",\"request_id\":\"{id}\"}}\n",
                self.word()
            )
        } else {
            format!(
                "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
                 <title>{status}</title>\n<h1>{sentence}</h1>\n\
                 <p>Request id: <code>{id}</code></p></html>\n",
                status = self.status(),
                sentence = self.sentence(),
            )
        };
        let kind = if json {
            "application/json"
        } else {
            "text/html; charset=utf-8"
        };
        let mut header = ResponseHeader::build(self.status(), Some(4))?;
        header.insert_header("content-type", kind)?;
        header.insert_header("content-length", body.len().to_string())?;
        header.insert_header("cache-control", "no-store")?;
        header.insert_header("x-request-id", id.to_string())?;
        match self {
            Answer::Elsewhere(_, address) => header.insert_header(LOCATION, address.clone())?,
            Answer::Limited(_, seconds) => header.insert_header(RETRY_AFTER, *seconds)?,
            _ => {}
        }
        Ok((header, Bytes::from(body)))
    }
}

/// Pages in place of the edge's own.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// For requests that are blocked: HTML.
    pub blocked_html: Option<Page>,
    /// The same for clients that prefer JSON.
    pub blocked_json: Option<Page>,
    /// For requests that failed for another reason: HTML.
    pub failed_html: Option<Page>,
    /// The same for clients that prefer JSON.
    pub failed_json: Option<Page>,
}

impl Pages {
    fn page(&self, answer: &Answer, json: bool) -> Option<&Page> {
        let is_failure = matches!(answer, Answer::Status(_));
        match (is_failure, json) {
            (false, false) => self.blocked_html.as_ref(),
            (false, true) => self.blocked_json.as_ref(),
            (true, false) => self.failed_html.as_ref(),
            (true, true) => self.failed_json.as_ref(),
        }
    }
}

/// A page with `{{request_id}}`, `{{status}}` and `{{sentence}}` to be filled in. Nothing that a client has sent is
/// put into it.
#[derive(Debug, Clone)]
pub struct Page(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    RequestId,
    Status,
    Sentence,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    ///
    /// The name between double braces that is none of the three.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut parts = Vec::new();
        let mut pieces = text.split("{{");
        parts.extend(pieces.next().map(|it| Part::Text(it.to_owned())));
        for piece in pieces {
            let (name, rest) = piece.split_once("}}").unwrap_or((piece, ""));
            parts.push(match name.trim() {
                "request_id" => Part::RequestId,
                "status" => Part::Status,
                "sentence" => Part::Sentence,
                other => return Err(other.chars().take(64).collect()),
            });
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    fn fill(&self, answer: &Answer, id: RequestId) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::RequestId => id.to_string(),
            Part::Status => answer.status().to_string(),
            Part::Sentence => answer.sentence().to_owned(),
        });
        parts.collect()
    }
}

/// Whether `Accept` (RFC 9110 §12.5.1) names JSON and does not name HTML before it.
fn prefers_json(headers: &HeaderMap) -> bool {
    let accept = headers
        .get(http::header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let Some(accept) = accept else { return false };
    match (accept.find("json"), accept.find("text/html")) {
        (Some(json), Some(html)) => json < html,
        (json, _) => json.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, value.parse().expect("header"));
        headers
    }

    #[test]
    fn pages_of_others_are_filled_in() {
        let page = |text: &str| Page::parse(text).expect("a page");
        let pages = Pages {
            blocked_html: Some(page("<p>{{ status }}, {{request_id}}</p>{{sentence}}")),
            failed_json: Some(page("{\"s\":{{status}}}")),
            ..Pages::default()
        };
        let id = RequestId::fresh();
        let body = |answer: Answer, asked: &HeaderMap| {
            let (_, body) = answer.render(id, Some(asked), &pages).expect("a page");
            String::from_utf8_lossy(&body).into_owned()
        };
        let (html, json) = (HeaderMap::new(), accept("application/json"));
        assert_eq!(
            body(Answer::Denied(418), &html),
            format!("<p>418, {id}</p>This request was blocked.")
        );
        assert!(body(Answer::Blocked, &json).contains("\"blocked\""));
        assert_eq!(body(Answer::Status(502), &json), "{\"s\":502}");
        assert!(body(Answer::Status(502), &html).contains("<!doctype html>"));
        assert!(Page::parse("{{client}}").is_err() && Page::parse("a {{").is_err());
    }

    #[test]
    fn json_for_those_who_ask() {
        assert!(prefers_json(&accept("application/json")));
        assert!(prefers_json(&accept(
            "application/problem+json, text/html;q=0.5"
        )));
        assert!(!prefers_json(&accept("text/html,application/json")));
        assert!(!prefers_json(&accept("*/*")));
        assert!(!prefers_json(&HeaderMap::new()));
    }
}
