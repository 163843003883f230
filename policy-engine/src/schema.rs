//! A module's settings schema, bounded before it is built. A schema is a program of the guest's that the host runs, and
//! nothing stops it half-way: one that refers to itself never ends, references that fan out double the work with each
//! level, and a few characters of a pattern can unfold into megabytes. So its shape is weighed first, references
//! followed, and what is over a bound is refused.

use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::limits;
use crate::types::SettingsProblem;

/// Builds the validator of a schema given as text.
///
/// # Errors
/// Text that is no JSON Schema, or one over a bound; the text says which.
pub(crate) fn build(text: &str) -> Result<Validator, String> {
    if text.len() > limits::SCHEMA_BYTES {
        return Err(format!("has more than {} bytes", limits::SCHEMA_BYTES));
    }
    let schema: Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
    let mut scale = Scale { root: &schema, known: HashMap::new(), open: 0, patterns: 0 };
    let load = scale.weigh(&schema, &schema)?;
    for (what, found, most) in [
        ("parts, references followed", load.weight, limits::SCHEMA_WEIGHT),
        ("levels, references followed", load.depth, limits::SCHEMA_DEPTH),
        ("patterns", scale.patterns, limits::SCHEMA_PATTERNS),
    ] {
        if found > most {
            return Err(format!("has more than {most} {what}"));
        }
    }
    // The linear-time engine: patterns are the guest's, texts are whoever's.
    let patterns = PatternOptions::regex().size_limit(limits::PATTERN_BYTES).dfa_size_limit(limits::PATTERN_BYTES);
    let built = jsonschema::options().with_pattern_options(patterns).build(&schema);
    built.map_err(|e| format!("is not a JSON Schema: {}", cut(e.to_string())))
}

/// What is wrong with `settings`, by the first [`limits::SETTINGS_PROBLEMS`].
pub(crate) fn misfits(schema: &Validator, settings: &Value) -> Vec<SettingsProblem> {
    let errors = schema.iter_errors(settings).take(limits::SETTINGS_PROBLEMS);
    errors.map(|e| SettingsProblem { path: e.instance_path().to_string(), message: cut(e.to_string()) }).collect()
}

/// The first of a guest's problems, in messages of bounded length.
pub(crate) fn bounded(problems: Vec<SettingsProblem>) -> Vec<SettingsProblem> {
    let first = problems.into_iter().take(limits::SETTINGS_PROBLEMS);
    first.map(|problem| SettingsProblem { path: cut(problem.path), message: cut(problem.message) }).collect()
}

/// A message quotes what it is about, which can be the whole of the settings.
fn cut(mut message: String) -> String {
    const MOST: usize = 500;
    if message.len() > MOST {
        message.truncate(message.floor_char_boundary(MOST));
        message.push_str(" ...");
    }
    message
}

#[derive(Clone, Copy, Default)]
struct Load {
    /// Parts of the schema that one value can meet.
    weight: usize,
    /// Levels of them.
    depth: usize,
}

struct Scale<'a> {
    root: &'a Value,
    /// By address, which is the identity of a part of one immutable tree; none while it is being weighed.
    known: HashMap<*const Value, Option<Load>>,
    /// How many are being weighed.
    open: usize,
    patterns: usize,
}

impl<'a> Scale<'a> {
    fn weigh(&mut self, part: &'a Value, whole: &'a Value) -> Result<Load, String> {
        match self.known.get(&std::ptr::from_ref(part)) {
            Some(Some(load)) => return Ok(*load),
            Some(None) => return Err("refers to itself, which settings have no use for".to_owned()),
            None => {}
        }
        // More levels than this are refused anyway, and this function must not run out of stack over them.
        if self.open > limits::SCHEMA_DEPTH {
            return Err(format!("has more than {} levels, references followed", limits::SCHEMA_DEPTH));
        }
        self.known.insert(std::ptr::from_ref(part), None);
        self.open += 1;
        let mut load = Load { weight: 1, depth: 0 };
        let mut add = |inner: Load| {
            load.weight = load.weight.saturating_add(inner.weight);
            load.depth = load.depth.max(inner.depth);
        };
        match part {
            Value::Object(keywords) => {
                for (keyword, value) in keywords {
                    match (keyword.as_str(), value) {
                        ("$ref", Value::String(to)) => add(self.weigh(self.target(to)?, whole)?),
                        ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                            return Err(format!("has {keyword}, which is not followed"));
                        }
                        ("$id", Value::String(_)) if !std::ptr::eq(part, whole) => {
                            return Err("has an inner $id, so that its references are ambiguous".to_owned());
                        }
                        ("pattern", Value::String(_)) => self.patterns += 1,
                        ("patternProperties", Value::Object(patterns)) => {
                            self.patterns += patterns.len();
                            add(self.weigh(value, whole)?);
                        }
                        _ => add(self.weigh(value, whole)?),
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    add(self.weigh(item, whole)?);
                }
            }
            _ => {}
        }
        load.depth += 1;
        self.open -= 1;
        self.known.insert(std::ptr::from_ref(part), Some(load));
        Ok(load)
    }

