//! Core module to component.

use wasm_encoder::{CustomSection, Encode, Section};
use wit_component::ComponentEncoder;

/// Name of the custom section in which a component carries its test cases for the smoke test at upload. The same as in
/// `policies/fixture`, which as a crate for guests is not at hand here; the engine's tests compare them.
pub const FIXTURES_SECTION: &str = "eventflow:fixtures";

/// Why a module did not become a component.
#[derive(Debug, thiserror::Error)]
#[error("not a policy: {0}")]
pub struct EncodeError(String);

/// Encodes a core module that carries the contract's metadata as a component, with `fixtures` (JSON) as its cases.
///
/// # Errors
/// A module that was not built with the SDK or another binding generator, or that imports more than the contract has.
pub fn encode(module: &[u8], fixtures: Option<&str>) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = ComponentEncoder::default();
    let encoded = encoder.validate(true).module(module).and_then(|encoder| encoder.encode());
    let mut component = encoded.map_err(|e| EncodeError(format!("{e:#}")))?;
    if let Some(fixtures) = fixtures {
        append_fixtures(&mut component, fixtures);
    }
    Ok(component)
}

/// Appends `fixtures` (JSON) to a component of any language as its cases.
pub fn append_fixtures(component: &mut Vec<u8>, fixtures: &str) {
    let section = CustomSection { name: FIXTURES_SECTION.into(), data: fixtures.as_bytes().into() };
    component.push(section.id());
    section.encode(component);
}
