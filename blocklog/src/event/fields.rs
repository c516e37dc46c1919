//! A JSON object that is filled by dotted paths.

use serde_json::{Map, Value};

/// The object. What is empty or not known is left out.
#[derive(Debug, Default)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Sets `path` (`source.ip`), unless `value` is null, an empty text, list or object.
    pub(crate) fn set(&mut self, path: &str, value: impl Into<Value>) {
        let value = value.into();
        if is_empty(&value) {
            return;
        }
        let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
        let mut object = &mut self.0;
        for parent in parents.split('.').filter(|it| !it.is_empty()) {
            let entry = object.entry(parent).or_insert_with(|| Map::new().into());
            match entry {
                Value::Object(child) => object = child,
                // A path of this crate that is both a value and an object: the tests would show it.
                _ => return,
            }
        }
        object.insert(name.to_owned(), value);
    }

    /// Sets `path` to what is displayed of `value`.
    pub(crate) fn text(&mut self, path: &str, value: impl ToString) {
        self.set(path, value.to_string());
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Value::Object(fields.0)
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