    fn target(&self, to: &str) -> Result<&'a Value, String> {
        let pointer = to.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/'));
        let found = pointer.and_then(|pointer| self.root.pointer(pointer));
        found.ok_or_else(|| format!("refers to {}, which is no part of it", cut(to.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(schema: &Value) -> String {
        build(&schema.to_string()).err().unwrap_or_else(|| panic!("{schema} should be refused"))
    }

    #[test]
    fn what_a_policy_needs_is_taken() {
        let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "properties": {"$ref": {"type": "string"}, "rules": {"$ref": "#/$defs/Rules"}, "more": {"$ref": "#/$defs/Rules"}},
            "$defs": {"Rules": {"type": "object", "properties": {"name": {"pattern": "^[a-z]+$"}}}}});
        let schema = build(&schema.to_string()).unwrap();
        assert!(misfits(&schema, &json!({"rules": {"name": "a"}})).is_empty());
        assert_eq!(misfits(&schema, &json!({"rules": {"name": "A"}}))[0].path, "/rules/name");
    }

    #[test]
    fn schemas_that_do_not_end_are_refused() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"properties": {"child": {"$ref": "#"}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        ] {
            assert!(refused(&schema).contains("refers to itself"), "{schema}");
        }
        assert!(refused(&json!({"$dynamicRef": "#x"})).contains("$dynamicRef"));
        assert!(refused(&json!({"properties": {"a": {"$id": "http://x.example/"}}})).contains("$id"));
        for elsewhere in ["http://192.0.2.1/s", "file:///etc/passwd", "#anchor", "#/$defs/none"] {
            assert!(refused(&json!({"$ref": elsewhere})).contains("no part of it"), "{elsewhere}");
        }
    }

    #[test]
    fn schemas_that_unfold_are_refused() {
        let mut definitions = json!({"d0": {"type": "string"}});
        for i in 1..40 {
            let below = json!({"$ref": format!("#/$defs/d{}", i - 1)});
            definitions[format!("d{i}")] = json!({"allOf": [below, below]});
        }
        assert!(refused(&json!({"$ref": "#/$defs/d39", "$defs": definitions})).contains("more than"));
        let mut chain = json!({"d0": {"type": "string"}});
        for i in 1..1_000 {
            chain[format!("d{i}")] = json!({"$ref": format!("#/$defs/d{}", i - 1)});
        }
        assert!(refused(&json!({"$ref": "#/$defs/d999", "$defs": chain})).contains("levels"));
        let deep = (0..100).fold(json!({"type": "string"}), |inner, _| json!({"not": inner}));
        assert!(refused(&deep).contains("levels"));
        assert!(refused(&json!({"pattern": "(\\pL{200}){200}"})).contains("JSON Schema"));
        let patterns: serde_json::Map<_, _> = (0..100).map(|i| (format!("a{i}"), json!({}))).collect();
        assert!(refused(&json!({"patternProperties": patterns})).contains("patterns"));
    }

    #[test]
    fn problems_are_bounded_however_much_is_wrong() {
        let schema = build(&json!({"items": {"type": "string"}}).to_string()).unwrap();
        let settings = json!((0..10_000).map(|_| json!({"x": "y".repeat(2_000)})).collect::<Vec<_>>());
        let problems = misfits(&schema, &settings);
        assert_eq!(problems.len(), limits::SETTINGS_PROBLEMS);
        assert!(problems.iter().all(|problem| problem.message.len() < 600));
    }
}
