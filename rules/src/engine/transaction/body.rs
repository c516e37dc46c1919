//! The request's body becomes variables.

use super::super::Phase;
use super::super::ruleset::{Processor, RuleSet};
use super::super::values::{ValueId, Values};
use super::super::variable::Variable;
use super::super::verdict::{Disruption, Intervention, Verdict};
use super::state::{List, Member, State};
use crate::body::multipart::{self, Flags, Outcome, Part};
use crate::body::{BodyError, BodyLimits, Parsed, Scratch, graphql, json};
use crate::seclang::ast::{LimitAction, RuleEngine};

impl State {
    pub(super) fn wants_request_body(&self) -> bool {
        self.request_body_access && self.engine != RuleEngine::Off
    }

    /// Files may be longer than `SecRequestBodyNoFilesLimit`; only multipart bodies have files.
    pub(super) fn request_body_limit(&self, rules: &RuleSet) -> u64 {
        match self.processor {
            Some(Processor::Multipart) => self.request_body_limit,
            _ => self
                .request_body_limit
                .min(rules.settings.request_body_no_files_limit),
        }
    }

    pub(super) fn request_body(&mut self, rules: &RuleSet, piece: &[u8]) -> Verdict {
        if !self.wants_request_body() {
            return self.verdict();
        }
        let limit = usize::try_from(self.request_body_limit(rules)).unwrap_or(usize::MAX);
        let room = limit.saturating_sub(self.body.len());
        self.body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            self.set_flag(Variable::InboundDataError, true);
            let reject = rules.settings.request_body_limit_action == LimitAction::Reject;
            if reject && self.engine == RuleEngine::On && self.intervention.is_none() {
                self.record_limit(b"The request's body is longer than the limit", true);
                self.intervention = Some(Intervention {
                    action: Disruption::Deny,
                    status: 413,
                    rule: 0,
                    phase: Phase::RequestBody,
                });
            }
        }
        self.verdict()
    }

    /// Reads the body with the processor that its type or a rule chose.
    pub(super) fn request_body_done(&mut self, rules: &RuleSet) {
        if !self.wants_request_body() || self.intervention.is_some() {
            return;
        }
        let body = std::mem::take(&mut self.body);
        self.set_number(Variable::RequestBodyLength, body.len() as i64);
        match self.processor {
            Some(Processor::Urlencoded) => self.urlencoded(rules, &body),
            Some(Processor::Multipart) => self.multipart(rules, &body),
            Some(Processor::Json) => self.json(rules, &body),
            Some(Processor::GraphQl) => self.graphql_body(rules, &body),
            Some(Processor::Xml) => self.read_xml(rules, &body),
            None => {}
        }
        let shown = matches!(self.processor, Some(Processor::Urlencoded))
            || self.force_request_body_variable;
        if shown && !body.is_empty() {
            self.set_scalar(Variable::RequestBody, &body);
        }
        self.body = body;
    }

    fn urlencoded(&mut self, rules: &RuleSet, body: &[u8]) {
        let parsed = self.arguments(rules, List::ArgsPost, body);
        if parsed.invalid_escape {
            self.set_flag(Variable::UrlencodedError, true);
        }
        if parsed.over_limit {
            self.too_many_arguments();
        }
    }

    /// What is left of `SecArgumentsLimit` after the query string.
    fn body_limits(&self, rules: &RuleSet) -> BodyLimits {
        let mut limits = rules.limits;
        limits.arguments = limits
            .arguments
            .saturating_sub(self.list(List::ArgsGet).len());
        limits
    }

    fn json(&mut self, rules: &RuleSet, body: &[u8]) {
        let limits = self.body_limits(rules);
        let (values, members) = (&mut self.values, &mut self.lists[List::ArgsPost as usize]);
        let outcome = json::arguments(body, &limits, &mut self.parsing, |name, value| {
            let key = values.push(name);
            members.push(Member::new(key, values.push(value)));
        });
        self.body_outcome(outcome);
        self.graphql_arguments(rules, List::ArgsPost, b"json.query");
    }

    /// Arguments that hold a GraphQL document: its literals become arguments, too.
    pub(super) fn graphql_arguments(&mut self, rules: &RuleSet, list: List, name: &[u8]) {
        let holds = |m: &&Member| {
            self.values.get(m.key) == name && graphql::looks_like(self.values.get(m.value))
        };
        let documents: Vec<ValueId> = self
            .list(list)
            .iter()
            .filter(holds)
            .map(|m| m.value)
            .collect();
        for document in documents {
            let mut limits = rules.limits;
            let taken = self.list(List::ArgsGet).len() + self.list(List::ArgsPost).len();
            limits.arguments = limits.arguments.saturating_sub(taken);
            let mut pairs = Vec::new();
            let text = self.values.get(document);
            // What only looked like GraphQL gives nothing.
            if literals(text, &limits, &mut self.parsing, &mut pairs).is_ok() {
                self.add_pairs(list, &pairs);
            }
        }
    }

    fn graphql_body(&mut self, rules: &RuleSet, body: &[u8]) {
        let limits = self.body_limits(rules);
        let mut pairs = Vec::new();
        let outcome = literals(body, &limits, &mut self.parsing, &mut pairs);
        self.add_pairs(List::ArgsPost, &pairs);
        self.body_outcome(outcome);
    }

    fn add_pairs(&mut self, list: List, pairs: &[(Vec<u8>, Vec<u8>)]) {
        for (name, value) in pairs {
            let (key, value) = (self.values.push(name), self.values.push(value));
            self.add(list, key, value);
        }
    }

    fn read_xml(&mut self, rules: &RuleSet, body: &[u8]) {
        let read = self.document.read(body, &rules.limits);
        // `//*` over nested elements repeats their text.
        let mut room = rules.limits.output_bytes(body.len());
        for (index, (name, path)) in rules.xpaths.iter().enumerate() {
            let key = self.values.push(name.as_bytes());
            let (values, members) = (&mut self.values, &mut self.xml[index]);
            path.values(&self.document, |value| {
                if let Some(rest) = room.checked_sub(value.len()) {
                    room = rest;
                    members.push(Member::new(key, values.push(value)));
                }
            });
        }
        self.body_outcome(read.map(|()| Parsed::default()));
    }

    fn multipart(&mut self, rules: &RuleSet, body: &[u8]) {
        let limits = self.body_limits(rules);
        let content_type = self.values.get(self.content_type).to_vec();
        let contents = rules.reads(Variable::FilesTmpContent);
        let (values, lists) = (&mut self.values, &mut self.lists);
        let outcome = multipart::parts(&content_type, body, &limits, &mut self.parsing, |part| {
            add_part(part, values, lists, contents)
        });
        self.multipart_outcome(&outcome);
    }

    fn multipart_outcome(&mut self, outcome: &Outcome) {
        let Flags {
            unmatched_boundary, ..
        } = outcome.flags;
        self.set_number(
            Variable::MultipartUnmatchedBoundary,
            unmatched_boundary.into(),
        );
        let flags = &outcome.flags;
        for (variable, on) in [
            (Variable::MultipartBoundaryQuoted, flags.boundary_quoted),
            (
                Variable::MultipartBoundaryWhitespace,
                flags.boundary_whitespace,
            ),
            (Variable::MultipartDataBefore, flags.data_before),
            (Variable::MultipartDataAfter, flags.data_after),
            (Variable::MultipartHeaderFolding, flags.header_folding),
            (
                Variable::MultipartInvalidHeaderFolding,
                flags.invalid_header_folding,
            ),
            (Variable::MultipartLfLine, flags.lf_line),
            (Variable::MultipartCrlfLfLines, flags.crlf_lf_lines),
            (Variable::MultipartMissingSemicolon, flags.missing_semicolon),
            (Variable::MultipartInvalidQuoting, flags.invalid_quoting),
            (Variable::MultipartInvalidPart, flags.invalid_part),
            (
                Variable::MultipartFileLimitExceeded,
                flags.file_limit_exceeded,
            ),
            (Variable::MultipartStrictError, flags.strict_error()),
        ] {
            self.set_flag(variable, on);
        }
        let parsed = Parsed {
            over_limit: outcome.over_limit,
            ..Parsed::default()
        };
        self.body_outcome(outcome.error.map_or(Ok(parsed), Err));
    }

    fn body_outcome(&mut self, outcome: Result<Parsed, BodyError>) {
        match outcome {
            Ok(parsed) if parsed.over_limit => self.too_many_arguments(),
            Ok(_) => {}
            Err(error) => {
                let text = error.to_string();
                self.set_flag(Variable::ReqbodyError, true);
                self.set_flag(Variable::ReqbodyProcessorError, true);
                self.set_scalar(Variable::ReqbodyErrorMsg, text.as_bytes());
                self.scalars[Variable::ReqbodyProcessorErrorMsg.index()] =
                    self.scalar(Variable::ReqbodyErrorMsg);
            }
        }
    }
}

