//! The tables and keys of the schema, for people.

use serde_json::Value;

use super::schema;

/// One table of the configuration.
pub(super) struct Table {
    /// As in its header: `service.tls`. Empty: the file itself.
    pub(super) path: String,
    /// There may be several of it.
    pub(super) is_list: bool,
    pub(super) meaning: String,
    pub(super) keys: Vec<Key>,
}

/// One key of a table.
pub(super) struct Key {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) is_list: bool,
    pub(super) meaning: String,
    pub(super) default: Fallback,
}

/// What holds where a key is not given.
pub(super) enum Fallback {
    /// It has to be given.
    Required,
    /// This value, as it would be written.
    Value(String),
    /// What its description says.
    Words(String),
}

/// All tables, those inside of a table after it.
pub(super) fn tables() -> Vec<Table> {
    let mut found = Vec::new();
    table("", false, String::new(), &schema(), &mut found);
    found
}

fn table(path: &str, is_list: bool, meaning: String, schema: &Value, found: &mut Vec<Table>) {
    let at = found.len();
    found.push(Table {
        path: path.to_owned(),
        is_list,
        meaning,
        keys: Vec::new(),
    });
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let required = schema["required"].as_array().into_iter().flatten();
        let key = key(name, property, required.into_iter().any(|it| it == name));
        if key.kind == "table" {
            let path = format!("{path}.{name}");
            let path = path.trim_start_matches('.');
            table(
                path,
                key.is_list,
                key.meaning.clone(),
                one_of(property),
                found,
            );
        }
        found[at].keys.push(key);
    }
}

/// What a list is made of; what is no list, itself.
fn one_of(property: &Value) -> &Value {
    match property["type"] == "array" {
        true => &property["items"],
        false => property,
    }
}

fn key(name: &str, property: &Value, is_required: bool) -> Key {
    let one = one_of(property);
    let (mut meaning, words) = described(property);
    for choice in one["oneOf"].as_array().into_iter().flatten() {
        let value = choice["const"].to_string();
        meaning += &format!(" `{value}`: {}.", described(choice).0.trim_end_matches('.'));
    }
    Key {
        name: name.to_owned(),
        kind: kind(one),
        is_list: property["type"] == "array",
        meaning,
        default: match (&property["default"], words) {
            _ if is_required => Fallback::Required,
            (Value::Null, words) => Fallback::Words(words.unwrap_or_default()),
            (value, _) => Fallback::Value(value.to_string()),
        },
    }
}

fn kind(schema: &Value) -> &'static str {
    match schema["type"].as_str() {
        Some("object") => "table",
        Some("integer") => "integer",
        Some("number") => "number",
        Some("boolean") => "boolean",
        _ => "string",
    }
}

/// What a description says, and the default that it names: "Default: 5."
fn described(schema: &Value) -> (String, Option<String>) {
    let text = schema["description"].as_str().unwrap_or_default();
    let text = text.replace('\n', " ");
    let Some((before, rest)) = text.split_once("Default: ") else {
        return (text, None);
    };
    let (default, after) = rest.split_once(". ").unwrap_or((rest, ""));
    let meaning = format!("{before}{after}").trim().to_owned();
    (meaning, Some(default.trim_end_matches('.').to_owned()))
}
