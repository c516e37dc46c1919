//! From paths to a rule set, with every error told.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clew_rules::engine::{MemoryCollections, Options, OutOfTime, RuleSet, compile};
use clew_rules::seclang::ast::Ast;

/// Rules, and what loading them came to.
pub(crate) struct Loaded {
    pub(crate) rules: Arc<RuleSet>,
    /// Files read, included ones among them.
    pub(crate) files: usize,
    pub(crate) time: Duration,
}

/// Loads `paths`; of a folder, its `*.conf` in the order of their names.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Loaded> {
    let start = Instant::now();
    let ast = read(paths)?;
    Ok(Loaded {
        rules: compiled(&ast, Options::default().out_of_time)?,
        files: ast.files.len(),
        time: start.elapsed(),
    })
}

/// What the files say.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Ast> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(rule_files(path)?);
    }
    clew_rules::seclang::load(&files).or_else(|errors| all_of(&errors))
}

/// The rules, with collections in memory.
pub(crate) fn compiled(ast: &Ast, out_of_time: OutOfTime) -> Result<Arc<RuleSet>> {
    let options = Options {
        collections: Some(Arc::new(MemoryCollections::default())),
        out_of_time,
        ..Options::default()
    };
    let rules = compile(ast, options).or_else(|errors| all_of(&errors))?;
    Ok(Arc::new(rules))
}

fn rule_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = || format!("cannot read the folder {}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(unreadable)? {
        let file = entry.with_context(unreadable)?.path();
        if file.extension().is_some_and(|it| it == "conf") {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("{} holds no *.conf", path.display());
    }
    files.sort();
    Ok(files)
}

/// Most errors that are told: rules for another program have one a line.
const TOLD: usize = 64;

/// What is wrong, each on a line of its own: whoever has asked for it is told, by the admin API too.
pub(crate) fn all_of<T>(errors: &[impl Display]) -> Result<T> {
    let plural = if errors.len() == 1 { "" } else { "s" };
    let mut text = format!("{} error{plural}; nothing was loaded:", errors.len());
    for error in errors.iter().take(TOLD) {
        text.push_str(&format!("\n{error}"));
    }
    if errors.len() > TOLD {
        text.push_str(&format!("\nand {} more", errors.len() - TOLD));
    }
    bail!(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.conf");
        std::fs::write(&path, "SecRule ARGS \"@rx (\" \"id:1,phase:1,deny\"\n").expect("written");
        let error = load(&[path]).err().expect("no rule");
        let text = format!("{error:#}");
        assert!(text.contains("1 error; nothing"), "{text}");
        assert!(text.contains("a.conf:1:"), "{text}");
    }

    #[test]
    fn not_more_is_told_than_anybody_reads() {
        let errors: Vec<usize> = (0..1000).collect();
        let error = all_of::<()>(&errors).expect_err("errors").to_string();
        assert_eq!(error.lines().count(), TOLD + 2);
        assert!(error.ends_with("and 936 more"), "{error}");
    }
}
