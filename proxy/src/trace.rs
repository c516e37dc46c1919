//! Where a request stands in a trace (W3C Trace Context, level 1).

use clew_protocol::report::Trace;
use http::HeaderMap;
use http::header::HeaderName;

pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What `traceparent` says; none when it is missing, said twice, or not as section 3.2 wants it.
pub(crate) fn trace(headers: &HeaderMap) -> Option<Trace> {
    let mut all = headers.get_all(&TRACEPARENT).iter();
    let value = all.next()?.as_bytes();
    if all.next().is_some() {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let version = parts.next().filter(|it| is_hex(it, 2) && *it != "ff")?;
    let trace_id = parts.next().filter(|it| is_id(it, 32))?;
    let parent_id = parts.next().filter(|it| is_id(it, 16))?;
    parts.next().filter(|it| is_hex(it, 2))?;
    // What later versions append is theirs; the first has nothing to append.
    if version == "00" && parts.next().is_some() {
        return None;
    }
    Some(Trace {
        trace_id: trace_id.to_owned(),
        span_id: None,
        parent_id: Some(parent_id.to_owned()),
    })
}

/// So many lower-case digits, not all of them zero.
fn is_id(text: &str, digits: usize) -> bool {
    is_hex(text, digits) && text.bytes().any(|byte| byte != b'0')
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(values: &[&str]) -> Option<Trace> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, value.parse().expect("a value"));
        }
        trace(&headers)
    }

    #[test]
    fn a_parent_is_read() {
        let trace = of(&[GOOD]).expect("a trace");
        assert_eq!(trace.trace_id, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.parent_id.as_deref(), Some("b7ad6b7169203331"));
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
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"],
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"],
        ] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }
}
