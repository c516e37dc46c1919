//! Rate limits: how often something may be asked for. Plain data; the edge carries them out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One limit. Made by [`Manifest::parse`](crate::Manifest::parse), so all its values are within their bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// `PACK/NAME`, which logs show.
    pub name: String,
    /// Who is counted.
    pub key: Key,
    /// Which paths count.
    pub path: PathPattern,
    /// Methods that count, in upper case; none: all.
    pub methods: Vec<String>,
    /// So many requests, 1 to 1,000,000,
    pub requests: u32,
    /// in this time, 1 s to a day.
    pub span: Duration,
    /// What further requests are answered, 400 to 599.
    pub status: u16,
    /// What becomes of further requests.
    pub action: LimitAction,
    /// The pack only detects: what goes beyond the limit is logged and goes on.
    pub detect: bool,
}

impl Limit {
    /// Whether a request counts. `path` is the target's, without the query.
    ///
    /// Cost: linear in `path`.
    pub fn applies(&self, method: &str, path: &str) -> bool {
        let listed = || self.methods.iter().any(|it| it == method);
        (self.methods.is_empty() || listed()) && self.path.matches(path)
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "limit {} ", self.name)?;
        match &self.key {
            Key::Client => write!(f, "client")?,
            Key::Token(header) => write!(f, "token {header}")?,
        }
        let methods = self.methods.join(",");
        write!(
            f,
            " {methods} {} {} in {} s",
            self.path,
            self.requests,
            self.span.as_secs()
        )?;
        write!(f, ": {} {:?}", self.status, self.action)
    }
}

/// Who is counted, each for himself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The client's address.
    Client,
    /// What this header (in lower case) says. To be counted by a keyed hash, for it is a secret; requests
    /// without it are counted by address.
    Token(String),
}

/// `key`, as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LimitKey {
    #[default]
    Client,
    Token,
}

/// What becomes of requests beyond a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitAction {
    /// They are refused.
    #[default]
    Refuse,
    /// They are refused, and their source is banned.
    Ban,
}

/// Which paths count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PathPattern(String);

impl PathPattern {
    /// Reads a pattern: without `*` that path and all below it (`/api` is `/api` and `/api/x`, not `/apis`);
    /// with `*` whole paths, `*` being any characters, `/` among them.
    ///
    /// # Errors
    ///
    /// What is wrong, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("path {text:?} must begin with /"));
        }
        let odd = |c: char| c.is_control() || c == '?' || c == '#' || c == ' ';
        if text.len() > 1024 || text.contains(odd) {
            return Err(
                "path must be the path of a target, without a query, at most 1024 bytes".to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether `path` is one of them. Cost: linear in `path` for each part between the `*`.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = path.strip_prefix(first) else {
            return first.strip_suffix('/') == Some(path) && !self.0.contains('*');
        };
        let Some(last) = parts.next_back() else {
            return first.ends_with('/') || rest.is_empty() || rest.starts_with('/');
        };
        // The first place where a part is found leaves the most room for those behind it.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_match_whole_segments_or_globs() {
        let matches =
            |pattern: &str, path| PathPattern::parse(pattern).is_ok_and(|it| it.matches(path));
        for (pattern, path) in [
            ("/", "/"),
            ("/", "/a"),
            ("/api", "/api"),
            ("/api", "/api/x"),
            ("/api/", "/api"),
            ("/api/", "/api/x"),
            ("/a/*/c", "/a/b/c"),
            ("/a/*/c", "/a/b/b/c"),
            ("/*.php", "/x/y.php"),
            ("/a*b*c", "/abbc"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/api", "/apis"),
            ("/api/", "/apix"),
            ("/a/*/c", "/a/c"),
            ("/*.php", "/x.php5"),
            ("/a*b*c", "/acb"),
            ("/ab*bc", "/abc"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for bad in ["", "api", "/a?b", "/a b", "/\n"] {
            assert!(PathPattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
