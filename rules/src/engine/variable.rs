//! The variables that rules may name.
//!
//! Names and meanings are those of the ModSecurity reference manual (v3, "Variables").

use super::Phase;

/// What kind of thing a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value, or none.
    Scalar,
    /// Named members.
    Collection,
}

macro_rules! variables {
    ($($variant:ident $name:literal $kind:ident $phase:ident;)*) => {
        /// A variable, named as in the reference manual.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "named as in the reference manual")]
        pub enum Variable { $($variant,)* }

        impl Variable {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name as documented, in upper case.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One value or named members.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }

            /// The first phase in which it can have a value.
            pub fn available(self) -> Phase {
                match self { $(Self::$variant => Phase::$phase,)* }
            }
        }
    };
}

variables! {
    Args "ARGS" Collection RequestHeaders;
    ArgsGet "ARGS_GET" Collection RequestHeaders;
    ArgsPost "ARGS_POST" Collection RequestBody;
    ArgsNames "ARGS_NAMES" Collection RequestHeaders;
    ArgsGetNames "ARGS_GET_NAMES" Collection RequestHeaders;
    ArgsPostNames "ARGS_POST_NAMES" Collection RequestBody;
    ArgsCombinedSize "ARGS_COMBINED_SIZE" Scalar RequestHeaders;
    AuthType "AUTH_TYPE" Scalar RequestHeaders;
    Duration "DURATION" Scalar RequestHeaders;
    Env "ENV" Collection RequestHeaders;
    Files "FILES" Collection RequestBody;
    FilesCombinedSize "FILES_COMBINED_SIZE" Scalar RequestBody;
    FilesNames "FILES_NAMES" Collection RequestBody;
    FilesSizes "FILES_SIZES" Collection RequestBody;
    FilesTmpNames "FILES_TMPNAMES" Collection RequestBody;
    FilesTmpContent "FILES_TMP_CONTENT" Collection RequestBody;
    FullRequest "FULL_REQUEST" Scalar RequestHeaders;
    FullRequestLength "FULL_REQUEST_LENGTH" Scalar RequestHeaders;
    Geo "GEO" Collection RequestHeaders;
    Global "GLOBAL" Collection RequestHeaders;
    HighestSeverity "HIGHEST_SEVERITY" Scalar RequestHeaders;
    InboundDataError "INBOUND_DATA_ERROR" Scalar RequestHeaders;
    Ip "IP" Collection RequestHeaders;
    Json "JSON" Collection RequestBody;
    MatchedVar "MATCHED_VAR" Scalar RequestHeaders;
    MatchedVarName "MATCHED_VAR_NAME" Scalar RequestHeaders;
    MatchedVars "MATCHED_VARS" Collection RequestHeaders;
    MatchedVarsNames "MATCHED_VARS_NAMES" Collection RequestHeaders;
    ModsecBuild "MODSEC_BUILD" Scalar RequestHeaders;
    MscPcreError "MSC_PCRE_ERROR" Scalar RequestHeaders;
    MscPcreLimitsExceeded "MSC_PCRE_LIMITS_EXCEEDED" Scalar RequestHeaders;
    MultipartBoundaryQuoted "MULTIPART_BOUNDARY_QUOTED" Scalar RequestBody;
    MultipartBoundaryWhitespace "MULTIPART_BOUNDARY_WHITESPACE" Scalar RequestBody;
    MultipartCrlfLfLines "MULTIPART_CRLF_LF_LINES" Scalar RequestBody;
    MultipartDataAfter "MULTIPART_DATA_AFTER" Scalar RequestBody;
    MultipartDataBefore "MULTIPART_DATA_BEFORE" Scalar RequestBody;
    MultipartFileLimitExceeded "MULTIPART_FILE_LIMIT_EXCEEDED" Scalar RequestBody;
    MultipartFilename "MULTIPART_FILENAME" Collection RequestBody;
    MultipartHeaderFolding "MULTIPART_HEADER_FOLDING" Scalar RequestBody;
    MultipartInvalidHeaderFolding "MULTIPART_INVALID_HEADER_FOLDING" Scalar RequestBody;
    MultipartInvalidPart "MULTIPART_INVALID_PART" Scalar RequestBody;
    MultipartInvalidQuoting "MULTIPART_INVALID_QUOTING" Scalar RequestBody;
    MultipartLfLine "MULTIPART_LF_LINE" Scalar RequestBody;
    MultipartMissingSemicolon "MULTIPART_MISSING_SEMICOLON" Scalar RequestBody;
    MultipartName "MULTIPART_NAME" Collection RequestBody;
    MultipartPartHeaders "MULTIPART_PART_HEADERS" Collection RequestBody;
    MultipartStrictError "MULTIPART_STRICT_ERROR" Scalar RequestBody;
    MultipartUnmatchedBoundary "MULTIPART_UNMATCHED_BOUNDARY" Scalar RequestBody;
    OutboundDataError "OUTBOUND_DATA_ERROR" Scalar ResponseBody;
    PathInfo "PATH_INFO" Scalar RequestHeaders;
    QueryString "QUERY_STRING" Scalar RequestHeaders;
    RemoteAddr "REMOTE_ADDR" Scalar RequestHeaders;
    RemoteHost "REMOTE_HOST" Scalar RequestHeaders;
    RemotePort "REMOTE_PORT" Scalar RequestHeaders;
    RemoteUser "REMOTE_USER" Scalar RequestHeaders;
    ReqbodyError "REQBODY_ERROR" Scalar RequestBody;
    ReqbodyErrorMsg "REQBODY_ERROR_MSG" Scalar RequestBody;
    ReqbodyProcessor "REQBODY_PROCESSOR" Scalar RequestHeaders;
    ReqbodyProcessorError "REQBODY_PROCESSOR_ERROR" Scalar RequestBody;
    ReqbodyProcessorErrorMsg "REQBODY_PROCESSOR_ERROR_MSG" Scalar RequestBody;
    RequestBasename "REQUEST_BASENAME" Scalar RequestHeaders;
    RequestBody "REQUEST_BODY" Scalar RequestBody;
    RequestBodyLength "REQUEST_BODY_LENGTH" Scalar RequestBody;
    RequestCookies "REQUEST_COOKIES" Collection RequestHeaders;
    RequestCookiesNames "REQUEST_COOKIES_NAMES" Collection RequestHeaders;
    RequestFilename "REQUEST_FILENAME" Scalar RequestHeaders;
    RequestHeaders "REQUEST_HEADERS" Collection RequestHeaders;
    RequestHeadersNames "REQUEST_HEADERS_NAMES" Collection RequestHeaders;
    RequestLine "REQUEST_LINE" Scalar RequestHeaders;
    RequestMethod "REQUEST_METHOD" Scalar RequestHeaders;
    RequestProtocol "REQUEST_PROTOCOL" Scalar RequestHeaders;
    RequestUri "REQUEST_URI" Scalar RequestHeaders;
    RequestUriRaw "REQUEST_URI_RAW" Scalar RequestHeaders;
    Resource "RESOURCE" Collection RequestHeaders;
    ResponseBody "RESPONSE_BODY" Scalar ResponseBody;
    ResponseContentLength "RESPONSE_CONTENT_LENGTH" Scalar ResponseHeaders;
    ResponseContentType "RESPONSE_CONTENT_TYPE" Scalar ResponseHeaders;
    ResponseHeaders "RESPONSE_HEADERS" Collection ResponseHeaders;
    ResponseHeadersNames "RESPONSE_HEADERS_NAMES" Collection ResponseHeaders;
    ResponseProtocol "RESPONSE_PROTOCOL" Scalar ResponseHeaders;
    ResponseStatus "RESPONSE_STATUS" Scalar ResponseHeaders;
    Rule "RULE" Collection RequestHeaders;
    ServerAddr "SERVER_ADDR" Scalar RequestHeaders;
    ServerName "SERVER_NAME" Scalar RequestHeaders;
    ServerPort "SERVER_PORT" Scalar RequestHeaders;
    Session "SESSION" Collection RequestHeaders;
    Sessionid "SESSIONID" Scalar RequestHeaders;
    StatusLine "STATUS_LINE" Scalar ResponseHeaders;
    Time "TIME" Scalar RequestHeaders;
    TimeDay "TIME_DAY" Scalar RequestHeaders;
    TimeEpoch "TIME_EPOCH" Scalar RequestHeaders;
    TimeHour "TIME_HOUR" Scalar RequestHeaders;
    TimeMin "TIME_MIN" Scalar RequestHeaders;
    TimeMon "TIME_MON" Scalar RequestHeaders;
    TimeSec "TIME_SEC" Scalar RequestHeaders;
    TimeWday "TIME_WDAY" Scalar RequestHeaders;
    TimeYear "TIME_YEAR" Scalar RequestHeaders;
    Tx "TX" Collection RequestHeaders;
    UniqueId "UNIQUE_ID" Scalar RequestHeaders;
    UrlencodedError "URLENCODED_ERROR" Scalar RequestHeaders;
    User "USER" Collection RequestHeaders;
    Userid "USERID" Scalar RequestHeaders;
    Webappid "WEBAPPID" Scalar RequestHeaders;
    Xml "XML" Collection RequestBody;
}

