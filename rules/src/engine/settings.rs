//! What a configuration sets for all transactions, and what its user adds to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::collections::Collections;
use crate::operator::{BlockList, GeoLookup};
use crate::seclang::ast::{LimitAction, RuleEngine};

/// The directives that are not rules. Defaults are ModSecurity's, save where said.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `SecRuleEngine`. Default `DetectionOnly`; ModSecurity's is `Off`, which nobody wants who loads rules.
    pub engine: RuleEngine,
    /// `SecRequestBodyAccess`.
    pub request_body_access: bool,
    /// `SecRequestBodyLimit`, bytes. Default 128 MiB.
    pub request_body_limit: u64,
    /// `SecRequestBodyNoFilesLimit`, bytes. Default 1 MiB.
    pub request_body_no_files_limit: u64,
    /// `SecRequestBodyLimitAction`.
    pub request_body_limit_action: LimitAction,
    /// `SecRequestBodyJsonDepthLimit`. Default 512.
    pub json_depth: u64,
    /// `SecResponseBodyAccess`.
    pub response_body_access: bool,
    /// `SecResponseBodyLimit`, bytes. Default 512 KiB.
    pub response_body_limit: u64,
    /// `SecResponseBodyLimitAction`.
    pub response_body_limit_action: LimitAction,
    /// `SecResponseBodyMimeType`, lower case. Default `text/plain`, `text/html`, `text/xml`.
    pub response_mime_types: Vec<String>,
    /// `SecArgumentsLimit`. Default 1000.
    pub arguments_limit: u64,
    /// `SecArgumentSeparator`.
    pub argument_separator: u8,
    /// `SecCookieFormat`.
    pub cookie_format: u8,
    /// `SecCollectionTimeout`. Default an hour.
    pub collection_timeout: Duration,
    /// `SecComponentSignature`, each.
    pub signatures: Vec<String>,
    /// `SecWebAppId`.
    pub web_app_id: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine: RuleEngine::DetectionOnly,
            request_body_access: false,
            request_body_limit: 128 << 20,
            request_body_no_files_limit: 1 << 20,
            request_body_limit_action: LimitAction::Reject,
            json_depth: 512,
            response_body_access: false,
            response_body_limit: 512 << 10,
            response_body_limit_action: LimitAction::Reject,
            response_mime_types: ["text/plain", "text/html", "text/xml"]
                .map(str::to_owned)
                .to_vec(),
            arguments_limit: 1000,
            argument_separator: b'&',
            cookie_format: 0,
            collection_timeout: Duration::from_secs(3600),
            signatures: Vec::new(),
            web_app_id: "default".to_owned(),
        }
    }
}

/// What the user of a rule set gives to it.
#[derive(Clone)]
pub struct Options {
    /// Answers `@geoLookup`. Without one no rule with it can match; a warning at load says so.
    pub geo: Option<Arc<dyn GeoLookup>>,
    /// Answers `@rbl`. Without one no rule with it can match; a warning at load says so.
    pub block_list: Option<Arc<dyn BlockList>>,
    /// Keeps `IP` and the other persistent collections. Without one they are empty at the
    /// beginning of each transaction.
    pub collections: Option<Arc<dyn Collections>>,
    /// `ENV`.
    pub environment: HashMap<String, String>,
    /// Whether rules that cannot match a value are passed over. Off, every rule is asked: slow,
    /// and the measure of what is right.
    pub prefilter: bool,
    /// What happens when a transaction's time is used up.
    pub out_of_time: OutOfTime,
    /// Bytes of a value that a record shows. Default 256.
    pub shown_bytes: usize,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("prefilter", &self.prefilter)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            geo: None,
            block_list: None,
            collections: None,
            environment: HashMap::new(),
            prefilter: true,
            out_of_time: OutOfTime::Deny(503),
            shown_bytes: 256,
        }
    }
}

/// What happens when a transaction's time is used up. It is recorded either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfTime {
    /// The transaction passes, without the rest of its rules.
    Pass,
    /// It is answered with this status (in `DetectionOnly`, it passes).
    Deny(u16),
}
