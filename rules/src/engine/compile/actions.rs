//! The actions of a rule, sorted by what they are for.

use super::super::Phase;
use super::super::record::SEVERITIES;
use super::super::ruleset::Allow;
use super::Compiler;
use crate::seclang::ast::{Action, Spanned};
use crate::transformation::Transformation;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Actions {
    pub(super) id: Option<u64>,
    pub(super) phase: Option<Phase>,
    pub(super) message: Option<Spanned<String>>,
    pub(super) logdata: Option<Spanned<String>>,
    pub(super) severity: Option<u8>,
    pub(super) tags: Vec<Spanned<String>>,
    pub(super) version: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) maturity: Option<u8>,
    pub(super) accuracy: Option<u8>,
    pub(super) disruptive: Option<Spanned<Way>>,
    pub(super) status: Option<u16>,
    pub(super) log: Option<bool>,
    pub(super) chain: bool,
    pub(super) skip: Option<u32>,
    pub(super) skip_after: Option<Spanned<String>>,
    pub(super) capture: bool,
    pub(super) multi_match: bool,
    /// `None`: `t:none`.
    pub(super) transformations: Vec<Option<Transformation>>,
    /// `setvar`, `ctl` and others that change the transaction.
    pub(super) effects: Vec<Spanned<Action>>,
}

/// The disruptive action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Allow(Allow),
    Block,
    Deny,
    Drop,
    Pass,
    Redirect(String),
}

/// Actions that are read and have no effect: Clew's log is not an audit log.
const WITHOUT_EFFECT: &[&str] = &["auditlog", "noauditlog"];

const REFUSED: &[(&str, &str)] = &[
    ("append", "Clew does not rewrite bodies"),
    (
        "exec",
        "rules run no programs in Clew; watch its log instead",
    ),
    (
        "pause",
        "a delayed request costs the attacker nothing and Clew a connection; use deny or drop",
    ),
    ("prepend", "Clew does not rewrite bodies"),
    (
        "proxy",
        "send requests elsewhere in the configuration of services; use deny here",
    ),
    (
        "xmlns",
        "XPath with namespaces is not supported; use XML:/* or XML://@*",
    ),
];

impl Actions {
    /// Sorts a list of actions; what is wrong with them is reported.
    pub(super) fn read(list: &[Spanned<Action>], compiler: &mut Compiler<'_>) -> Self {
        let mut actions = Self::default();
        for action in list {
            let result = actions.add(action);
            compiler.check(action.at, result);
        }
        actions
    }

    fn add(&mut self, action: &Spanned<Action>) -> Result<(), String> {
        let argument = action.node.argument.as_deref();
        let at = action.node.argument_at;
        match action.node.name.as_str() {
            "id" => self.id = Some(number(action)?),
            "phase" => self.phase = Some(phase(text(action)?)?),
            "msg" => {
                self.message = Some(Spanned {
                    at,
                    node: text(action)?.to_owned(),
                })
            }
            "logdata" => {
                self.logdata = Some(Spanned {
                    at,
                    node: text(action)?.to_owned(),
                })
            }
            "severity" => self.severity = Some(severity(text(action)?)?),
            "tag" => self.tags.push(Spanned {
                at,
                node: text(action)?.to_owned(),
            }),
            "ver" => self.version = Some(text(action)?.to_owned()),
            "rev" => self.revision = Some(text(action)?.to_owned()),
            "maturity" => self.maturity = Some(level(action)?),
            "accuracy" => self.accuracy = Some(level(action)?),
            "status" => self.status = Some(status(action)?),
            "log" => self.log = Some(true),
            "nolog" => self.log = Some(false),
            "chain" => self.chain = true,
            "skip" => {
                self.skip = Some(
                    number(action)?
                        .try_into()
                        .map_err(|_| "skip: the number is too large")?,
                )
            }
            "skipafter" => {
                self.skip_after = Some(Spanned {
                    at,
                    node: text(action)?.to_owned(),
                })
            }
            "capture" => self.capture = true,
            "multimatch" => self.multi_match = true,
            "t" => self.transformations.push(transformation(text(action)?)?),
            "allow" | "block" | "deny" | "drop" | "pass" | "redirect" => {
                self.disruptive = Some(Spanned {
                    at: action.at,
                    node: way(action)?,
                });
            }
            "setvar"
            | "setenv"
            | "expirevar"
            | "deprecatevar"
            | "initcol"
            | "setsid"
            | "setuid"
            | "setrsc"
            | "ctl"
            | "sanitisearg"
            | "sanitisematched"
            | "sanitisematchedbytes"
            | "sanitiserequestheader"
            | "sanitiseresponseheader" => {
                self.effects.push(action.clone());
            }
            name => return other(name, argument),
        }
        Ok(())
    }

