//! `cli/examples/clew.toml` names every key, and what is commented out there is what holds anyway.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use super::schema;
use super::table::{Fallback, tables};
use crate::config::{Overrides, check};
use crate::raw;

const EXAMPLE: &str = include_str!("../../examples/clew.toml");

/// The example with one of the lines put in that are commented out, and its table's header with it.
struct Variant {
    /// With its table's path.
    key: String,
    /// The line.
    line: &'static str,
    text: String,
}

impl Variant {
    fn value(&self) -> Result<Value> {
        let mut value = Value::Table(self.line.parse()?);
        // A dotted key is a table of one key.
        for _ in self.line.split(" = ").next().unwrap_or_default().split('.') {
            let inner = value.as_table().and_then(|it| it.values().next());
            value = inner.context("no value")?.clone();
        }
        Ok(value)
    }
}

/// `# key = value`, or `# [table]`.
fn commented(line: &'static str) -> Option<&'static str> {
    let text = line.strip_prefix("# ")?;
    let is_header = text.starts_with('[') && text.contains(']');
    let key = text.split_once(" = ").map_or("", |(key, _)| key);
    let of_key =
        |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_' || it == '.';
    let is_key = !key.is_empty() && key.chars().all(of_key);
    (is_header || is_key).then_some(text)
}

fn variants() -> Vec<Variant> {
    let lines: Vec<&'static str> = EXAMPLE.lines().collect();
    let mut header = (0, "");
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let text = commented(line);
        let bare = text.unwrap_or(line);
        if bare.starts_with('[') {
            header = (at, bare);
        } else if let Some((key, _)) = text.and_then(|it| it.split_once(" = ")) {
            let mut with: Vec<&str> = lines.clone();
            with[at] = bare;
            with[header.0] = header.1;
            let table = header.1.trim_start_matches('[').split(']').next();
            let key = format!("{}.{key}", table.unwrap_or_default());
            let text = with.join("\n");
            found.push(Variant {
                key,
                line: bare,
                text,
            });
        }
    }
    found
}

/// Paths of all keys of a table, `[[lists]]` as if there were one.
fn paths(table: &Table, above: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = format!("{above}{key}");
        match value {
            Value::Table(inner) => paths(inner, &format!("{path}."), found),
            Value::Array(list) => {
                let inner = list.iter().filter_map(Value::as_table);
                inner.for_each(|it| paths(it, &format!("{path}."), found));
            }
            _ => {}
        }
        found.insert(path);
    }
}

#[test]
fn the_example_names_every_key() -> Result<()> {
    let mut named = BTreeSet::new();
    paths(&EXAMPLE.parse()?, "", &mut named);
    for variant in variants() {
        let table = variant.text.parse().context(variant.key)?;
        paths(&table, "", &mut named);
    }
    let path = |table: &str, key: &str| format!("{table}.{key}").trim_start_matches('.').to_owned();
    let known = tables().into_iter().flat_map(|table| {
        let keys = table.keys.into_iter();
        keys.map(move |key| path(&table.path, &key.name))
    });
    let missing: Vec<_> = known.filter(|it| !named.contains(it)).collect();
    ensure!(missing.is_empty(), "not in examples/clew.toml: {missing:?}");
    Ok(())
}

/// The value that a table's documentation gives: `5`, `10,000`, `100 MiB`, `` `tls` ``.
fn literal(words: &str) -> Option<String> {
    let number = |it: &str| it.replace(',', "").parse::<u64>().ok();
    if let Some(word) = words.strip_prefix('`').and_then(|it| it.strip_suffix('`')) {
        return Some(format!("{word:?}"));
    }
    if let Some(mib) = words.strip_suffix(" MiB").and_then(number) {
        return Some((mib << 20).to_string());
    }
    let is_word = matches!(words, "true" | "false");
    let number = number(words).map(|it| it.to_string());
    number.or_else(|| is_word.then(|| words.to_owned()))
}

/// What holds where a key is not given, if that is one value and not nothing.
fn default_of(path: &str) -> Option<String> {
    let (table, name) = path.rsplit_once('.')?;
    let table = tables().into_iter().find(|it| it.path == table)?;
    match table.keys.into_iter().find(|it| it.name == name)?.default {
        Fallback::Value(value) => (value != "[]").then_some(value),
        Fallback::Words(words) => literal(&words),
        Fallback::Required => None,
    }
}

#[test]
fn what_is_commented_out_is_the_default() -> Result<()> {
    let checked = |text: &str| -> Result<String> {
        let configuration = check(raw::parse(text, "example")?, &Overrides::default())?;
        Ok(format!("{configuration:?}"))
    };
    let plain = checked(EXAMPLE)?;
    let (mut compared, mut wrong) = (0, Vec::new());
    for variant in variants() {
        let key = &variant.key;
        let Some(default) = default_of(key) else {
            continue;
        };
        let (value, with) = (
            variant.value()?,
            checked(&variant.text).context(key.clone())?,
        );
        if value.to_string() != default || with != plain {
            wrong.push(format!("{key} = {value}, and without it {default}"));
        }
        compared += 1;
    }
    ensure!(wrong.is_empty(), "not what holds without them: {wrong:#?}");
    ensure!(compared > 50, "only {compared} keys were compared");
    Ok(())
}

#[test]
fn the_schema_takes_what_is_read_and_nothing_else() -> Result<()> {
    let validator = jsonschema::validator_for(&schema())?;
    let json = |text: &str| -> Result<serde_json::Value> {
        Ok(serde_json::to_value(text.parse::<Table>()?)?)
    };
    for variant in variants() {
        raw::parse(&variant.text, "example").context(variant.key.clone())?;
        if let Some(error) = validator.iter_errors(&json(&variant.text)?).next() {
            anyhow::bail!("{}: {error}", variant.key);
        }
    }
    for wrong in [
        "[sensor]\nmod = \"enforce\"",
        "[sensor]\nmode = \"pray\"",
        "[limits]\nheaders = \"many\"",
        "[[service]]\nname = \"a\"",
        "[[allow.connect]]\nnetwork = \"::/0\"\ntransport = \"sctp\"",
        "[[log]]\nsink = \"fax\"",
    ] {
        ensure!(raw::parse(wrong, "wrong").is_err(), "{wrong}");
        ensure!(!validator.is_valid(&json(wrong)?), "{wrong}");
    }
    Ok(())
}
