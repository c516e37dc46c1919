//! How often somebody may ask.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clew_rules::transformation::Transformation;
use http::header::HeaderName;
use pingora::http::RequestHeader;
use pingora_limits::rate::Rate;

/// A bound on the requests of one asker within a span of time. The spans follow one another; each begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// What it is called in logs.
    pub name: String,
    /// Who is one asker.
    pub key: RateKey,
    /// Which requests count.
    pub scope: RateScope,
    /// Requests that are served within a span.
    pub requests: u32,
    /// The span.
    pub window: Duration,
    /// What becomes of those beyond.
    pub excess: Excess,
}

/// What becomes of requests beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// They are logged, and go on.
    Detect,
    /// They are answered with this status (429, RFC 6585 §4).
    Refuse(u16),
    /// They are refused, and whoever is to ban ([`crate::Config::offenders`]) is told of their client.
    Ban(u16),
}

/// Which requests count.
#[derive(Clone)]
pub struct RateScope {
    /// In words; two of the same words are the same.
    words: String,
    applies: Arc<Applies>,
}

type Applies = dyn Fn(&str, &str) -> bool + Send + Sync;

impl RateScope {
    /// `applies` is asked with the method, and the path as backends understand it: decoded, without dot segments.
    pub fn new(
        words: impl Into<String>,
        applies: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            words: words.into(),
            applies: Arc::new(applies),
        }
    }
}

impl PartialEq for RateScope {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for RateScope {}

impl std::fmt::Debug for RateScope {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.words)
    }
}

/// Who is one asker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    /// The client's address: of IPv6 its first 64 bits, which are one site's.
    Client,
    /// The value of a field, `Authorization` for example; requests without it are their client's.
    Field(HeaderName),
    /// All askers together.
    Everybody,
}

/// Limits, and who has asked how often.
///
/// Counts are estimates (count-min sketches): of a million askers within a span, some are taken to have asked a few
/// times more often than they have. Memory is bounded by the number of limits, 4 MiB each.
#[derive(Debug, Clone, Default)]
pub struct RateLimits(Arc<[Limit]>);

struct Limit {
    limit: RateLimit,
    rate: Arc<Rate>,
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.limit.fmt(formatter)
    }
}

/// Rows and columns of an estimate: an asker's count is too high by at most 3 in 65,536 of all requests, but for one
/// asker in fifty.
const ROWS: usize = 4;
const COLUMNS: usize = 65_536;

impl RateLimits {
    /// These limits. What was counted for one of `before` goes on where that is the same.
    pub fn new(limits: Vec<RateLimit>, before: &RateLimits) -> Self {
        let with_rate = |limit: RateLimit| {
            let known = before.0.iter().find(|it| it.limit == limit);
            let rate = known.map(|it| it.rate.clone());
            let rate = rate.unwrap_or_else(|| {
                let window = limit.window.max(Duration::from_secs(1));
                Arc::new(Rate::new_with_estimator_config(window, ROWS, COLUMNS))
            });
            Limit { limit, rate }
        };
        Self(limits.into_iter().map(with_rate).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Counts a request of `client`; the first limit that it exceeds.
    pub(crate) fn exceeded(&self, client: IpAddr, request: &RequestHeader) -> Option<&RateLimit> {
        let mut path = None;
        let mut exceeded = None;
        for Limit { limit, rate } in self.0.iter() {
            let path = path.get_or_insert_with(|| {
                String::from_utf8_lossy(&normal_path(request.raw_path())).into_owned()
            });
            if !(limit.scope.applies)(request.method.as_str(), path) {
                continue;
            }
            let count = rate.observe(&key(&limit.key, client, request), 1);
            if count > isize::try_from(limit.requests).unwrap_or(isize::MAX) {
                exceeded = exceeded.or(Some(limit));
            }
        }
        exceeded
    }
}

/// Estimates are kept by hash: with a key of this process, so that nobody can look for values that share one.
fn key(key: &RateKey, client: IpAddr, request: &RequestHeader) -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let field = match key {
        RateKey::Field(name) => request.headers.get(name),
        RateKey::Client | RateKey::Everybody => None,
    };
    match (key, field) {
        (RateKey::Everybody, _) => 0,
        (_, Some(value)) => SEED.hash_one(value.as_bytes()),
        (_, None) => SEED.hash_one(site(client)),
    }
}

fn site(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let site = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(site))
        }
    }
}

