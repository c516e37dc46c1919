//! `[spans]` of the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use clew_outbound::Place;
use schemars::JsonSchema;
use serde::Deserialize;

/// Spans of requests, sent to an OpenTelemetry collector.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Where the collector takes traces, OTLP over HTTP: `http://127.0.0.1:4318/v1/traces`. `http://` with a token is
    /// refused, except to this host.
    url: String,
    /// Which part of the traces that begin here is recorded, 0 to 1. Of others the `traceparent` of their requests
    /// decides.
    #[serde(default = "all")]
    share: f64,
    /// The name of this service in traces.
    #[serde(default = "clew")]
    service_name: String,
    /// A PEM file of the certificate authorities that are trusted. Default: the system's.
    authorities: Option<PathBuf>,
    /// A file with a bearer token. Default: none.
    token_file: Option<PathBuf>,
    /// The environment variable that has that token. Default: none.
    token_env: Option<String>,
    /// Most seconds that one attempt takes, 1 to 300.
    #[serde(default = "ten")]
    timeout_seconds: u64,
}

fn all() -> f64 {
    1.0
}

fn clew() -> String {
    "clew".to_owned()
}

fn ten() -> u64 {
    10
}

/// The same, checked.
#[derive(Debug, Clone)]
pub(crate) struct SpansConfig {
    pub(super) url: String,
    pub(crate) share: f64,
    pub(super) service_name: String,
    pub(super) authorities: Option<PathBuf>,
    pub(super) token: Option<Place>,
    pub(super) timeout: Duration,
}

impl SpansConfig {
    pub(crate) fn check(table: &Table) -> Result<Self> {
        let wrong = |problem: String| anyhow!("spans: {problem}");
        let token = Place::of("token", &table.token_file, &table.token_env).map_err(wrong)?;
        let url = clew_outbound::checked(&table.url, token.is_some()).map_err(wrong)?;
        ensure!(
            (0.0..=1.0).contains(&table.share),
            "spans.share = {}: it is a part of all, 0 to 1",
            table.share
        );
        ensure!(
            !table.service_name.is_empty(),
            "spans.service_name is empty: traces could not be told apart"
        );
        ensure!(
            (1..=300).contains(&table.timeout_seconds),
            "spans.timeout_seconds = {}: give it 1 to 300",
            table.timeout_seconds
        );
        Ok(Self {
            url,
            share: table.share,
            service_name: table.service_name.clone(),
            authorities: table.authorities.clone(),
            token,
            timeout: Duration::from_secs(table.timeout_seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<SpansConfig> {
        SpansConfig::check(&toml::from_str(text)?)
    }

    #[test]
    fn a_url_is_enough() {
        let config = check("url = \"http://127.0.0.1:4318/v1/traces\"").expect("spans");
        assert_eq!((config.share, config.service_name.as_str()), (1.0, "clew"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, complaint) in [
            ("share = 0.5", "url"),
            ("url = \"collector:4318\"", "https://"),
            ("url = \"http://collector\"\ntoken_env = \"A\"", "over http"),
            ("url = \"https://a\"\nshare = 1.5", "0 to 1"),
            ("url = \"https://a\"\nshare = nan", "0 to 1"),
            ("url = \"https://a\"\ntimeout_seconds = 0", "1 to 300"),
            ("url = \"https://a\"\nservice_name = \"\"", "told apart"),
        ] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
