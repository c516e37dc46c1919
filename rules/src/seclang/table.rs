//! Every directive that is known, how it is written, and what Clew makes of it.

/// One directive.
pub(super) struct Entry {
    /// As documented; compared without regard to case.
    pub(super) name: &'static str,
    /// Its arguments: `[OPTIONAL]`, `REPEATED...`.
    pub(super) arguments: &'static str,
    /// What it is.
    pub(super) kind: Kind,
}

/// What a directive is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Rule,
    Action,
    Marker,
    DefaultAction,
    RemoveById,
    RemoveByTag,
    RemoveByMsg,
    UpdateTargetById,
    UpdateTargetByTag,
    UpdateTargetByMsg,
    UpdateActionById,
    RuleEngine,
    RequestBodyAccess,
    ResponseBodyAccess,
    RequestBodyLimit,
    RequestBodyNoFilesLimit,
    RequestBodyInMemoryLimit,
    RequestBodyLimitAction,
    RequestBodyJsonDepthLimit,
    ResponseBodyLimit,
    ResponseBodyLimitAction,
    ResponseBodyMimeType,
    ResponseBodyMimeTypesClear,
    ArgumentsLimit,
    ArgumentSeparator,
    CookieFormat,
    CollectionTimeout,
    ComponentSignature,
    WebAppId,
    UnicodeMapFile,
    GeoLookupDb,
    XmlExternalEntity,
    Include,
    IncludeOptional,
    /// Checked for form, without effect.
    Ignored(Form),
    /// Not supported: what to do instead. `Off`, which asks for nothing, is ignored.
    Refused(&'static str),
}

/// What an ignored directive's arguments look like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Anything.
    Text,
    /// A number.
    Number,
    /// An octal number or `default`.
    Mode,
    /// One of these words, in any case.
    Words(&'static [&'static str]),
    /// Letters out of these.
    Letters(&'static str),
}

const ON_OFF: Form = Form::Words(&["On", "Off"]);
const ON_OFF_RELEVANT: Form = Form::Words(&["On", "Off", "RelevantOnly"]);

/// The directive of that name.
pub(super) fn entry(name: &str) -> Option<&'static Entry> {
    DIRECTIVES
        .iter()
        .find(|entry| entry.name.eq_ignore_ascii_case(name))
}

const fn entry_of(name: &'static str, arguments: &'static str, kind: Kind) -> Entry {
    Entry {
        name,
        arguments,
        kind,
    }
}

const fn ignored(name: &'static str, arguments: &'static str, form: Form) -> Entry {
    entry_of(name, arguments, Kind::Ignored(form))
}

const fn refused(name: &'static str, instead: &'static str) -> Entry {
    entry_of(name, "ARGUMENT...", Kind::Refused(instead))
}