    /// These actions with those of a `SecRuleUpdateActionById` over them.
    pub(super) fn update(&mut self, new: Self) {
        fn over<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        over(&mut self.message, new.message);
        over(&mut self.logdata, new.logdata);
        over(&mut self.severity, new.severity);
        over(&mut self.version, new.version);
        over(&mut self.revision, new.revision);
        over(&mut self.maturity, new.maturity);
        over(&mut self.accuracy, new.accuracy);
        over(&mut self.disruptive, new.disruptive);
        over(&mut self.status, new.status);
        over(&mut self.log, new.log);
        over(&mut self.skip, new.skip);
        over(&mut self.skip_after, new.skip_after);
        self.capture |= new.capture;
        self.multi_match |= new.multi_match;
        self.tags.extend(new.tags);
        self.transformations.extend(new.transformations);
        self.effects.extend(new.effects);
    }

    /// The list of transformations after those of `SecDefaultAction`.
    pub(super) fn pipeline(&self, default: &Self) -> Vec<Transformation> {
        let all = default.transformations.iter().chain(&self.transformations);
        let mut list = Vec::new();
        for step in all {
            match step {
                Some(transformation) => list.push(*transformation),
                None => list.clear(),
            }
        }
        list
    }
}

fn text(action: &Spanned<Action>) -> Result<&str, String> {
    let name = &action.node.name;
    action
        .node
        .argument
        .as_deref()
        .ok_or_else(|| format!("{name} needs an argument: {name}:..."))
}

fn number(action: &Spanned<Action>) -> Result<u64, String> {
    let text = text(action)?;
    text.trim()
        .parse()
        .map_err(|_| format!("{}: '{text}' is not a number", action.node.name))
}

fn level(action: &Spanned<Action>) -> Result<u8, String> {
    match number(action)? {
        level @ 0..=9 => Ok(level as u8),
        _ => Err(format!("{}: the number must be 1 to 9", action.node.name)),
    }
}

fn status(action: &Spanned<Action>) -> Result<u16, String> {
    match number(action)? {
        status @ 100..=599 => Ok(status as u16),
        _ => Err("status: the number must be 100 to 599".to_owned()),
    }
}

fn phase(name: &str) -> Result<Phase, String> {
    Phase::named(name).ok_or_else(|| {
        format!("phase: '{name}' is none; write 1 to 5, request, response or logging")
    })
}

fn severity(name: &str) -> Result<u8, String> {
    let named = SEVERITIES.iter().position(|s| s.eq_ignore_ascii_case(name));
    let known = named.or_else(|| name.parse().ok().filter(|n| *n < SEVERITIES.len()));
    let known = known.ok_or_else(|| {
        format!(
            "severity: '{name}' is none; write 0 to 7 or {}",
            SEVERITIES.join(", ")
        )
    })?;
    Ok(known as u8)
}

fn transformation(name: &str) -> Result<Option<Transformation>, String> {
    if name.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    let known = Transformation::named(name).map(Some);
    known.ok_or_else(|| format!("there is no transformation {name}; see the ModSecurity reference manual for their names"))
}

fn way(action: &Spanned<Action>) -> Result<Way, String> {
    match (action.node.name.as_str(), action.node.argument.as_deref()) {
        ("allow", None) => Ok(Way::Allow(Allow::Everything)),
        ("allow", Some("phase")) => Ok(Way::Allow(Allow::Phase)),
        ("allow", Some("request")) => Ok(Way::Allow(Allow::Request)),
        ("allow", Some(other)) => Err(format!(
            "allow: '{other}' is no scope; write allow, allow:phase or allow:request"
        )),
        ("block", _) => Ok(Way::Block),
        ("deny", _) => Ok(Way::Deny),
        ("drop", _) => Ok(Way::Drop),
        ("redirect", _) => Ok(Way::Redirect(text(action)?.to_owned())),
        _ => Ok(Way::Pass),
    }
}

fn other(name: &str, argument: Option<&str>) -> Result<(), String> {
    if WITHOUT_EFFECT.contains(&name) && argument.is_none() {
        return Ok(());
    }
    match REFUSED.iter().find(|(refused, _)| *refused == name) {
        Some((_, why)) => Err(format!("the action {name} is not supported: {why}")),
        None => Err(format!(
            "there is no action {name}; see the ModSecurity reference manual for their names"
        )),
    }
}
