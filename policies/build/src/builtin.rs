//! The policies of this repository, for `make policies` and for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{compile, encode};

/// The built-in policies, in the order of the path of a request.
pub const BUILTINS: [&str; 5] =
    ["tier-limits", "resource-bounds", "replica-limit", "image-allowlist", "require-fields"];

/// Name of the file of default bindings, beside the components and in `policies/`.
pub const DEFAULTS: &str = "defaults.json";

/// A policy that nobody should bind: it does on purpose what broken ones do.
pub const MISBEHAVE: &str = "misbehave";

/// The component of one of [`BUILTINS`] or [`MISBEHAVE`], compiled from source once per process, and by cargo's own
/// judgement only if the source has changed. For tests.
///
/// # Panics
/// An unknown name, no compiler for wasm32, or source that does not compile.
#[must_use]
pub fn builtin(name: &str) -> Vec<u8> {
    static MODULES: OnceLock<Vec<(String, PathBuf)>> = OnceLock::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let policies = root.join("policies");
    let modules = MODULES.get_or_init(|| {
        let names: Vec<_> = BUILTINS.into_iter().chain([MISBEHAVE]).map(str::to_owned).collect();
        let compiled = compile(&policies, &root.join("target/policies"), &names);
        let paths = compiled.unwrap_or_else(|e| panic!("the built-in policies: {e}"));
        names.into_iter().zip(paths).collect()
    });
    let module = modules.iter().find(|(known, _)| known == name);
    let (_, path) = module.unwrap_or_else(|| panic!("{name} is not a built-in policy"));
    let folders = [policies.join(name), policies.join("examples").join(name)];
    let fixtures = folders.iter().find_map(|folder| fs::read_to_string(folder.join("fixtures.json")).ok());
    let module = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    encode(&module, fixtures.as_deref()).unwrap_or_else(|e| panic!("{name}: {e}"))
}