/// The path as backends understand it: two spellings of one path are one.
fn normal_path(target: &[u8]) -> Vec<u8> {
    let end = target.iter().position(|byte| b"?#".contains(byte));
    let mut path = target[..end.unwrap_or(target.len())].to_vec();
    let mut next = Vec::new();
    for step in [Transformation::UrlDecode, Transformation::NormalisePath] {
        next.clear();
        if step.apply(&path, None, &mut next) {
            std::mem::swap(&mut path, &mut next);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(path: &'static str, requests: u32) -> RateLimit {
        RateLimit {
            name: "login".to_owned(),
            key: RateKey::Client,
            scope: RateScope::new(path, move |method, asked| {
                method == "POST" && asked.starts_with(path)
            }),
            requests,
            window: Duration::from_secs(600),
            excess: Excess::Refuse(429),
        }
    }

    fn request(method: &str, target: &str) -> RequestHeader {
        let target = target.as_bytes();
        RequestHeader::build(method, target, None).expect("a request")
    }

    fn client(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_asker_has_a_count_of_his_own() {
        let limits = RateLimits::new(vec![limit("/login", 2)], &RateLimits::default());
        let asks = |who: &str, method: &str, target: &str| {
            let request = request(method, target);
            limits.exceeded(client(who), &request).is_some()
        };
        assert!(!asks("192.0.2.1", "POST", "/login"));
        assert!(!asks("192.0.2.1", "GET", "/login"));
        assert!(!asks("192.0.2.1", "POST", "/other"));
        assert!(!asks("192.0.2.1", "POST", "/login?x=/other"));
        assert!(asks("192.0.2.1", "POST", "/login"));
        assert!(!asks("192.0.2.2", "POST", "/login"));
        // One site of IPv6 is one asker.
        assert!(!asks("2001:db8::1", "POST", "/login"));
        assert!(!asks("2001:db8::2", "POST", "/login"));
        assert!(asks("2001:db8::ffff:3", "POST", "/login"));
        assert!(!asks("2001:db8:0:1::3", "POST", "/login"));
    }

    #[test]
    fn spellings_of_a_path_are_one() {
        let limits = RateLimits::new(vec![limit("/login", 0)], &RateLimits::default());
        for target in ["/login", "//login", "/%6cogin", "/a/../login", "/./login#x"] {
            let request = request("POST", target);
            let found = limits.exceeded(client("192.0.2.1"), &request);
            assert!(found.is_some(), "{target}");
        }
    }

    #[test]
    fn counts_go_on_when_limits_are_replaced() {
        let first = RateLimits::new(vec![limit("/a", 1), limit("/b", 1)], &RateLimits::default());
        let asks = |limits: &RateLimits, target: &str| {
            let request = request("POST", target);
            limits.exceeded(client("192.0.2.1"), &request).is_some()
        };
        assert!(!asks(&first, "/a") && !asks(&first, "/b"));
        let second = RateLimits::new(vec![limit("/b", 1), limit("/a", 2)], &first);
        assert!(asks(&second, "/b") && !asks(&second, "/a"));
    }

    #[test]
    fn fields_name_askers() {
        let by_token = RateLimit {
            key: RateKey::Field(http::header::AUTHORIZATION),
            ..limit("", 1)
        };
        let limits = RateLimits::new(vec![by_token], &RateLimits::default());
        let asks = |token: Option<&str>| {
            let mut request = request("POST", "/");
            if let Some(token) = token {
                let _ = request.insert_header("authorization", token);
            }
            limits.exceeded(client("192.0.2.1"), &request).is_some()
        };
        assert!(!asks(Some("Bearer a")) && !asks(Some("Bearer b")));
        assert!(asks(Some("Bearer a")));
        // Without one, by client.
        assert!(!asks(None) && asks(None));
    }
}
