//! One fault of bad input, and the reading of a JSON object that reports every fault at once.
//! Never stops at the first fault; never repeats the value of a field, which may be a secret.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What kind of fault a field has. Stable: programs may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViolationCode {
    /// The field must be there.
    Required,
    /// The field does not exist.
    Unknown,
    /// The JSON type is wrong.
    Type,
    /// The text is not in the field's grammar.
    Format,
    /// The number or length is outside its bounds.
    Range,
    /// The field contradicts another one.
    Conflict,
    /// The field cannot be changed any more.
    Immutable,
}

/// One fault of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Path of the field from the body's root: `env.PATH`, `args[3]`, `resources.cpuLimit`.
    pub field: String,
    /// The kind of fault.
    pub code: ViolationCode,
    /// A sentence that starts with the field's name left out: "must not be empty".
    pub message: String,
}

impl Violation {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, code: ViolationCode, message: impl Display) -> Self {
        Self { field: field.into(), code, message: message.to_string() }
    }
}

/// A JSON object being read field by field; every fault is collected, and [`Fields::finish`] reports the
/// fields nobody asked for.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    prefix: String,
    violations: Vec<Violation>,
}

impl Fields {
    /// Starts reading `value`, which must be an object.
    #[must_use]
    pub fn of(value: Value) -> Self {
        Self::nested(value, "")
    }

    fn nested(value: Value, prefix: &str) -> Self {
        let mut fields = Self { map: Map::new(), prefix: prefix.to_owned(), violations: Vec::new() };
        match value {
            Value::Object(map) => fields.map = map,
            _ => {
                let path = prefix.trim_end_matches('.');
                fields.violations.push(Violation::new(path, ViolationCode::Type, "must be a JSON object"));
            }
        }
        fields
    }

    /// Notes a fault of a field.
    pub(crate) fn fault(&mut self, field: &str, code: ViolationCode, message: impl Display) {
        let path = format!("{}{field}", self.prefix);
        self.violations.push(Violation::new(path, code, message));
    }

    /// Takes a field out; JSON `null` counts as absent.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|v| !v.is_null())
    }

    /// A field that may be set by the server and is not read from a caller.
    pub fn ignore(&mut self, field: &str) {
        self.map.remove(field);
    }

    /// Whether the field is there and not `null`.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(|value| !value.is_null())
    }

    /// Any JSON, or absent.
    pub fn any(&mut self, field: &str) -> Option<Value> {
        self.take(field)
    }

    /// A text that must be there.
    pub fn required_text(&mut self, field: &str) -> String {
        let text = self.text(field);
        let reported = self.violations.iter().any(|v| v.field == format!("{}{field}", self.prefix));
        if text.is_none() && !reported {
            self.fault(field, ViolationCode::Required, "is required");
        }
        text.unwrap_or_default()
    }

    /// A text that may be absent.
    pub fn text(&mut self, field: &str) -> Option<String> {
        match self.take(field)? {
            Value::String(s) => Some(s),
            _ => {
                self.fault(field, ViolationCode::Type, "must be a string");
                None
            }
        }
    }

    /// A whole number that may be absent.
    pub fn integer(&mut self, field: &str) -> Option<i64> {
        let value = self.take(field)?;
        let integer = value.as_i64();
        if integer.is_none() {
            self.fault(field, ViolationCode::Type, "must be a whole number");
        }
        integer
    }

    /// True or false, or absent.
    pub fn boolean(&mut self, field: &str) -> Option<bool> {
        let value = self.take(field)?;
        let boolean = value.as_bool();
        if boolean.is_none() {
            self.fault(field, ViolationCode::Type, "must be true or false");
        }
        boolean
    }

    /// A list of texts; absent is empty.
    pub fn texts(&mut self, field: &str) -> Vec<String> {
        let items = match self.take(field) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.fault(field, ViolationCode::Type, "must be a list of strings");
                return Vec::new();
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Value::String(s) => texts.push(s),
                _ => self.fault(&format!("{field}[{i}]"), ViolationCode::Type, "must be a string"),
            }
        }
        texts
    }

    /// A map of texts; absent is empty.
    pub fn text_map(&mut self, field: &str) -> BTreeMap<String, String> {
        let entries = match self.take(field) {
            None => return BTreeMap::new(),
            Some(Value::Object(entries)) => entries,
            Some(_) => {
                self.fault(field, ViolationCode::Type, "must be an object of strings");
                return BTreeMap::new();
            }
        };
        let mut texts = BTreeMap::new();
        for (key, value) in entries {
            match value {
                Value::String(s) => drop(texts.insert(key, s)),
                _ => self.fault(&format!("{field}.{key}"), ViolationCode::Type, "must be a string"),
            }
        }
        texts
    }

    /// An object inside this one, read by `read`; absent reads as `T::default()`.
    pub fn object<T: Default>(&mut self, field: &str, read: impl FnOnce(&mut Fields) -> T) -> T {
        let Some(value) = self.take(field) else { return T::default() };
        let mut inner = Fields::nested(value, &format!("{}{field}.", self.prefix));
        let read = read(&mut inner);
        self.violations.extend(inner.finish());
        read
    }

    /// A whole number that fits, absent is `None`; one that does not fit is a fault.
    pub fn count(&mut self, field: &str) -> Option<u32> {
        let number = self.integer(field)?;
        let count = u32::try_from(number);
        if count.is_err() {
            self.fault(field, ViolationCode::Range, format!("must be from 0 to {}", u32::MAX));
        }
        count.ok()
    }

    /// A whole number that must be there.
    pub fn required_count(&mut self, field: &str) -> u32 {
        let present = self.map.get(field).is_some_and(|value| !value.is_null());
        if !present {
            self.fault(field, ViolationCode::Required, "is required");
        }
        self.count(field).unwrap_or_default()
    }

    /// Objects in a list, each read by `read`; absent is empty.
    pub fn objects<T>(&mut self, field: &str, read: impl Fn(&mut Fields) -> T) -> Vec<T> {
        let items = match self.take(field) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(_) => {
                self.fault(field, ViolationCode::Type, "must be a list of objects");
                return Vec::new();
            }
        };
        let mut objects = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let mut inner = Fields::nested(item, &format!("{}{field}[{i}].", self.prefix));
            objects.push(read(&mut inner));
            self.violations.extend(inner.finish());
        }
        objects
    }

    /// All faults, those of fields nobody asked for last.
    #[must_use]
    pub fn finish(mut self) -> Vec<Violation> {
        for field in std::mem::take(&mut self.map).keys() {
            self.fault(field, ViolationCode::Unknown, "is not a known field");
        }
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reports_every_fault_at_once() {
        let mut fields = Fields::of(json!({"a": 1, "b": [1, "x"], "c": {"k": 2}, "d": {"x": true, "y": 1}, "e": 1}));
        assert_eq!(fields.required_text("a"), "");
        assert_eq!(fields.required_text("missing"), "");
        assert_eq!(fields.texts("b"), ["x"]);
        assert!(fields.text_map("c").is_empty());
        let inner = fields.object("d", |d| d.integer("x").unwrap_or(0));
        assert_eq!(inner, 0);
        let paths: Vec<_> = fields.finish().into_iter().map(|v| (v.field, v.code)).collect();
        use ViolationCode::*;
        let expected = [
            ("a", Type),
            ("missing", Required),
            ("b[0]", Type),
            ("c.k", Type),
            ("d.x", Type),
            ("d.y", Unknown),
            ("e", Unknown),
        ];
        assert_eq!(paths, expected.map(|(f, c)| (f.to_owned(), c)));
    }
}
