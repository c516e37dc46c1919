//! What a SecLang file says, before it is decided whether and how that can be run.
//!
//! The tree keeps the words of the file (macros are not expanded, regular expressions not
//! translated, phrase files not read) and where each came from, so that `compile` can report
//! every error with file, line and column.

use std::path::PathBuf;
use std::sync::Arc;

/// A place in a source: 1-based line and column (in bytes) of file number `file` in [`Ast::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct At {
    /// Index into [`Ast::files`].
    pub file: u32,
    /// 1-based; of a continued line, the physical line of this very byte.
    pub line: u32,
    /// 1-based, in bytes.
    pub column: u32,
}

/// Something with the place it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// Where its first byte stands.
    pub at: At,
    /// What stands there.
    pub node: T,
}

/// A whole configuration: all included files, in order, as one list.
#[derive(Clone, Debug, Default)]
pub struct Ast {
    /// Each file read, in order of reading.
    pub files: Vec<Arc<PathBuf>>,
    /// Directives in the order in which they take effect (`Include` is already replaced).
    pub directives: Vec<Spanned<Directive>>,
}

/// One directive. Names as in the ModSecurity reference manual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// `SecRule VARIABLES OPERATOR [ACTIONS]`.
    Rule(Rule),
    /// `SecAction ACTIONS`.
    Action(Vec<Spanned<Action>>),
    /// `SecMarker NAME`.
    Marker(String),
    /// `SecDefaultAction ACTIONS`.
    DefaultAction(Vec<Spanned<Action>>),
    /// `SecRuleRemoveById`: ids and ranges, both ends included.
    RemoveById(Vec<(u64, u64)>),
    /// `SecRuleRemoveByTag`: a regular expression.
    RemoveByTag(String),
    /// `SecRuleRemoveByMsg`: a regular expression.
    RemoveByMsg(String),
    /// `SecRuleUpdateTargetById`, `...ByTag`, `...ByMsg`.
    UpdateTarget {
        /// Which rules.
        rules: Select,
        /// What is added to their variables (exclusions among them).
        variables: Vec<Spanned<Variable>>,
        /// `[REPLACED_TARGET]`: the variable that is taken out first.
        replaced: Option<Vec<Spanned<Variable>>>,
    },
    /// `SecRuleUpdateActionById ID[:CHAIN_OFFSET] ACTIONS`.
    UpdateActionById {
        /// The rule's id.
        id: u64,
        /// Which rule of its chain, 0 the first.
        chain: u32,
        /// Its new actions.
        actions: Vec<Spanned<Action>>,
    },
    /// `SecRuleEngine`.
    RuleEngine(RuleEngine),
    /// `SecRequestBodyAccess`.
    RequestBodyAccess(bool),
    /// `SecResponseBodyAccess`.
    ResponseBodyAccess(bool),
    /// `SecRequestBodyLimit`, bytes.
    RequestBodyLimit(u64),
    /// `SecRequestBodyNoFilesLimit`, bytes.
    RequestBodyNoFilesLimit(u64),
    /// `SecRequestBodyInMemoryLimit`, bytes (accepted; Clew never spools to disk).
    RequestBodyInMemoryLimit(u64),
    /// `SecRequestBodyLimitAction`.
    RequestBodyLimitAction(LimitAction),
    /// `SecRequestBodyJsonDepthLimit`.
    RequestBodyJsonDepthLimit(u64),
    /// `SecResponseBodyLimit`, bytes.
    ResponseBodyLimit(u64),
    /// `SecResponseBodyLimitAction`.
    ResponseBodyLimitAction(LimitAction),
    /// `SecResponseBodyMimeType`: added to the list.
    ResponseBodyMimeType(Vec<String>),
    /// `SecResponseBodyMimeTypesClear`.
    ResponseBodyMimeTypesClear,
    /// `SecArgumentsLimit`.
    ArgumentsLimit(u64),
    /// `SecArgumentSeparator`: one byte.
    ArgumentSeparator(u8),
    /// `SecCookieFormat`: 0 (Netscape) or 1.
    CookieFormat(u8),
    /// `SecCollectionTimeout`, seconds.
    CollectionTimeout(u64),
    /// `SecComponentSignature`.
    ComponentSignature(String),
    /// `SecWebAppId`.
    WebAppId(String),
    /// `SecUnicodeMapFile FILE CODEPAGE`, resolved against the file that names it.
    UnicodeMapFile(PathBuf, u32),
    /// `SecGeoLookupDb FILE`, resolved against the file that names it.
    GeoLookupDb(PathBuf),
    /// `SecXmlExternalEntity` (only `Off` compiles).
    XmlExternalEntity(bool),
    /// `SecUploadKeepFiles`, `SecAudit*`, `SecDebugLog*` and others that tell where ModSecurity
    /// writes: read and checked for form, without effect in Clew, which has its own log.
    Ignored {
        /// The directive's name as documented.
        name: &'static str,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// `SecRuleEngine` and `ctl:ruleEngine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RuleEngine {
    /// Rules run and disruptive actions take effect.
    On,
    /// Rules are not run.
    Off,
    /// Rules run, disruptive actions are only logged.
    #[default]
    DetectionOnly,
}

/// What happens to a body beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LimitAction {
    /// The transaction is refused.
    #[default]
    Reject,
    /// What fits is inspected, the rest passes.
    ProcessPartial,
}

/// Which rules a directive speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// Ids and ranges, both ends included.
    Ids(Vec<(u64, u64)>),
    /// A regular expression over tags.
    Tag(String),
    /// A regular expression over messages.
    Msg(String),
}

/// `SecRule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The targets, in order.
    pub variables: Vec<Spanned<Variable>>,
    /// What they are asked.
    pub operator: Spanned<Operator>,
    /// What follows from a match, and the rule's own data.
    pub actions: Vec<Spanned<Action>>,
}

/// One target: `[&|!]COLLECTION[:SELECTOR]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// `&`: the number of members.
    pub count: bool,
    /// `!`: what is taken away from the targets before it.
    pub exclude: bool,
    /// Upper-case name, for example `REQUEST_HEADERS`; checked when compiled.
    pub collection: String,
    /// What stands after the colon.
    pub selector: Option<Selector>,
}

/// What stands after a variable's colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A member's name, in the file's own case (compared without regard to it).
    /// Of `XML`, an XPath expression.
    Key(String),
    /// `/regex/`.
    Regex(String),
}

/// `[!]@name argument`; without `@`, `rx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// `!`.
    pub negated: bool,
    /// As written, without `@`; names are compared without regard to case.
    pub name: String,
    /// The rest; escapes of the quoting are undone, macros are not expanded.
    pub argument: String,
    /// Where the argument's first byte stands.
    pub argument_at: At,
}

/// One action: `name[:argument]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Lower-case name, `t`, `id`, `ctl`, ...; checked when compiled.
    pub name: String,
    /// What stands after the colon; quotes are taken off, escapes of the quoting undone.
    pub argument: Option<String>,
    /// Where the argument's first byte stands.
    pub argument_at: At,
}
