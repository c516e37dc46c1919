//! The connection and the request's head become variables.

use std::io::Write;
use std::net::IpAddr;

use super::super::ruleset::{Processor, RuleSet};
use super::super::values::ValueId;
use super::super::variable::Variable;
use super::state::{List, Member, State};
use crate::body::normal::Target;
use crate::body::{Parsed, cookies, urlencoded};
use crate::transformation::Transformation;

impl State {
    /// What is known before anything was read.
    pub(super) fn introduce(&mut self, rules: &RuleSet, unique_id: &[u8]) {
        let connection = self.connection;
        self.set_address(Variable::RemoteAddr, connection.client.0);
        self.scalars[Variable::RemoteHost.index()] = self.scalar(Variable::RemoteAddr);
        self.set_number(Variable::RemotePort, connection.client.1.into());
        self.set_address(Variable::ServerAddr, connection.server.0);
        self.set_number(Variable::ServerPort, connection.server.1.into());
        self.set_scalar(Variable::UniqueId, unique_id);
        self.set_scalar(Variable::Webappid, rules.settings.web_app_id.as_bytes());
        for empty in [
            Variable::ReqbodyProcessor,
            Variable::QueryString,
            Variable::ReqbodyErrorMsg,
            Variable::ReqbodyProcessorErrorMsg,
        ] {
            self.scalars[empty.index()] = ValueId::EMPTY;
        }
        let off = self.values.push(b"0");
        for flag in [
            Variable::ReqbodyError,
            Variable::ReqbodyProcessorError,
            Variable::UrlencodedError,
            Variable::InboundDataError,
            Variable::OutboundDataError,
            Variable::MscPcreError,
            Variable::MscPcreLimitsExceeded,
        ] {
            self.scalars[flag.index()] = off;
        }
        for (name, value) in &rules.options.environment {
            let (name, value) = (
                self.values.push(name.as_bytes()),
                self.values.push(value.as_bytes()),
            );
            self.add(List::Env, name, value);
        }
    }

    fn set_address(&mut self, variable: Variable, address: IpAddr) {
        let mut text = [0_u8; 64];
        let mut rest = &mut text[..];
        // An address is at most 45 characters long.
        let _ = write!(rest, "{}", address.to_canonical());
        let length = 64 - rest.len();
        self.set_scalar(variable, &text[..length]);
    }

    pub(super) fn set_number(&mut self, variable: Variable, number: i64) {
        self.scalars[variable.index()] = self.values.push_number(number);
    }

    pub(super) fn request_line(
        &mut self,
        rules: &RuleSet,
        method: &[u8],
        target: &[u8],
        version: &[u8],
    ) {
        let line = if version.is_empty() {
            self.values.push_all(&[method, b" ", target])
        } else {
            self.values.push_all(&[method, b" ", target, b" ", version])
        };
        self.scalars[Variable::RequestLine.index()] = line;
        self.scalars[Variable::RequestMethod.index()] = self.values.part(line, 0..method.len());
        let start = method.len() + 1;
        self.scalars[Variable::RequestUriRaw.index()] =
            self.values.part(line, start..start + target.len());
        self.set_scalar(Variable::RequestProtocol, version);
        let split = Target::new(target);
        self.set_scalar(Variable::RequestUri, &split.raw_uri());
        self.set_scalar(Variable::QueryString, split.query());
        let filename = split.filename();
        self.set_scalar(Variable::RequestFilename, &filename);
        self.scalars[Variable::PathInfo.index()] = self.scalar(Variable::RequestFilename);
        self.set_scalar(
            Variable::RequestBasename,
            Target::basename(&filename).unwrap_or_default(),
        );
        let parsed = self.arguments(rules, List::ArgsGet, split.query());
        self.note_query(parsed);
    }

    fn note_query(&mut self, parsed: Parsed) {
        if parsed.invalid_escape {
            self.set_flag(Variable::UrlencodedError, true);
        }
        if parsed.over_limit {
            self.too_many_arguments();
        }
    }

    /// `SecArgumentsLimit`: what lies beyond was not read, and rules can know.
    pub(super) fn too_many_arguments(&mut self) {
        self.set_flag(Variable::ReqbodyError, true);
        self.set_scalar(Variable::ReqbodyErrorMsg, b"SecArgumentsLimit exceeded");
    }

