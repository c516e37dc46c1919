//! Figures: files for machines, tables for people.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

/// Writes `target/figures/NAME.json`, and prints it.
pub(crate) fn write(name: &str, figures: &Value) -> Result<()> {
    save(name, figures)?;
    print(figures);
    Ok(())
}

/// A table for people.
pub(crate) fn print(figures: &Value) {
    if let Value::Object(table) = figures {
        show(table, 2);
    }
}

/// A line for each figure; groups of figures below their name, quantiles beside it.
fn show(table: &Map<String, Value>, indent: usize) {
    for (key, value) in table {
        let name = format!("{:indent$}{key}", "");
        match value {
            Value::Object(group) if group.values().any(Value::is_object) => {
                println!("{name}");
                show(group, indent + 2);
            }
            Value::Object(group) => {
                let all: Vec<String> = group
                    .iter()
                    .map(|(key, it)| format!("{key} {it}"))
                    .collect();
                println!("{name:36} {}", all.join("  "));
            }
            _ => println!("{name:36} {value}"),
        }
    }
}

/// Writes `target/figures/NAME.json`.
pub(crate) fn save(name: &str, figures: &Value) -> Result<()> {
    let directory = Path::new("target/figures");
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("{name}.json"));
    std::fs::write(&path, format!("{figures:#}\n"))?;
    println!("\nfigures: {}", path.display());
    Ok(())
}

/// The value below which `share` of the sorted values lie; 0 when there are none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Milliseconds to a microsecond: finer digits are noise.
pub(crate) fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}
