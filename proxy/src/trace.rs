//! Where a request stands in a trace (W3C Trace Context, level 1), and the edge's own span of it.

use clew_protocol::RequestId;
use clew_protocol::report::Trace;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use pingora::http::RequestHeader;
use pingora::{ErrorType, OrErr, Result};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The edge makes a span of each request, and backends are told that theirs are below it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tracing {
    /// Which part of the traces that begin here is recorded, 0 to 1. Of others their own word decides.
    pub share: f64,
}

/// The edge's span of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The trace. Where it begins here, its digits are those of the request's id.
    pub trace_id: u128,
    /// The span. Never 0.
    pub id: u64,
    /// The client's span; none where the trace begins here.
    pub parent_id: Option<u64>,
    /// Whether the trace is recorded.
    pub is_sampled: bool,
}

impl Span {
    /// The next one: below that which `traceparent` names, or the first of a trace.
    pub(crate) fn begin(tracing: Tracing, headers: &HeaderMap, request: RequestId) -> Self {
        let id = fastrand::u64(1..);
        match Parent::read(headers) {
            Some(parent) => Self {
                trace_id: parent.trace_id,
                id,
                parent_id: Some(parent.id),
                is_sampled: parent.is_sampled,
            },
            None => {
                let trace_id = request.0.as_u128();
                Self {
                    trace_id,
                    id,
                    parent_id: None,
                    is_sampled: is_chosen(trace_id, tracing.share),
                }
            }
        }
    }

    /// Tells a backend of it. What a client says of a trace that it does not name (section 3.3) is taken out.
    pub(crate) fn tell(&self, request: &mut RequestHeader) -> Result<()> {
        if self.parent_id.is_none() {
            request.remove_header(&TRACESTATE);
        }
        let flags = u8::from(self.is_sampled);
        let value = format!("00-{:032x}-{:016x}-{flags:02x}", self.trace_id, self.id);
        let value = HeaderValue::try_from(value)
            .or_err(ErrorType::InternalError, "hexadecimal digits are ASCII")?;
        request.insert_header(TRACEPARENT.clone(), value)
    }
}

impl From<Span> for Trace {
    fn from(span: Span) -> Self {
        Self {
            trace_id: format!("{:032x}", span.trace_id),
            span_id: Some(format!("{:016x}", span.id)),
            parent_id: span.parent_id.map(|it| format!("{it:016x}")),
        }
    }
}

/// By the digits of a trace's id that are random, so that others who go by them choose the same.
fn is_chosen(trace_id: u128, share: f64) -> bool {
    let random = trace_id & u128::from(u32::MAX);
    (random as f64) < share * (f64::from(u32::MAX) + 1.0)
}

/// Where it stands by what the client says, where the edge makes no span of it.
pub(crate) fn position(headers: &HeaderMap) -> Option<Trace> {
    let parent = Parent::read(headers)?;
    Some(Trace {
        trace_id: format!("{:032x}", parent.trace_id),
        span_id: None,
        parent_id: Some(format!("{:016x}", parent.id)),
    })
}

/// What `traceparent` names.
#[derive(Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    id: u64,
    is_sampled: bool,
}

impl Parent {
    /// None when the field is missing, said twice, or not as section 3.2 wants it.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(&TRACEPARENT).iter();
        let value = all.next()?.as_bytes();
        if all.next().is_some() {
            return None;
        }
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.split('-');
        let version = digits(parts.next()?, 2).filter(|it| *it != 0xff)?;
        let trace_id = digits(parts.next()?, 32).filter(|it| *it != 0)?;
        let id = digits(parts.next()?, 16).filter(|it| *it != 0)?;
        let flags = digits(parts.next()?, 2)?;
        // What later versions append is theirs; the first has nothing to append.
        if version == 0 && parts.next().is_some() {
            return None;
        }
        Some(Self {
            trace_id,
            id: u64::try_from(id).ok()?,
            is_sampled: flags & 1 == 1,
        })
    }
}

/// So many lower-case hexadecimal digits.
fn digits(text: &str, count: usize) -> Option<u128> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_number = text.len() == count && text.bytes().all(is_digit);
    u128::from_str_radix(text, 16).ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, value.parse().expect("a value"));
        }
        headers
    }

    fn of(values: &[&str]) -> Option<Parent> {
        Parent::read(&headers(values))
    }

    #[test]
    fn a_parent_is_read() {
        let parent = of(&[GOOD]).expect("a parent");
        assert_eq!(parent.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parent.id, 0xb7ad_6b71_6920_3331);
        assert!(parent.is_sampled);
        assert!(!of(&[&GOOD.replace("-01", "-02")]).expect("one").is_sampled);
        assert!(of(&[&GOOD.replace("00-0a", "cc-0a").replace("-01", "-01-more")]).is_some());
    }

    #[test]
    fn what_is_none_is_passed_over() {
        let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for values in [
            &[][..],
            &[""],
            &[GOOD, GOOD],
            &[zeros],
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
            &["00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"],
        ] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }

    #[test]
    fn a_trace_that_begins_here_is_named_after_the_request() {
        let (id, all) = (RequestId::fresh(), Tracing { share: 1.0 });
        let span = Span::begin(all, &HeaderMap::new(), id);
        assert_eq!(
            Trace::from(span).trace_id,
            id.0.as_simple().to_string(),
            "{span:?}"
        );
        assert!(span.is_sampled && span.parent_id.is_none());
        let none = Tracing { share: 0.0 };
        assert!(!Span::begin(none, &HeaderMap::new(), id).is_sampled);
        // Whoever has begun the trace has chosen.
        let below = Span::begin(none, &headers(&[GOOD]), id);
        assert!(below.is_sampled && below.parent_id == Some(0xb7ad_6b71_6920_3331));
    }

    #[test]
    fn a_share_is_chosen() {
        let chosen = (0..10_000)
            .filter(|_| is_chosen(RequestId::fresh().0.as_u128(), 0.25))
            .count();
        assert!((2000..3000).contains(&chosen), "{chosen}");
    }
}
