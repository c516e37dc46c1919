//! What is different between two versions of a pack.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::pack::Pack;
use crate::rules::PackRules;

/// A rule as text, a line for each link of its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleText {
    /// Its id.
    pub id: u64,
    /// As SecLang.
    pub text: String,
}

/// A rule that says something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleChange {
    /// Its id.
    pub id: u64,
    /// As SecLang, in the one.
    pub before: String,
    /// In the other.
    pub after: String,
}

/// What is different, by rule ids and by statements of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Rules of the second alone.
    pub added: Vec<RuleText>,
    /// Rules of the first alone.
    pub removed: Vec<RuleText>,
    /// Rules of both that say something else.
    pub changed: Vec<RuleChange>,
    /// Mode, policy and limits: lines with `-` in front of the first's, `+` in front of the second's.
    pub settings: Vec<String>,
    /// Other files (data, tests, rule files by their directives) that are not the same: lines as in `settings`, `~`
    /// for those that both have.
    pub files: Vec<String>,
}

impl Difference {
    /// Compares two packs.
    ///
    /// # Errors
    ///
    /// Rules of one cannot be read.
    pub fn of(before: &Pack, after: &Pack) -> Result<Self, Vec<String>> {
        let (old, new) = (rules(before)?, rules(after)?);
        let text = |(id, text): (&u64, &String)| RuleText {
            id: *id,
            text: text.clone(),
        };
        let changed = old.iter().filter_map(|(id, before)| {
            let after = new.get(id).filter(|after| *after != before)?;
            Some(RuleChange {
                id: *id,
                before: before.clone(),
                after: after.clone(),
            })
        });
        Ok(Self {
            changed: changed.collect(),
            added: new
                .iter()
                .filter(|(id, _)| !old.contains_key(id))
                .map(text)
                .collect(),
            removed: old
                .iter()
                .filter(|(id, _)| !new.contains_key(id))
                .map(text)
                .collect(),
            settings: lines(&settings(before), &settings(after)),
            files: files(before, after),
        })
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn rules(pack: &Pack) -> Result<BTreeMap<u64, String>, Vec<String>> {
    let listed = PackRules::load(pack)?.listed();
    Ok(listed
        .into_iter()
        .map(|rule| (rule.id, rule.text))
        .collect())
}

/// What a manifest says but for name, version and description.
fn settings(pack: &Pack) -> Vec<String> {
    let manifest = &pack.manifest;
    let mut lines = vec![
        format!("mode {}", manifest.mode),
        format!("clew {}", manifest.clew),
    ];
    lines.extend(manifest.first.then(|| "first".to_owned()));
    lines.extend(manifest.policy.lines());
    lines.extend(manifest.limits.iter().map(ToString::to_string));
    lines
}

fn lines(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line));
    let came = after.iter().filter(|line| !before.contains(line));
    let gone = gone.map(|line| format!("- {line}"));
    gone.chain(came.map(|line| format!("+ {line}"))).collect()
}

/// The manifest is compared by what it says.
fn files(before: &Pack, after: &Pack) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, bytes) in before
        .contents
        .iter()
        .filter(|(name, _)| *name != crate::FILE)
    {
        match after.contents.get(name) {
            None => lines.push(format!("- {name}")),
            Some(other) if other != bytes => lines.push(format!("~ {name}")),
            Some(_) => {}
        }
    }
    let new = after
        .contents
        .iter()
        .filter(|(name, _)| before.contents.get(name).is_none());
    lines.extend(new.map(|(name, _)| format!("+ {name}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{folder, manifest, open};

    #[test]
    fn rules_are_compared_by_id_and_settings_by_statement() {
        let rule = |id: u64, word: &str| {
            format!("SecRule ARGS \"@contains {word}\" \"id:{id},phase:2,deny\"\n")
        };
        let chain = "SecRule ARGS \"@contains x\" \"id:3,phase:2,deny,chain\"\nSecRule ARGS \"@contains WORD\"\n";
        let pack = |rules: &str, more: &str| {
            let manifest = format!("{}{more}", manifest("one", "1.0.0", "block"));
            folder(&[("pack.toml", &manifest), ("rules/a.conf", rules)])
        };
        let exec = "[[exec]]\npath = \"/bin/a\"\n";
        let limit = "[[limit]]\nname = \"x\"\nrequests = 5\nseconds = 1\n";
        let before = pack(&format!("{}{}{chain}", rule(1, "a"), rule(2, "b")), exec);
        let after = pack(
            &format!(
                "# moved\n{}{}{}",
                rule(4, "d"),
                rule(1, "a"),
                chain.replace("WORD", "z")
            ),
            limit,
        );
        let found = Difference::of(&open(&before), &open(&after)).expect("rules");
        let ids = |list: &[RuleText]| list.iter().map(|it| it.id).collect::<Vec<_>>();
        assert_eq!((ids(&found.added), ids(&found.removed)), (vec![4], vec![2]));
        assert_eq!(found.changed.len(), 1);
        assert!(
            found.changed[0]
                .before
                .contains("\n  SecRule ARGS \"@contains WORD\"")
        );
        assert_eq!(found.settings[0], "- exec /bin/a");
        assert!(
            found.settings[1].starts_with("+ limit one/x client"),
            "{:?}",
            found.settings
        );
        assert_eq!(found.files, ["~ rules/a.conf"]);
        assert!(
            Difference::of(&open(&after), &open(&after))
                .expect("rules")
                .is_empty()
        );
    }
}
