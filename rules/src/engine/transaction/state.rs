//! All that changes while a transaction goes on.

use super::super::filter::Marked;
use super::super::ruleset::{Allow, Processor, RuleSet};
use super::super::tx::Tx;
use super::super::values::{KEEP_BYTES, ValueId, Values};
use super::super::variable::Variable;
use super::super::verdict::{Intervention, Verdict};
use super::persistent::Opened;
use super::{Connection, Now};
use crate::body::Scratch;
use crate::body::xml::Document;
use crate::operator::{Found, Rx};
use crate::seclang::ast::RuleEngine;

/// See the module. Split by what is done with it: `head`, `body` and `response` fill it, `lookup`
/// finds values for rules, `expand` for macros, `run` evaluates, `effect` carries out.
pub(super) struct State {
    pub(super) values: Values,
    /// Variables with one value, by their numbers.
    pub(super) scalars: [ValueId; Variable::ALL.len()],
    pub(super) lists: [Vec<Member>; List::COUNT],
    pub(super) tx: Tx,
    pub(super) connection: Connection,
    pub(super) now: Now,
    pub(super) started: Now,
    pub(super) opened: [Option<Opened>; 5],

    pub(super) engine: RuleEngine,
    pub(super) request_body_access: bool,
    pub(super) request_body_limit: u64,
    pub(super) response_body_access: bool,
    pub(super) response_body_limit: u64,
    pub(super) force_request_body_variable: bool,
    pub(super) processor: Option<Processor>,
    pub(super) content_type: ValueId,
    /// Bytes of the request's body so far.
    pub(super) body: Vec<u8>,
    pub(super) response: Vec<u8>,
    pub(super) parsing: Scratch,
    pub(super) document: Document,
    /// What each of `RuleSet::xpaths` finds in the document.
    pub(super) xml: Vec<Vec<Member>>,

    /// Numbers of rules that `ctl` took out, as bits.
    pub(super) removed: Bits,
    /// Numbers of rules from which `ctl` took a target, as bits.
    pub(super) narrowed: Bits,
    /// Whether there is any of either.
    pub(super) is_restricted: bool,
    /// Indices into `RuleSet::removals`.
    pub(super) removals: Vec<u16>,
    pub(super) masks: Vec<Mask>,

    /// `MATCHED_VARS` of the rule that is running.
    pub(super) matched: Vec<(Name, Subject)>,
    /// `MATCHED_VAR`.
    pub(super) last_match: Option<(Name, Subject)>,
    pub(super) highest_severity: u8,
    /// Number of the rule that is running.
    pub(super) current: u32,
    /// The record of the rule that is running.
    pub(super) draft: Option<Recorded>,
    pub(super) records: Vec<Recorded>,
    pub(super) fired: Vec<u32>,
    pub(super) allowed: Option<Allow>,
    pub(super) intervention: Option<Intervention>,
    /// The phase that comes next, by its index.
    pub(super) coming: usize,
    /// No phase was left out or ended early so far.
    pub(super) is_straight: bool,

    pub(super) marked: Marked,
    /// Index into `Filter::plans`.
    pub(super) plan: usize,
    /// Something happened on which the choice of the plan depends.
    pub(super) plan_stale: bool,
    /// Whether the values that there are in this phase were scanned.
    pub(super) is_scanned: bool,
    /// How many members of each list were scanned.
    pub(super) scanned: [usize; List::COUNT],
    pub(super) scanned_xml: usize,
    /// Which variables with one value were scanned, as bits.
    pub(super) scanned_scalars: u128,

    pub(super) found: Found,
    pub(super) candidates: Vec<Candidate>,
    pub(super) argument: Vec<u8>,
    /// Where macros are expanded.
    pub(super) text: Vec<u8>,
    /// The last `@rx` with macros, and what it was compiled from.
    pub(super) macro_rx: Option<(Vec<u8>, Rx)>,
}

/// A member of a collection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) key: ValueId,
    pub(super) value: ValueId,
    /// Which of the first 32 `/regex/` selectors were asked about the key, and what they said.
    pub(super) asked: u32,
    pub(super) selected: u32,
}

impl Member {
    pub(super) fn new(key: ValueId, value: ValueId) -> Self {
        Self {
            key,
            value,
            asked: 0,
            selected: 0,
        }
    }
}

/// The lists of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum List {
    ArgsGet,
    ArgsPost,
    RequestHeaders,
    RequestCookies,
    ResponseHeaders,
    /// Field names and file names.
    Files,
    FilesSizes,
    FilesContent,
    PartHeaders,
    /// Field names of all parts.
    PartNames,
    Geo,
    Env,
}

impl List {
    pub(in super::super) const COUNT: usize = Self::Env as usize + 1;
}

/// What a value is called: `ARGS:foo`. Made into text only where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) variable: Variable,
    pub(super) key: NameKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameKey {
    None,
    Value(ValueId),
    /// Of `TX`.
    Slot(u16),
    /// `&`: the number of members.
    Count,
}

/// A value that a rule asks about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) name: Name,
    pub(super) subject: Subject,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Subject {
    Value(ValueId),
    Number(i64),
}

/// What `sanitiseArg` and its kin hide.
#[derive(Clone, Debug)]
pub(super) struct Mask {
    pub(super) variable: Variable,
    pub(super) key: Option<ValueId>,
}