/// Documented variables that Clew cannot have, and why.
const REFUSED: &[(&str, &str)] = &[
    ("PERF_ALL", "Clew does not time its phases for rules"),
    ("PERF_COMBINED", "Clew does not time its phases for rules"),
    ("PERF_GC", "Clew does not time its phases for rules"),
    ("PERF_LOGGING", "Clew does not time its phases for rules"),
    ("PERF_PHASE1", "Clew does not time its phases for rules"),
    ("PERF_PHASE2", "Clew does not time its phases for rules"),
    ("PERF_PHASE3", "Clew does not time its phases for rules"),
    ("PERF_PHASE4", "Clew does not time its phases for rules"),
    ("PERF_PHASE5", "Clew does not time its phases for rules"),
    ("PERF_RULES", "Clew does not time its phases for rules"),
    (
        "SCRIPT_BASENAME",
        "it names files of the web server, which a proxy does not see; use REQUEST_BASENAME",
    ),
    (
        "SCRIPT_FILENAME",
        "it names files of the web server, which a proxy does not see; use REQUEST_FILENAME",
    ),
    (
        "SCRIPT_GID",
        "it describes files of the web server, which a proxy does not see",
    ),
    (
        "SCRIPT_GROUPNAME",
        "it describes files of the web server, which a proxy does not see",
    ),
    (
        "SCRIPT_MODE",
        "it describes files of the web server, which a proxy does not see",
    ),
    (
        "SCRIPT_UID",
        "it describes files of the web server, which a proxy does not see",
    ),
    (
        "SCRIPT_USERNAME",
        "it describes files of the web server, which a proxy does not see",
    ),
    (
        "STREAM_INPUT_BODY",
        "Clew does not rewrite bodies; use REQUEST_BODY",
    ),
    (
        "STREAM_OUTPUT_BODY",
        "Clew does not rewrite bodies; use RESPONSE_BODY",
    ),
    (
        "USERAGENT_IP",
        "use REMOTE_ADDR, which Clew takes from trusted hops",
    ),
    ("USERAGENT_PORT", "use REMOTE_PORT"),
    ("WEBSERVER_ERROR_LOG", "Clew is not inside of a web server"),
];