/// ModSecurity reference manual v3.x, "Configuration Directives", and those of v2.9 that teams
/// still carry along.
#[rustfmt::skip]
static DIRECTIVES: &[Entry] = &[
    entry_of("SecRule", "VARIABLES OPERATOR [ACTIONS]", Kind::Rule),
    entry_of("SecAction", "ACTIONS", Kind::Action),
    entry_of("SecMarker", "NAME", Kind::Marker),
    entry_of("SecDefaultAction", "ACTIONS", Kind::DefaultAction),
    entry_of("SecRuleRemoveById", "ID|FIRST-LAST...", Kind::RemoveById),
    entry_of("SecRuleRemoveByTag", "REGEX", Kind::RemoveByTag),
    entry_of("SecRuleRemoveByMsg", "REGEX", Kind::RemoveByMsg),
    entry_of("SecRuleUpdateTargetById", "ID|FIRST-LAST VARIABLES [REPLACED]", Kind::UpdateTargetById),
    entry_of("SecRuleUpdateTargetByTag", "REGEX VARIABLES [REPLACED]", Kind::UpdateTargetByTag),
    entry_of("SecRuleUpdateTargetByMsg", "REGEX VARIABLES [REPLACED]", Kind::UpdateTargetByMsg),
    entry_of("SecRuleUpdateActionById", "ID[:CHAIN_OFFSET] ACTIONS", Kind::UpdateActionById),
    entry_of("SecRuleEngine", "On|Off|DetectionOnly", Kind::RuleEngine),
    entry_of("SecRequestBodyAccess", "On|Off", Kind::RequestBodyAccess),
    entry_of("SecResponseBodyAccess", "On|Off", Kind::ResponseBodyAccess),
    entry_of("SecRequestBodyLimit", "BYTES", Kind::RequestBodyLimit),
    entry_of("SecRequestBodyNoFilesLimit", "BYTES", Kind::RequestBodyNoFilesLimit),
    entry_of("SecRequestBodyInMemoryLimit", "BYTES", Kind::RequestBodyInMemoryLimit),
    entry_of("SecRequestBodyLimitAction", "Reject|ProcessPartial", Kind::RequestBodyLimitAction),
    entry_of("SecRequestBodyJsonDepthLimit", "LEVELS", Kind::RequestBodyJsonDepthLimit),
    entry_of("SecResponseBodyLimit", "BYTES", Kind::ResponseBodyLimit),
    entry_of("SecResponseBodyLimitAction", "Reject|ProcessPartial", Kind::ResponseBodyLimitAction),
    entry_of("SecResponseBodyMimeType", "TYPE...", Kind::ResponseBodyMimeType),
    entry_of("SecResponseBodyMimeTypesClear", "", Kind::ResponseBodyMimeTypesClear),
    entry_of("SecArgumentsLimit", "COUNT", Kind::ArgumentsLimit),
    entry_of("SecArgumentSeparator", "CHARACTER", Kind::ArgumentSeparator),
    entry_of("SecCookieFormat", "0|1", Kind::CookieFormat),
    entry_of("SecCollectionTimeout", "SECONDS", Kind::CollectionTimeout),
    entry_of("SecComponentSignature", "TEXT", Kind::ComponentSignature),
    entry_of("SecWebAppId", "NAME", Kind::WebAppId),
    entry_of("SecUnicodeMapFile", "FILE CODEPAGE", Kind::UnicodeMapFile),
    entry_of("SecGeoLookupDb", "FILE", Kind::GeoLookupDb),
    entry_of("SecXmlExternalEntity", "On|Off", Kind::XmlExternalEntity),
    entry_of("Include", "FILE|GLOB", Kind::Include),
    entry_of("IncludeOptional", "FILE|GLOB", Kind::IncludeOptional),
    // Where and how ModSecurity writes.
    ignored("SecAuditEngine", "On|Off|RelevantOnly", ON_OFF_RELEVANT),
    ignored("SecAuditLog", "FILE", Form::Text),
    ignored("SecAuditLog2", "FILE", Form::Text),
    ignored("SecAuditLogDirMode", "MODE|default", Form::Mode),
    ignored("SecAuditLogFileMode", "MODE|default", Form::Mode),
    ignored("SecAuditLogFormat", "JSON|Native", Form::Words(&["JSON", "Native"])),
    ignored("SecAuditLogParts", "PARTS", Form::Letters("ABCDEFGHIJKZ")),
    ignored("SecAuditLogPrefix", "TEXT", Form::Text),
    ignored("SecAuditLogRelevantStatus", "REGEX", Form::Text),
    ignored("SecAuditLogStorageDir", "DIRECTORY", Form::Text),
    ignored("SecAuditLogType", "Serial|Parallel|Concurrent|HTTPS", Form::Words(&["Serial", "Parallel", "Concurrent", "HTTPS"])),
    ignored("SecDebugLog", "FILE", Form::Text),
    ignored("SecDebugLogLevel", "0-9", Form::Number),
    ignored("SecDataDir", "DIRECTORY", Form::Text),
    ignored("SecGuardianLog", "FILE|PIPE", Form::Text),
    ignored("SecSensorId", "NAME", Form::Text),
    ignored("SecStatusEngine", "On|Off", ON_OFF),
    ignored("SecTmpDir", "DIRECTORY", Form::Text),
    ignored("SecTmpSaveUploadedFiles", "On|Off", ON_OFF),
    ignored("SecUploadDir", "DIRECTORY", Form::Text),
    ignored("SecUploadFileLimit", "COUNT", Form::Number),
    ignored("SecUploadFileMode", "MODE|default", Form::Mode),
    ignored("SecUploadKeepFiles", "On|Off|RelevantOnly", ON_OFF_RELEVANT),
    // What Clew has no need of: its regular expressions take linear time, a value is transformed
    // once, a rule set is one context, nothing is fetched.
    ignored("SecCacheTransformations", "On|Off [OPTIONS]", Form::Text),
    ignored("SecHttpBlKey", "KEY", Form::Text),
    ignored("SecPcreMatchLimit", "COUNT", Form::Number),
    ignored("SecPcreMatchLimitRecursion", "COUNT", Form::Number),
    ignored("SecRemoteRulesFailAction", "Abort|Warn", Form::Words(&["Abort", "Warn"])),
    ignored("SecRuleInheritance", "On|Off", ON_OFF),
    ignored("SecRulePerfTime", "MICROSECONDS", Form::Number),
    // What would change a verdict or an answer, and is not there.
    refused("SecChrootDir", "run the proxy in a container or a unit with RootDirectory="),
    refused("SecConnEngine", "limit connections at the proxy"),
    refused("SecConnReadStateLimit", "limit connections at the proxy"),
    refused("SecConnWriteStateLimit", "limit connections at the proxy"),
    refused("SecReadStateLimit", "limit connections at the proxy"),
    refused("SecWriteStateLimit", "limit connections at the proxy"),
    refused("SecContentInjection", "remove it and the rules that append or prepend"),
    refused("SecCookieV0Separator", "remove it: cookies are separated by `;`"),
    refused("SecDisableBackendCompression", "turn compression off in the backend"),
    refused("SecGsbLookupDb", "remove it and the rules with @gsbLookup"),
    refused("SecHashEngine", "remove it and the other SecHash directives"),
    refused("SecHashKey", "remove it and the other SecHash directives"),
    refused("SecHashMethodPm", "remove it and the other SecHash directives"),
    refused("SecHashMethodRx", "remove it and the other SecHash directives"),
    refused("SecHashParam", "remove it and the other SecHash directives"),
    refused("SecInterceptOnError", "remove it: a rule that cannot be evaluated is refused when it is loaded"),
    refused("SecParseXmlIntoArgs", "remove it and let rules name XML:/* and XML://@*"),
    refused("SecRemoteRules", "fetch the file and name it in an Include"),
    refused("SecRequestEncoding", "remove it"),
    refused("SecRuleScript", "write the check as SecRule: Lua is not run"),
    refused("SecServerSignature", "set the Server header in the backend"),
    refused("SecStreamInBodyInspection", "remove it and let rules name REQUEST_BODY"),
    refused("SecStreamOutBodyInspection", "remove it and let rules name RESPONSE_BODY"),
    refused("SecUnicodeCodePage", "give the code page to SecUnicodeMapFile"),
];

impl Entry {
    /// How few and how many arguments it takes.
    pub(super) fn arity(&self) -> (usize, usize) {
        let words = || self.arguments.split(' ').filter(|word| !word.is_empty());
        let least = words().filter(|word| !word.starts_with('[')).count();
        match self.arguments.ends_with("...") {
            true => (least, usize::MAX),
            false => (least, words().count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = DIRECTIVES
            .iter()
            .map(|entry| entry.name.to_ascii_lowercase())
            .collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_written_form_gives_the_arity() {
        let arity = |name| entry(name).map(Entry::arity);
        assert_eq!(arity("secrule"), Some((2, 3)));
        assert_eq!(arity("SecRuleUpdateActionById"), Some((2, 2)));
        assert_eq!(arity("SecResponseBodyMimeType"), Some((1, usize::MAX)));
        assert_eq!(arity("SecResponseBodyMimeTypesClear"), Some((0, 0)));
    }
}
