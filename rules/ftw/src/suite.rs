//! Suites in YAML, in the two schemas of FTW.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml_ng::Value;

/// A file of tests.
#[derive(Clone, Debug)]
pub struct Suite {
    /// Where it was read from.
    pub path: PathBuf,
    /// Its tests.
    pub tests: Vec<Test>,
}

/// One test.
#[derive(Clone, Debug)]
pub struct Test {
    /// `942100-1`.
    pub title: String,
    /// What its file says.
    pub enabled: bool,
    /// What is sent, one after the other.
    pub stages: Vec<Stage>,
}

/// A request and what is expected of it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The request.
    pub input: Input,
    /// What is expected.
    pub output: Output,
    /// Which client's habits `input` counts on.
    pub schema: Schema,
}

/// Which of the two schemas a stage was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// CRS 3: a client that encodes forms unless `stop_magic` is set.
    Old,
    /// CRS 4: a client that adds headers unless `autocomplete_headers` is false.
    Today,
}

/// `input`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Input {
    /// Default `GET`.
    pub method: Option<String>,
    /// Default `/`.
    pub uri: Option<String>,
    /// Default `HTTP/1.1`; may be empty.
    pub version: Option<String>,
    /// Header lines, in order.
    #[serde(deserialize_with = "headers")]
    pub headers: Vec<(String, String)>,
    /// The body; of a list, the lines.
    #[serde(deserialize_with = "lines")]
    pub data: Option<String>,
    /// Schema of CRS 3: nothing is added or encoded.
    pub stop_magic: bool,
    /// Schema of CRS 4: headers that are missing are added. Default true.
    pub autocomplete_headers: Option<bool>,
    /// The whole request in base64.
    pub encoded_request: Option<String>,
    /// The whole request.
    pub raw_request: Option<String>,
}

/// `output`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Output {
    /// Any of these.
    #[serde(deserialize_with = "statuses")]
    pub status: Vec<u16>,
    /// A regular expression that a line of the log matches.
    pub log_contains: Option<String>,
    /// A regular expression that no line of the log matches.
    pub no_log_contains: Option<String>,
    /// The request gets no answer that is HTTP/1.
    pub expect_error: Option<bool>,
    /// A regular expression that the answer matches.
    pub response_contains: Option<String>,
    /// Schema of CRS 4.
    pub log: Log,
    /// Schema of CRS 4: once more after a failure; in process that changes nothing.
    pub retry_once: Option<bool>,
}

/// `output.log`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Log {
    /// Rules that match, each.
    pub expect_ids: Vec<u64>,
    /// Rules that do not match, none of them.
    pub no_expect_ids: Vec<u64>,
    /// As `log_contains`.
    pub match_regex: Option<String>,
    /// As `no_log_contains`.
    pub no_match_regex: Option<String>,
}

/// Why a suite cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The file or folder cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no suite.
    #[error("{}: {error}", path.display())]
    Yaml {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_yaml_ng::Error,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    meta: Meta,
    rule_id: Option<u64>,
    #[serde(default)]
    tests: Vec<RawTest>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct RawTest {
    test_title: Option<String>,
    test_id: Option<u64>,
    #[serde(default)]
    stages: Vec<RawStage>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawStage {
    Old { stage: Both },
    Today(Both),
}

#[derive(Deserialize)]
struct Both {
    #[serde(default)]
    input: Input,
    #[serde(default)]
    output: Output,
}

/// Reads a suite, or all `.yaml` and `.yml` files below a folder, in the order of their names.
///
/// # Errors
///
/// The first file that cannot be read.
pub fn load(path: &Path) -> Result<Vec<Suite>, SuiteError> {
    let mut paths = Vec::new();
    gather(path, &mut paths)?;
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn gather(path: &Path, found: &mut Vec<PathBuf>) -> Result<(), SuiteError> {
    let unreadable = |error| SuiteError::Unreadable {
        path: path.to_owned(),
        error,
    };
    if !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let inside = entry.map_err(unreadable)?.path();
        let yaml = inside
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml");
        if inside.is_dir() || yaml {
            gather(&inside, found)?;
        }
    }
    Ok(())
}

fn read(path: PathBuf) -> Result<Suite, SuiteError> {
    let content = std::fs::read(&path).map_err(|error| SuiteError::Unreadable {
        path: path.clone(),
        error,
    })?;
    let text = String::from_utf8_lossy(&content);
    let file: File = serde_yaml_ng::from_str(&text).map_err(|error| SuiteError::Yaml {
        path: path.clone(),
        error,
    })?;
    let enabled = file.meta.enabled.unwrap_or(true);
    let rule = file.rule_id;
    let tests = file
        .tests
        .into_iter()
        .map(|test| named(test, rule, enabled))
        .collect();
    Ok(Suite { path, tests })
}

fn named(test: RawTest, rule: Option<u64>, enabled: bool) -> Test {
    let number = || {
        format!(
            "{}-{}",
            rule.unwrap_or_default(),
            test.test_id.unwrap_or_default()
        )
    };
    let title = test.test_title.clone().unwrap_or_else(number);
    let stages = test.stages.into_iter().map(|stage| match stage {
        RawStage::Old { stage } => Stage {
            input: stage.input,
            output: stage.output,
            schema: Schema::Old,
        },
        RawStage::Today(stage) => Stage {
            input: stage.input,
            output: stage.output,
            schema: Schema::Today,
        },
    });
    Test {
        title,
        enabled,
        stages: stages.collect(),
    }
}

/// A scalar as text: header values may look like numbers.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(on) => on.to_string(),
        _ => String::new(),
    }
}

fn headers<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<(String, String)>, D::Error> {
    match Value::deserialize(from)? {
        Value::Mapping(map) => Ok(map
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect()),
        Value::Sequence(list) => {
            let pairs = list.iter().filter_map(|item| {
                serde_yaml_ng::from_value::<BTreeMap<String, String>>(item.clone()).ok()
            });
            Ok(pairs
                .filter_map(|pair| Some((pair.get("name")?.clone(), pair.get("value")?.clone())))
                .collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn lines<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => None,
        Value::Sequence(list) => Some(list.iter().map(text).collect::<Vec<_>>().join("\r\n")),
        scalar => Some(text(&scalar)),
    })
}

fn statuses<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u16>, D::Error> {
    let number = |value: &Value| {
        value
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .or_else(|| text(value).parse().ok())
    };
    Ok(match Value::deserialize(from)? {
        Value::Sequence(list) => list.iter().filter_map(number).collect(),
        scalar => number(&scalar).into_iter().collect(),
    })
}
