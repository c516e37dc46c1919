//! `docs/configuration.md`, made of the tables; a test says when it is stale.

use std::fmt::Write;
use std::path::PathBuf;

use super::table::{Fallback, Key, Table, tables};

const HEAD: &str = "# Configuration

A TOML file, that `clew run --config FILE` reads whole before it listens anywhere, and `clew check FILE` checks without
running. What is unknown is refused, with the line and the nearest key that there is. Arguments of `clew run` win over the
file. `clew reload` (or SIGHUP) puts rules, packs, `allow`, `service.files` and certificates in force, and names what takes a restart.

[clew.toml](../cli/examples/clew.toml) is an example that names every key. `clew check --schema` prints a JSON Schema,
for editors. Paths are best written out from `/`.

";

/// The document, whole.
fn document() -> String {
    let mut out = HEAD.to_owned();
    let tables = tables();
    let (file, rest) = tables.split_first().expect("the file itself");
    out.push_str("| table | what it is |\n|---|---|\n");
    for key in &file.keys {
        let header = header(&key.name, key.is_list);
        let link = anchor(&key.name);
        let _ = writeln!(out, "| [`{header}`](#{link}) | {} |", cell(&key.meaning));
    }
    for table in rest {
        section(&mut out, table);
    }
    out
}

fn section(out: &mut String, table: &Table) {
    let header = header(&table.path, table.is_list);
    let _ = write!(out, "\n## `{header}`\n\n{}\n", table.meaning);
    if table.keys.is_empty() {
        return;
    }
    out.push_str("\n| key | type | default | unit | what it is |\n|---|---|---|---|---|\n");
    for key in &table.keys {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            name(table, key),
            kind(key),
            default(key),
            unit(&key.name),
            cell(&key.meaning)
        );
    }
}

fn header(path: &str, is_list: bool) -> String {
    match is_list {
        true => format!("[[{path}]]"),
        false => format!("[{path}]"),
    }
}

/// How a heading is linked to: without its marks.
fn anchor(path: &str) -> String {
    path.replace('.', "")
}

fn name(table: &Table, key: &Key) -> String {
    match key.kind {
        "table" => {
            let path = format!("{}.{}", table.path, key.name);
            format!("[`{}`](#{})", key.name, anchor(&path))
        }
        _ => format!("`{}`", key.name),
    }
}

fn kind(key: &Key) -> String {
    match key.is_list {
        true => format!("array of {}s", key.kind),
        false => key.kind.to_owned(),
    }
}

fn default(key: &Key) -> String {
    match &key.default {
        Fallback::Required => "required".to_owned(),
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Words(words) => cell(words),
    }
}

/// The unit that a name ends with.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "seconds",
        Some("ms") => "milliseconds",
        Some("bytes") => "bytes",
        Some("prefix") => "bits",
        _ => "",
    }
}

fn cell(text: &str) -> String {
    text.trim_end_matches('.').replace('|', "\\|")
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")
}

/// With CLEW_WRITE_DOCS set the file is written instead.
#[test]
fn the_document_is_what_is_read() {
    if std::env::var_os("CLEW_WRITE_DOCS").is_some() {
        std::fs::write(path(), document()).expect("written");
    }
    let kept = std::fs::read_to_string(path()).expect("docs/configuration.md");
    assert_eq!(
        kept,
        document(),
        "stale: CLEW_WRITE_DOCS=1 cargo test -p clew --bin clew reference"
    );
}

#[test]
fn every_key_says_what_it_is_and_what_holds_without_it() {
    for table in tables() {
        for key in &table.keys {
            let path = format!("{}.{}", table.path, key.name);
            assert!(key.meaning.ends_with('.'), "{path}: {:?}", key.meaning);
            // Tables that are not there are as if they were empty.
            if let Fallback::Words(words) = &key.default
                && key.kind != "table"
            {
                assert!(!words.is_empty(), "{path}: say \"Default: ...\"");
            }
        }
    }
}