impl Variable {
    /// The variable of this name, compared without regard to case.
    ///
    /// # Errors
    ///
    /// A sentence for names that do not exist or are refused.
    pub fn named(name: &str) -> Result<Self, String> {
        if let Some(found) = Self::ALL
            .iter()
            .find(|v| v.name().eq_ignore_ascii_case(name))
        {
            return Ok(*found);
        }
        match REFUSED
            .iter()
            .find(|(refused, _)| refused.eq_ignore_ascii_case(name))
        {
            Some((refused, why)) => Err(format!("the variable {refused} is not supported: {why}")),
            None => Err(format!(
                "there is no variable {name}; see the ModSecurity reference manual for their names"
            )),
        }
    }

    /// Its number, below `ALL.len()`.
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// Whether its values may change while the rules of a phase run, so that nothing
    /// known about them before a rule runs counts.
    pub(super) fn changes_within_phase(self) -> bool {
        matches!(
            self,
            Self::Tx
                | Self::Ip
                | Self::Global
                | Self::Session
                | Self::User
                | Self::Resource
                | Self::Geo
                | Self::Env
                | Self::Rule
                | Self::Duration
                | Self::HighestSeverity
                | Self::MatchedVar
                | Self::MatchedVarName
                | Self::MatchedVars
                | Self::MatchedVarsNames
                | Self::MscPcreError
                | Self::MscPcreLimitsExceeded
                | Self::Sessionid
                | Self::Userid
                | Self::Webappid
                | Self::ReqbodyProcessor
                | Self::FullRequest
                | Self::FullRequestLength
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(
            Variable::named("request_headers"),
            Ok(Variable::RequestHeaders)
        );
        assert_eq!(Variable::named("ARGS"), Ok(Variable::Args));
    }

    #[test]
    fn refusals_say_why() {
        assert!(Variable::named("PERF_ALL").is_err_and(|e| e.contains("not supported")));
        assert!(Variable::named("NO_SUCH").is_err_and(|e| e.contains("no variable")));
    }
}
