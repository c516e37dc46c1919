//! What can be configured, of the types that read it: its JSON Schema (`clew check --schema`) and
//! `docs/configuration.md`.

#[cfg(test)]
mod document;
#[cfg(test)]
mod example;
#[cfg(test)]
mod table;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;

use crate::raw::Root;

/// JSON Schema (draft 2020-12) of a configuration file, with nothing referred to: each table is where it is used.
pub(crate) fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|it| it.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(without_null));
    let mut schema = settings.into_generator().into_root_schema_for::<Root>();
    schema.insert("title".to_owned(), "Configuration of Clew".into());
    schema.to_value()
}

/// TOML has no null: what is optional is left out.
fn without_null(schema: &mut Schema) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    fields.retain(|name, value| name != "default" || !value.is_null());
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|it| it != "null");
        if let [one] = &types[..] {
            let one = one.clone();
            fields.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.retain(|it| !it.is_null());
    }
    if let Some(Value::Array(mut ways)) = fields.remove("anyOf") {
        ways.retain(|it| it["type"] != "null");
        match ways.pop() {
            Some(Value::Object(one)) if ways.is_empty() => {
                for (name, value) in one {
                    fields.entry(name).or_insert(value);
                }
            }
            last => {
                ways.extend(last);
                fields.insert("anyOf".to_owned(), ways.into());
            }
        }
    }
}
