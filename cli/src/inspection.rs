//! What requests and responses are judged by: the `[rules]` table, checked, with its rules loaded.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clew_packs::limit::{self, Key, Limit};
use clew_packs::{BODIES, Compiled, Host, Pack};
use clew_proxy::{
    Excess, RateKey, RateLimit, RateLimits, RateScope, Rulebook, RulesConfig, UnknownCoding,
};
use clew_rules::engine::OutOfTime;
use clew_rules::seclang::ast::{Ast, Directive, LimitAction, RuleEngine};
use clew_rules::seclang::parse_text;

use crate::raw;
use crate::rules::load::{all_of, read};

/// `SecRequestBodyLimit` where no rule file names another, bytes: enough for forms and API calls;
/// each upload takes as much memory as it is long, up to this.
const REQUEST_BODY_BYTES: u64 = 1 << 20;

/// Rules, and what they may cost.
#[derive(Debug)]
pub(crate) struct Inspection {
    /// Rules, and what active packs say beside them.
    pub(crate) compiled: Compiled,
    /// There are neither files nor packs.
    is_empty: bool,
    budget: Duration,
    kept_bodies_bytes: usize,
    unknown_coding: UnknownCoding,
    expansion: u32,
    log: Option<PathBuf>,
}

impl Inspection {
    /// Loads the rules that the table or the command line names, and those of the active packs. Where there are none,
    /// nothing is looked at, until packs are activated.
    pub(crate) fn load(table: &raw::Rules, files: &[PathBuf], packs: &[Pack]) -> Result<Self> {
        let files = if files.is_empty() {
            &table.files
        } else {
            files
        };
        let is_empty = files.is_empty() && packs.is_empty();
        ensure!(table.budget_ms > 0, "rules.budget_ms must be at least 1");
        ensure!(table.expansion > 0, "rules.expansion must be at least 1");
        Ok(Self {
            compiled: match is_empty {
                true => nothing()?,
                false => compiled(table, files, packs)?,
            },
            is_empty,
            budget: Duration::from_millis(table.budget_ms),
            kept_bodies_bytes: table.kept_bodies_bytes,
            unknown_coding: table.unknown_coding.into(),
            expansion: table.expansion,
            log: table.log.clone(),
        })
    }

    /// Its rules and limits, as the edge wants them. What was counted for limits of `before` goes on.
    pub(crate) fn rulebook(&self, before: &RateLimits) -> Rulebook {
        let limits = self.compiled.limits.iter().map(rate_limit).collect();
        Rulebook {
            rules: self.compiled.rules.clone(),
            packs: self.compiled.packs.clone(),
            limits: RateLimits::new(limits, before),
        }
    }

    /// How many rules there are; none when requests are not judged by rules.
    pub(crate) fn rules(&self) -> Option<usize> {
        (!self.is_empty).then(|| self.compiled.rules.rules().len())
    }

    /// As the edge wants it, with the log opened.
    pub(crate) fn open(&self) -> Result<RulesConfig> {
        Ok(RulesConfig {
            budget: self.budget,
            kept_bodies_bytes: self.kept_bodies_bytes,
            unknown_coding: self.unknown_coding,
            expansion: self.expansion,
            log: self.log.as_deref().map(append_to).transpose()?,
            rulebook: self.rulebook(&RateLimits::default()),
        })
    }

    /// Says what is in force, and what is suspicious about it.
    pub(crate) fn introduce(&self) {
        if self.is_empty {
            return;
        }
        let rules = &self.compiled.rules;
        for warning in rules.warnings() {
            tracing::warn!("{warning}");
        }
        for pack in &*self.compiled.packs {
            tracing::info!(name = pack.name, version = pack.version, "pack in force");
        }
        let engine = rules.settings().engine;
        tracing::info!(rules = rules.rules().len(), ?engine, "rules loaded");
    }
}

/// No rules, and none that look.
fn nothing() -> Result<Compiled> {
    let host = Host {
        overrides: vec![Directive::RuleEngine(RuleEngine::Off)],
        ..Host::default()
    };
    Compiled::of(&[], host).or_else(|errors| all_of(&errors))
}

fn rate_limit(limit: &Limit) -> RateLimit {
    let own = limit.clone();
    RateLimit {
        name: limit.name.clone(),
        key: match &limit.key {
            Key::Client => RateKey::Client,
            // Checked when the pack was read.
            Key::Token(name) => name.parse().map_or(RateKey::Client, RateKey::Field),
        },
        scope: RateScope::new(limit.to_string(), move |method, path| {
            own.applies(method, path)
        }),
        requests: limit.requests,
        window: limit.span,
        excess: match (limit.detect, limit.action) {
            (true, _) => Excess::Detect,
            (false, limit::LimitAction::Refuse) => Excess::Refuse(limit.status),
            (false, limit::LimitAction::Ban) => Excess::Ban(limit.status),
        },
    }
}

fn append_to(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write to {} (rules.log)", path.display()))
}

