//! Settings: JSON text to type, and the schema the platform checks them against. The schema comes from the type, so
//! the two cannot drift apart.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;

use crate::SettingsProblem;

/// What a policy's type must be to be its own settings: readable from JSON, with a schema, and whole once
/// [`Settings::problems`] is empty.
pub trait Settings: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// What is wrong with the settings that a schema cannot say, such as two fields that contradict each other.
    fn problems(&self) -> Vec<SettingsProblem> {
        Vec::new()
    }
}

/// JSON Schema (draft 2020-12) of `S` as text.
#[must_use]
pub fn schema<S: Settings>() -> String {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<S>();
    schema.as_value().to_string()
}

/// Reads settings.
///
/// # Errors
/// Text that does not fit the type, and whatever [`Settings::problems`] finds.
pub fn parse<S: Settings>(text: &str) -> Result<S, Vec<SettingsProblem>> {
    let settings: S = serde_json::from_str(text).map_err(|e| vec![problem("", e.to_string())])?;
    let problems = settings.problems();
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// A problem at a JSON Pointer.
#[must_use]
pub fn problem(path: &str, message: impl Into<String>) -> SettingsProblem {
    SettingsProblem { path: path.to_owned(), message: message.into() }
}