    /// Reads urlencoded arguments into a list.
    pub(super) fn arguments(&mut self, rules: &RuleSet, list: List, text: &[u8]) -> Parsed {
        if text.is_empty() {
            return Parsed::default();
        }
        let mut limits = rules.limits;
        limits.arguments = limits
            .arguments
            .saturating_sub(self.lists[List::ArgsGet as usize].len());
        let (values, members) = (&mut self.values, &mut self.lists[list as usize]);
        urlencoded::arguments(
            text,
            rules.settings.argument_separator,
            &limits,
            &mut self.parsing,
            |argument| {
                let key = values.push(argument.name);
                let value = values.push(argument.value);
                members.push(Member::new(key, value));
            },
        )
    }

    pub(super) fn request_header(&mut self, rules: &RuleSet, name: &[u8], value: &[u8]) {
        let key = self.values.push(name);
        let id = self.values.push(value);
        self.add(List::RequestHeaders, key, id);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(id),
            6 if name.eq_ignore_ascii_case(b"cookie") => self.cookies(rules, value),
            12 if name.eq_ignore_ascii_case(b"content-type") => self.content_type(id),
            13 if name.eq_ignore_ascii_case(b"authorization") => self.authorization(id),
            _ => {}
        }
    }

    /// `SERVER_NAME`: the host without its port.
    fn host(&mut self, host: ValueId) {
        let bytes = self.values.get(host);
        let end = match bytes.first() {
            Some(b'[') => bytes
                .iter()
                .position(|b| *b == b']')
                .map_or(bytes.len(), |at| at + 1),
            _ => bytes.iter().position(|b| *b == b':').unwrap_or(bytes.len()),
        };
        self.scalars[Variable::ServerName.index()] = self.values.part(host, 0..end);
    }

    fn cookies(&mut self, rules: &RuleSet, header: &[u8]) {
        let limit = rules
            .limits
            .cookies
            .saturating_sub(self.list(List::RequestCookies).len());
        let (values, members) = (
            &mut self.values,
            &mut self.lists[List::RequestCookies as usize],
        );
        let mut add = |name: &[u8], value: &[u8]| {
            let key = values.push(name);
            let value = values.push(value);
            members.push(Member::new(key, value));
        };
        let parsed = match rules.settings.cookie_format {
            0 => cookies::netscape(header, limit, &mut add),
            _ => cookies::version1(header, limit, &mut add),
        };
        if parsed.over_limit {
            self.too_many_arguments();
        }
    }

    fn content_type(&mut self, value: ValueId) {
        self.content_type = value;
        let media_type = self.values.get(value);
        let is = |wanted: &[u8]| {
            media_type
                .get(..wanted.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(wanted))
        };
        if is(b"application/x-www-form-urlencoded") {
            self.set_processor(Processor::Urlencoded);
        } else if is(b"multipart/form-data") {
            self.set_processor(Processor::Multipart);
        }
    }

    pub(super) fn set_processor(&mut self, processor: Processor) {
        self.processor = Some(processor);
        self.set_scalar(Variable::ReqbodyProcessor, processor.name().as_bytes());
    }

    /// `AUTH_TYPE`, and of `Basic` (RFC 7617) `REMOTE_USER`.
    fn authorization(&mut self, id: ValueId) {
        let value = self.values.get(id);
        let space = value.iter().position(|b| *b == b' ').unwrap_or(value.len());
        let (scheme, rest) = (
            value[..space].to_vec(),
            value[space..].trim_ascii().to_vec(),
        );
        self.set_scalar(Variable::AuthType, &scheme);
        let mut decoded = Vec::new();
        if scheme.eq_ignore_ascii_case(b"basic")
            && Transformation::Base64Decode.apply(&rest, None, &mut decoded)
        {
            let colon = decoded
                .iter()
                .position(|b| *b == b':')
                .unwrap_or(decoded.len());
            self.set_scalar(Variable::RemoteUser, &decoded[..colon]);
        }
    }

    /// The head is complete.
    pub(super) fn head_done(&mut self, rules: &RuleSet) {
        self.graphql_arguments(rules, List::ArgsGet, b"query");
    }
}