fn compiled(table: &raw::Rules, files: &[PathBuf], packs: &[Pack]) -> Result<Compiled> {
    let before = match table.body_processors {
        true => bodies()?,
        false => Ast::default(),
    };
    let host = Host {
        defaults: defaults(),
        before,
        files: (!files.is_empty()).then(|| read(files)).transpose()?,
        overrides: overrides(table),
        out_of_time: Some(match table.over_budget {
            raw::Strictness::Refuse => OutOfTime::Deny(503),
            raw::Strictness::Pass => OutOfTime::Pass,
        }),
    };
    Compiled::of(packs, host).or_else(|errors| all_of(&errors))
}

/// What surrounds packs where nothing else is configured: what they are tried with before they are activated.
pub(crate) fn host() -> Result<Host> {
    Ok(Host {
        defaults: defaults(),
        before: bodies()?,
        ..Host::default()
    })
}

fn bodies() -> Result<Ast> {
    parse_text("bodies.conf", BODIES).or_else(|errors| all_of(&errors))
}

/// What holds unless a rule file says otherwise. CRS itself does not say.
fn defaults() -> Vec<Directive> {
    vec![
        Directive::RequestBodyAccess(true),
        Directive::RequestBodyLimit(REQUEST_BODY_BYTES),
    ]
}

/// What holds whatever rule files say.
fn overrides(table: &raw::Rules) -> Vec<Directive> {
    let beyond = table.beyond_limit.map(|beyond| match beyond {
        raw::BeyondLimit::Refuse => LimitAction::Reject,
        raw::BeyondLimit::Stream => LimitAction::ProcessPartial,
    });
    let engine = table.engine.map(|engine| match engine {
        raw::EngineName::On => RuleEngine::On,
        raw::EngineName::DetectionOnly => RuleEngine::DetectionOnly,
        raw::EngineName::Off => RuleEngine::Off,
    });
    let all = [
        engine.map(Directive::RuleEngine),
        table.request_body.map(Directive::RequestBodyAccess),
        table.request_body_bytes.map(Directive::RequestBodyLimit),
        table
            .request_body_bytes
            .map(Directive::RequestBodyNoFilesLimit),
        beyond.map(Directive::RequestBodyLimitAction),
        table.response_body.map(Directive::ResponseBodyAccess),
        table.response_body_bytes.map(Directive::ResponseBodyLimit),
        beyond.map(Directive::ResponseBodyLimitAction),
    ];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(rules: &str, table: &str) -> Result<Inspection> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("rules.conf");
        std::fs::write(&path, rules)?;
        let root = raw::parse(&format!("[rules]\n{table}\n"), "test.toml")?;
        Inspection::load(&root.rules, &[path], &[])
    }

    #[test]
    fn the_table_wins_over_the_files_and_those_over_the_defaults() -> Result<()> {
        let settings = |rules, table| -> Result<_> {
            Ok(loaded(rules, table)?.compiled.rules.settings().clone())
        };
        let plain = settings("", "")?;
        assert!(plain.request_body_access && !plain.response_body_access);
        assert_eq!(plain.request_body_limit, 1 << 20);
        assert_eq!(plain.engine, RuleEngine::DetectionOnly);
        let own = settings("SecRequestBodyLimit 5000\nSecRuleEngine On\n", "")?;
        assert_eq!((own.request_body_limit, own.engine), (5000, RuleEngine::On));
        let ruled = settings(
            "SecRequestBodyLimit 5000\nSecRuleEngine On\n",
            "engine = \"detection-only\"\nrequest_body_bytes = 70\nbeyond_limit = \"stream\"\nresponse_body = true",
        )?;
        assert_eq!(ruled.engine, RuleEngine::DetectionOnly);
        assert_eq!(
            (ruled.request_body_limit, ruled.request_body_no_files_limit),
            (70, 70)
        );
        assert_eq!(ruled.request_body_limit_action, LimitAction::ProcessPartial);
        assert!(ruled.response_body_access);
        Ok(())
    }

    #[test]
    fn bodies_are_read_unless_the_table_says_no() -> Result<()> {
        let text = "SecRule ARGS:json.a \"@streq b\" \"id:1,phase:2,deny\"\n";
        let ids = |table| -> Result<Vec<u64>> {
            let rules = loaded(text, table)?.compiled.rules;
            Ok(rules.rules().iter().map(|rule| rule.id).collect())
        };
        assert_eq!(
            ids("")?,
            [22_000_000, 22_000_001, 22_000_002, 22_000_003, 1]
        );
        assert_eq!(ids("body_processors = false")?, [1]);
        Ok(())
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (rules, table) in [
            ("SecRule ARGS \"@nosuch x\" \"id:1\"\n", ""),
            ("", "budget_ms = 0"),
            ("", "engine = \"maybe\""),
            ("", "beyond_limit = \"drop\""),
        ] {
            assert!(loaded(rules, table).is_err(), "{rules}{table}");
        }
    }

    #[test]
    fn without_rules_nothing_is_looked_at() -> Result<()> {
        let root = raw::parse("[rules]\nengine = \"on\"\n", "test.toml")?;
        let inspection = Inspection::load(&root.rules, &[], &[])?;
        let engine = inspection.compiled.rules.settings().engine;
        assert_eq!((engine, inspection.rules()), (RuleEngine::Off, None));
        Ok(())
    }
}