/// The literals of a GraphQL document, as arguments.
fn literals(
    text: &[u8],
    limits: &BodyLimits,
    scratch: &mut Scratch,
    pairs: &mut Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<Parsed, BodyError> {
    graphql::pairs(text, limits, scratch, |kind, name, value| {
        if kind == graphql::Kind::Literal {
            pairs.push((name.to_vec(), value.to_vec()));
        }
    })
}

fn add_part(
    part: &Part<'_>,
    values: &mut Values,
    lists: &mut [Vec<Member>; List::COUNT],
    contents: bool,
) {
    let key = values.push(part.name);
    lists[List::PartNames as usize].push(Member::new(key, key));
    for line in part.headers() {
        let line = values.push(line);
        lists[List::PartHeaders as usize].push(Member::new(key, line));
    }
    let Some(filename) = part.filename else {
        let value = values.push(part.content);
        lists[List::ArgsPost as usize].push(Member::new(key, value));
        return;
    };
    for name in [Some(filename), part.extended_filename]
        .into_iter()
        .flatten()
    {
        let name = values.push(name);
        lists[List::Files as usize].push(Member::new(key, name));
    }
    let size = values.push_number(part.content.len() as i64);
    lists[List::FilesSizes as usize].push(Member::new(key, size));
    if contents {
        let content = values.push(part.content);
        lists[List::FilesContent as usize].push(Member::new(key, content));
    }
}
