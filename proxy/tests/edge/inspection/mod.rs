//! Rules on the path of a request.

mod line;
mod request;
mod response;
mod shadow;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clew_proxy::{Config, RulesConfig};
use clew_rules::engine::{Options, RuleSet, compile};
use clew_rules::seclang::parse_text;

use crate::stage::{Connection, Script, Stage};

/// What most tests want: bodies are read, and "attack" is refused wherever it is.
pub(crate) const ATTACK: &str = r#"
SecRuleEngine On
SecRequestBodyAccess On
SecRequestBodyLimit 1048576
SecRule REQUEST_HEADERS:Content-Type "@rx ^application/json" "id:1,phase:1,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule ARGS|REQUEST_HEADERS:X-Head "@contains attack" "id:2,phase:1,deny,status:403,msg:'head'"
SecRule ARGS "@contains attack" "id:3,phase:2,deny,status:403,msg:'body'"
"#;

pub(crate) fn rules(text: &str) -> Result<Arc<RuleSet>> {
    let ast = parse_text("test.conf", text).map_err(|errors| anyhow!("{errors:?}"))?;
    let rules = compile(&ast, Options::default()).map_err(|errors| anyhow!("{errors:?}"))?;
    Ok(Arc::new(rules))
}

/// An edge that judges by `text`.
pub(crate) fn judged(
    script: Script,
    text: &str,
    adjust: impl FnOnce(&mut Config),
) -> Result<Stage> {
    let rules = rules(text)?;
    Stage::with(script, |config| {
        config.rules = Some(patient(rules));
        adjust(config);
    })
}

/// These rules, with a budget for a build without optimization on a machine that does other things.
pub(crate) fn patient(rules: Arc<RuleSet>) -> RulesConfig {
    let mut rules = RulesConfig::new(rules);
    rules.budget = Duration::from_secs(20);
    rules
}

/// Reads each request whole, shows its body's length and hash, and answers "ok".
pub(crate) fn whole(connection: &mut Connection) -> Result<()> {
    while let Some(head) = connection.head() {
        let body = connection.body(&head)?;
        connection.show(fingerprint(&body));
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

pub(crate) fn fingerprint(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("{} bytes, {:x}", body.len(), hasher.finish())
}

/// Bytes in which a piece that is lost, doubled or moved shows.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"abcdefghijklmnopqrstuvwxyz0123456789=_-."[(state >> 16) as usize % 40]
    };
    std::iter::repeat_with(next).take(length).collect()
}
