//! `ctl`.

use super::super::ruleset::{Ctl, Processor, Removal};
use super::Compiler;
use super::catalogue::Catalogue;
use crate::seclang::ast::{At, RuleEngine, Select};
use crate::seclang::parse_variables;

impl Compiler<'_> {
    /// Compiles `OPTION=VALUE`. `None`: an option that is read and has no effect.
    pub(super) fn control(
        &mut self,
        argument: &str,
        at: At,
        catalogue: &Catalogue,
    ) -> Result<Option<Ctl>, String> {
        let (option, value) = argument
            .split_once('=')
            .ok_or("ctl needs a value: ctl:option=value")?;
        let (option, value) = (option.trim(), value.trim());
        Ok(Some(match option.to_ascii_lowercase().as_str() {
            "auditengine" | "auditlogparts" | "debugloglevel" => return Ok(None),
            "forcerequestbodyvariable" => Ctl::ForceRequestBodyVariable(switch(option, value)?),
            "requestbodyaccess" => Ctl::RequestBodyAccess(switch(option, value)?),
            "requestbodylimit" => Ctl::RequestBodyLimit(bytes(option, value)?),
            "requestbodyprocessor" => Ctl::RequestBodyProcessor(processor(value)?),
            "responsebodyaccess" => Ctl::ResponseBodyAccess(switch(option, value)?),
            "responsebodylimit" => Ctl::ResponseBodyLimit(bytes(option, value)?),
            "ruleengine" => Ctl::RuleEngine(engine(value)?),
            "ruleremovebyid" => self.remove(at, Select::Ids(ids(value)?), catalogue)?,
            "ruleremovebytag" => self.remove(at, Select::Tag(value.to_owned()), catalogue)?,
            "ruleremovebymsg" => self.remove(at, Select::Msg(value.to_owned()), catalogue)?,
            "ruleremovetargetbyid" => {
                let (rules, target) = halves(option, value)?;
                self.remove_target(at, &Select::Ids(ids(rules)?), target, catalogue)?
            }
            "ruleremovetargetbytag" => {
                let (rules, target) = halves(option, value)?;
                self.remove_target(at, &Select::Tag(rules.to_owned()), target, catalogue)?
            }
            "ruleremovetargetbymsg" => {
                let (rules, target) = halves(option, value)?;
                self.remove_target(at, &Select::Msg(rules.to_owned()), target, catalogue)?
            }
            _ => {
                return Err(format!(
                    "ctl:{option} is not supported; see the ModSecurity reference manual for the options"
                ));
            }
        }))
    }

    fn remove(&mut self, at: At, select: Select, catalogue: &Catalogue) -> Result<Ctl, String> {
        let rules = catalogue.select(&select)?;
        self.warn_if_none(at, &rules);
        Ok(Ctl::RemoveRules(rules.into()))
    }

    fn remove_target(
        &mut self,
        at: At,
        select: &Select,
        target: &str,
        catalogue: &Catalogue,
    ) -> Result<Ctl, String> {
        let rules = catalogue.select(select)?;
        self.warn_if_none(at, &rules);
        let variables = parse_variables(target, at)?;
        let [variable] = variables.as_slice() else {
            return Err("one variable is expected after the semicolon".to_owned());
        };
        let Some((variable, key)) = self.one(variable) else {
            return Err("the variable after the semicolon cannot be excluded".to_owned());
        };
        let index = u16::try_from(self.removals.len())
            .map_err(|_| "there are more than 65,535 ctl:ruleRemoveTarget actions")?;
        self.removals.push(Removal {
            rules: rules.into(),
            variable,
            key,
        });
        Ok(Ctl::RemoveTarget(index))
    }

    /// CRS takes away rules of ModSecurity's recommended configuration, which need not be loaded.
    fn warn_if_none(&mut self, at: At, rules: &[u32]) {
        if rules.is_empty() {
            self.warning(at, "no rule is meant by this ctl");
        }
    }
}

fn switch(option: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err(format!("ctl:{option} is On or Off, not '{value}'")),
    }
}

fn bytes(option: &str, value: &str) -> Result<u64, String> {
    value
        .parse()
        .map_err(|_| format!("ctl:{option} needs a number of bytes, not '{value}'"))
}

fn processor(value: &str) -> Result<Processor, String> {
    Processor::named(value).ok_or_else(|| format!("there is no body processor {value}; they are URLENCODED, MULTIPART, JSON, XML and GRAPHQL"))
}

fn engine(value: &str) -> Result<RuleEngine, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" => Ok(RuleEngine::On),
        "off" => Ok(RuleEngine::Off),
        "detectiononly" => Ok(RuleEngine::DetectionOnly),
        _ => Err(format!(
            "ctl:ruleEngine is On, Off or DetectionOnly, not '{value}'"
        )),
    }
}

/// Ids and ranges, separated by commas or blanks.
fn ids(text: &str) -> Result<Vec<(u64, u64)>, String> {
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    let ranges: Result<Vec<_>, String> = words.map(range).collect();
    match ranges?.as_slice() {
        [] => Err("an id is expected here".to_owned()),
        ranges => Ok(ranges.to_vec()),
    }
}

fn range(word: &str) -> Result<(u64, u64), String> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let number = |text: &str| {
        text.trim()
            .parse::<u64>()
            .map_err(|_| format!("'{word}' is neither an id nor a range of ids"))
    };
    Ok((number(first)?, number(last)?))
}

fn halves<'v>(option: &str, value: &'v str) -> Result<(&'v str, &'v str), String> {
    let halves = value
        .split_once(';')
        .ok_or_else(|| format!("ctl:{option} needs a variable: ctl:{option}=RULES;VARIABLE"))?;
    Ok((halves.0.trim(), halves.1.trim()))
}
