//! What is said of a request when it is over, where that is worth it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clew_protocol::Moment;
use clew_protocol::report::{
    Outcome, REPORT_HOPS, REPORT_MATCHES, REPORT_TEXT_BYTES, Report, ReportTiming, RuleMatch, Tls,
};
use clew_rules::engine::Match;
use http::Version;
use http::header::{CONTENT_TYPE, HeaderName, REFERER, USER_AGENT};
use pingora::protocols::tls::SslDigest;
use pingora::proxy::Session;

use crate::client::own_authority;
use crate::exchange::{Exchange, Gateway};
use crate::trace::position;

impl Gateway {
    /// Tells of a request that is over, if somebody wants to know and there is something to tell.
    pub(crate) fn report(&self, session: &Session, ctx: &mut Exchange, status: Option<u16>) {
        if let Some(rules) = &mut ctx.rules {
            rules.finish();
        }
        let Some(reports) = &self.reports else {
            return;
        };
        let found = ctx.rules.as_ref().and_then(|rules| rules.outcome());
        let detected = found.is_some().then_some(Outcome::Detected);
        let Some(outcome) = ctx.outcome.or(detected) else {
            return;
        };
        let (matches, score) = found.unwrap_or_default();
        let Some(mut report) = self.describe(session, ctx, outcome) else {
            return;
        };
        report.status = status;
        report.score = score;
        report.matches_cut = beyond(matches.len());
        report.matches = matches
            .iter()
            .take(REPORT_MATCHES)
            .map(rule_match)
            .collect();
        reports.tell(report);
    }

    /// All but what the rules have found. None for a client without an address.
    fn describe(&self, session: &Session, ctx: &Exchange, outcome: Outcome) -> Option<Report> {
        let request = session.req_header();
        let peer = *session.client_addr()?.as_inet()?;
        let server = session.server_addr().and_then(|address| address.as_inet());
        let rules = ctx.rules.as_ref();
        let read = rules.map_or(0, |rules| rules.request_body_bytes());
        let field = |name: &HeaderName| {
            let value = request.headers.get(name)?;
            Some(text(value.as_bytes()))
        };
        let digest = session.digest().and_then(|it| it.ssl_digest.as_ref());
        Some(Report {
            at: began(ctx.started),
            id: ctx.id,
            client: self.neighbours.client(peer, request),
            peer: peer.ip().to_canonical(),
            forwarded: self
                .neighbours
                .forwarded(&request.headers)
                .take(REPORT_HOPS)
                .map(text)
                .collect(),
            server: server.copied().unwrap_or(peer),
            tls: digest.map(|digest| tls(digest)),
            trace: match ctx.span {
                Some(span) => Some(span.into()),
                None => position(&request.headers),
            },
            version: version(request.version).to_owned(),
            method: text(request.method.as_str().as_bytes()),
            target: text(request.raw_path()),
            authority: text(own_authority(request)),
            user_agent: field(&USER_AGENT),
            referrer: field(&REFERER),
            content_type: field(&CONTENT_TYPE),
            request_body_bytes: ctx.request_body_bytes.max(read),
            response_body_bytes: ctx.relayed_body_bytes,
            service: ctx.service.as_ref().map(|it| it.config.name.clone()),
            upstream: ctx.upstream.map(|it| it.peer),
            status: None,
            outcome,
            incident: ctx.incident,
            score: (0, 0),
            matches: Vec::new(),
            matches_cut: 0,
            packs: rules.map_or_else(|| [].into(), |rules| rules.rulebook().packs.clone()),
            timing: ReportTiming {
                total: Moment::now().since(ctx.started),
                rules: rules.map_or(Duration::ZERO, |rules| rules.spent()),
                upstream: ctx.asked.zip(ctx.answered).map(|(from, to)| to.since(from)),
            },
        })
    }
}

/// When that was by the wall clock.
fn began(moment: Moment) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default()
        .saturating_sub(Moment::now().since(moment))
}

fn beyond(matches: usize) -> u32 {
    u32::try_from(matches.saturating_sub(REPORT_MATCHES)).unwrap_or(u32::MAX)
}

fn rule_match(matched: &Match<'_>) -> RuleMatch {
    let rule = matched.rule;
    RuleMatch {
        id: rule.map_or(0, |rule| rule.id),
        message: text(matched.message),
        data: text(matched.data),
        variable: text(matched.variable),
        severity: rule.and_then(|rule| rule.severity),
        tags: rule.map_or_else(Vec::new, |rule| {
            rule.tags.iter().map(|tag| tag.to_string()).collect()
        }),
        file: rule.map_or_else(String::new, |rule| rule.file.to_string_lossy().into_owned()),
        line: rule.map_or(0, |rule| rule.line),
        disruptive: matched.disruptive,
    }
}

fn tls(digest: &SslDigest) -> Tls {
    let has_certificate = !digest.cert_digest.is_empty();
    Tls {
        // The library writes them as `TLSv1_3` and `TLS13_...`.
        version: digest.version.trim_start_matches("TLSv").replace('_', "."),
        cipher: digest.cipher.replacen("TLS13_", "TLS_", 1),
        client_subject: digest.organization.clone().filter(|_| has_certificate),
        client_sha256: has_certificate.then(|| hex(&digest.cert_digest)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// At most [`REPORT_TEXT_BYTES`], as text.
fn text(bytes: &[u8]) -> String {
    let mut end = bytes.len().min(REPORT_TEXT_BYTES);
    // Of a character that the limit would cut, nothing is left.
    while end < bytes.len() && end > 0 && bytes[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "ä".repeat(REPORT_TEXT_BYTES);
        let cut = text(long.as_bytes());
        assert_eq!(cut.len(), REPORT_TEXT_BYTES);
        assert!(cut.chars().all(|it| it == 'ä'));
        assert!(text(&[0x80; 2 * REPORT_TEXT_BYTES]).is_empty());
        assert_eq!(text(b"a\xff"), "a\u{fffd}");
    }

    #[test]
    fn what_is_left_out_is_counted() {
        assert_eq!(beyond(REPORT_MATCHES), 0);
        assert_eq!(beyond(REPORT_MATCHES + 3), 3);
    }
}
