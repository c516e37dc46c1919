//! `docs/metrics.md`, made of the families; a test says when it is stale.

use std::fmt::Write;

use super::{Family, Snapshot};

const HEAD: &str = "# Metrics

At `GET /metrics` of the admin socket (`STATE/admin.sock`) and, where `[observe] listen` names one, of a port of its own:
as Prometheus' text format, or as OpenMetrics for whoever accepts that. Sums are since start; without a sensor there
are no `clew_sensor_` and `clew_correlator_` samples, and in the first second none of their sums.

[grafana.json](grafana.json) is a dashboard of them.

| name | type | unit | labels | what it is |
|---|---|---|---|---|
";

/// The document, whole.
pub(super) fn document() -> String {
    let mut out = HEAD.to_owned();
    for family in Snapshot::default().families() {
        row(&mut out, &family);
    }
    out
}

fn row(out: &mut String, family: &Family) {
    let unit = family.unit.as_ref().map_or("", |it| it.as_str());
    let labels: Vec<_> = family.labels.iter().map(|it| format!("`{it}`")).collect();
    let _ = writeln!(
        out,
        "| `{}` | {} | {unit} | {} | {} |",
        family.full_name(),
        family.kind().as_str(),
        labels.join(", "),
        family.help.trim_end_matches('.'),
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;

    fn docs(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(name)
    }

    /// With CLEW_WRITE_DOCS set the file is written instead.
    #[test]
    fn the_document_is_what_is_measured() {
        let path = docs("metrics.md");
        if std::env::var_os("CLEW_WRITE_DOCS").is_some() {
            std::fs::write(&path, document()).expect("written");
        }
        let kept = std::fs::read_to_string(&path).expect("docs/metrics.md");
        assert_eq!(
            kept,
            document(),
            "stale: CLEW_WRITE_DOCS=1 cargo test -p clew --bin clew metrics"
        );
    }

    #[test]
    fn the_dashboard_asks_for_what_is_measured() {
        let text = std::fs::read_to_string(docs("grafana.json")).expect("docs/grafana.json");
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let mut queries = Vec::new();
        collect(&dashboard, &mut queries);
        assert!(queries.len() >= 12, "{queries:?}");
        let known = names();
        for query in queries {
            let asked: Vec<&str> = words(query).filter(|it| it.starts_with("clew_")).collect();
            assert!(!asked.is_empty(), "{query}");
            for name in asked {
                assert!(known.contains(name), "{name} in {query}");
            }
        }
    }

    /// Names that samples have.
    fn names() -> BTreeSet<String> {
        let families = Snapshot::default().families();
        let names = families.iter().flat_map(|family| {
            let name = family.full_name();
            match family.kind().as_str() {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .map(|it| format!("{name}{it}"))
                    .to_vec(),
                _ => vec![name],
            }
        });
        names.collect()
    }

    fn collect<'a>(value: &'a Value, queries: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(query) if name == "expr" => queries.push(query),
                _ => collect(value, queries),
            }),
            Value::Array(values) => values.iter().for_each(|it| collect(it, queries)),
            _ => {}
        }
    }

    fn words(query: &str) -> impl Iterator<Item = &str> {
        query.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'))
    }
}