/// A rule that matched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded {
    /// Number of the rule; `u32::MAX`: a limit of the engine.
    pub(super) number: u32,
    pub(super) message: ValueId,
    pub(super) data: ValueId,
    pub(super) variable: ValueId,
    pub(super) value: ValueId,
    /// Values that matched.
    pub(super) matches: u32,
    pub(super) disruptive: bool,
}

/// A set of small numbers.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn reset(&mut self, count: usize) {
        self.0.clear();
        self.0.resize(count.div_ceil(64), 0);
    }

    pub(super) fn insert(&mut self, number: u32) {
        if let Some(word) = self.0.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0
            .get(number as usize / 64)
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Records of one transaction; what matches beyond that is only counted in `fired`.
pub(super) const RECORDS: usize = 1000;

impl Default for State {
    fn default() -> Self {
        let nobody = (std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        Self {
            values: Values::default(),
            scalars: [ValueId::NONE; Variable::ALL.len()],
            lists: Default::default(),
            tx: Tx::default(),
            connection: Connection {
                client: nobody,
                server: nobody,
            },
            now: Now::default(),
            started: Now::default(),
            opened: Default::default(),
            engine: RuleEngine::Off,
            request_body_access: false,
            request_body_limit: 0,
            response_body_access: false,
            response_body_limit: 0,
            force_request_body_variable: false,
            processor: None,
            content_type: ValueId::NONE,
            body: Vec::new(),
            response: Vec::new(),
            parsing: Scratch::default(),
            document: Document::default(),
            xml: Vec::new(),
            removed: Bits::default(),
            narrowed: Bits::default(),
            is_restricted: false,
            removals: Vec::new(),
            masks: Vec::new(),
            matched: Vec::new(),
            last_match: None,
            highest_severity: u8::MAX,
            current: 0,
            draft: None,
            records: Vec::new(),
            fired: Vec::new(),
            allowed: None,
            intervention: None,
            coming: 0,
            is_straight: true,
            marked: Marked::default(),
            plan: 0,
            plan_stale: false,
            is_scanned: false,
            scanned: [0; List::COUNT],
            scanned_xml: 0,
            scanned_scalars: 0,
            found: Found::new(),
            candidates: Vec::new(),
            argument: Vec::new(),
            text: Vec::new(),
            macro_rx: None,
        }
    }
}

impl State {
    pub(super) fn reset(
        &mut self,
        rules: &RuleSet,
        connection: Connection,
        now: Now,
        unique_id: &[u8],
    ) {
        self.forget(rules);
        self.connection = connection;
        self.now = now;
        self.started = now;
        let settings = &rules.settings;
        self.engine = settings.engine;
        self.request_body_access = settings.request_body_access;
        self.request_body_limit = settings.request_body_limit;
        self.response_body_access = settings.response_body_access;
        self.response_body_limit = settings.response_body_limit;
        self.introduce(rules, unique_id);
    }

    fn forget(&mut self, rules: &RuleSet) {
        self.values.reset();
        self.marked.begin();
        self.plan = usize::MAX;
        self.plan_stale = false;
        self.scalars = [ValueId::NONE; Variable::ALL.len()];
        self.lists.iter_mut().for_each(Vec::clear);
        self.tx.reset(&rules.tx);
        self.opened = Default::default();
        self.force_request_body_variable = false;
        self.processor = None;
        self.content_type = ValueId::NONE;
        self.xml.resize_with(rules.xpaths.len(), Vec::new);
        self.xml.iter_mut().for_each(Vec::clear);
        self.body.clear();
        self.body.shrink_to(KEEP_BYTES);
        self.response.clear();
        self.response.shrink_to(KEEP_BYTES);
        self.removed.reset(rules.info.len());
        self.narrowed.reset(rules.info.len());
        self.is_restricted = false;
        self.removals.clear();
        self.masks.clear();
        self.matched.clear();
        self.last_match = None;
        self.highest_severity = u8::MAX;
        self.draft = None;
        self.records.clear();
        self.fired.clear();
        self.allowed = None;
        self.intervention = None;
        self.coming = 0;
        self.is_straight = true;
    }

    /// A number as a value.
    pub(super) fn value_of(&mut self, subject: Subject) -> ValueId {
        match subject {
            Subject::Value(id) => id,
            Subject::Number(number) => self.values.push_number(number),
        }
    }

    pub(super) fn scalar(&self, variable: Variable) -> ValueId {
        self.scalars[variable.index()]
    }

    pub(super) fn set_scalar(&mut self, variable: Variable, value: &[u8]) {
        self.scalars[variable.index()] = self.values.push(value);
    }

    pub(super) fn set_flag(&mut self, variable: Variable, on: bool) {
        self.set_scalar(variable, if on { b"1" } else { b"0" });
    }

    pub(super) fn list(&self, list: List) -> &[Member] {
        &self.lists[list as usize]
    }

    pub(super) fn add(&mut self, list: List, key: ValueId, value: ValueId) {
        self.lists[list as usize].push(Member::new(key, value));
    }

    pub(super) fn verdict(&self) -> Verdict {
        match &self.intervention {
            Some(intervention) => Verdict::Intervention(intervention.clone()),
            None => Verdict::Pass,
        }
    }
}
