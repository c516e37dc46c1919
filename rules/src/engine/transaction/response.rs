//! The response becomes variables.

use super::super::Phase;
use super::super::ruleset::RuleSet;
use super::super::values::ValueId;
use super::super::variable::Variable;
use super::super::verdict::{Disruption, Intervention, Verdict};
use super::state::{List, State};
use crate::seclang::ast::{LimitAction, RuleEngine};

impl State {
    pub(super) fn response_head<'h>(
        &mut self,
        _rules: &RuleSet,
        status: u16,
        version: &[u8],
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) {
        self.set_number(Variable::ResponseStatus, status.into());
        self.set_scalar(Variable::ResponseProtocol, version);
        let code = status.to_string();
        self.scalars[Variable::StatusLine.index()] =
            self.values.push_all(&[version, b" ", code.as_bytes()]);
        self.scalars[Variable::ResponseContentType.index()] = ValueId::EMPTY;
        for (name, value) in headers {
            let (key, id) = (self.values.push(name), self.values.push(value));
            self.add(List::ResponseHeaders, key, id);
            if name.eq_ignore_ascii_case(b"content-type") {
                self.scalars[Variable::ResponseContentType.index()] = id;
            } else if name.eq_ignore_ascii_case(b"content-length") {
                self.scalars[Variable::ResponseContentLength.index()] = id;
            }
        }
    }

    /// Whether rules look at bodies of this type. A response without a type counts as `text/plain`:
    /// browsers guess.
    pub(super) fn wants_response_body(&self, rules: &RuleSet) -> bool {
        let value = self.values.get(self.scalar(Variable::ResponseContentType));
        let media_type = value
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default()
            .trim_ascii();
        let media_type = if media_type.is_empty() {
            b"text/plain"
        } else {
            media_type
        };
        let listed = rules
            .settings
            .response_mime_types
            .iter()
            .any(|t| t.as_bytes().eq_ignore_ascii_case(media_type));
        self.response_body_access && self.engine != RuleEngine::Off && listed
    }

    pub(super) fn response_body(&mut self, rules: &RuleSet, piece: &[u8]) -> Verdict {
        if !self.wants_response_body(rules) {
            return self.verdict();
        }
        let limit = usize::try_from(self.response_body_limit).unwrap_or(usize::MAX);
        let room = limit.saturating_sub(self.response.len());
        self.response
            .extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            self.set_flag(Variable::OutboundDataError, true);
            let reject = rules.settings.response_body_limit_action == LimitAction::Reject;
            if reject && self.engine == RuleEngine::On && self.intervention.is_none() {
                self.record_limit(b"The response's body is longer than the limit", true);
                self.intervention = Some(Intervention {
                    action: Disruption::Deny,
                    status: 500,
                    rule: 0,
                    phase: Phase::ResponseBody,
                });
            }
        }
        self.verdict()
    }

    pub(super) fn response_body_done(&mut self) {
        if self.scalar(Variable::ResponseContentLength) == ValueId::NONE {
            self.set_number(Variable::ResponseContentLength, self.response.len() as i64);
        }
        if !self.response.is_empty() {
            self.scalars[Variable::ResponseBody.index()] = self.values.push(&self.response);
        }
    }
}
