//! An upload, validated and compiled. Every problem is reported at once, because whoever uploads pays a round trip for
//! each that is not.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jsonschema::Validator;
use serde::Serialize;
use sha2::{Digest, Sha256};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::cache::Cache;
use crate::compiler::CompileError;
use crate::engine::PolicyEngine;
use crate::limits;
use crate::run::{self, Exports};
use crate::scan::{Shape, scan};
use crate::schema;
use crate::types::{ACCEPTED, Capability, Manifest, PACKAGE, World};

/// A module's identity: the SHA-256 of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One thing wrong with an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its kind, for machines.
    pub code: &'static str,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }
}

/// An upload was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the module was refused: {}", .problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>().join("; "))]
pub struct ModuleError {
    /// Everything wrong with it.
    pub problems: Vec<Problem>,
}

/// A module that can become policies: valid, compiled, described. Its bytes are not kept.
pub struct Module {
    pub(crate) engine: PolicyEngine,
    pub(crate) digest: Sha256Digest,
    pub(crate) manifest: Manifest,
    pub(crate) worlds: BTreeSet<World>,
    pub(crate) imports: BTreeSet<Capability>,
    pub(crate) component: Component,
    pub(crate) exports: Exports,
    pub(crate) schema: Validator,
    pub(crate) fixtures: Vec<eventflow_policy_fixture::Fixture>,
}

impl Module {
    /// Validates, compiles (or takes from `cache`) and describes a module. Takes up to [`limits::COMPILE`]: not for a
    /// thread that serves requests.
    ///
    /// # Errors
    /// Every problem found.
    pub fn load(
        engine: &PolicyEngine,
        bytes: &[u8],
        granted: &BTreeSet<Capability>,
        cache: Option<&Cache>,
    ) -> Result<Arc<Self>, ModuleError> {
        let mut problems = Vec::new();
        if bytes.len() > limits::MODULE_BYTES {
            let message = format!("has {} bytes; at most {} are taken", bytes.len(), limits::MODULE_BYTES);
            return Err(ModuleError { problems: vec![Problem::new("too-large", message)] });
        }
        let shape = scan(bytes, &mut problems);
        if !problems.is_empty() {
            return Err(ModuleError { problems });
        }
        let digest = Sha256Digest::of(bytes);
        let component =
            compile(engine, digest, bytes, cache).map_err(|problem| ModuleError { problems: vec![problem] })?;
        let imports = imports(engine, &component, granted, &mut problems);
        let worlds = worlds(engine, &component, &mut problems);
        let fixtures = fixtures(&shape, &mut problems);
        if !problems.is_empty() {
            return Err(ModuleError { problems });
        }
        let (exports, manifest) = run::describe(engine, &component, &imports, &worlds)
            .map_err(|problem| ModuleError { problems: vec![problem] })?;
        let schema = manifest_problems(&manifest, &imports, &mut problems);
        match schema {
            Some(schema) if problems.is_empty() => Ok(Arc::new(Self {
                engine: engine.clone(),
                digest,
                manifest,
                worlds,
                imports,
                component,
                exports,
                schema,
                fixtures,
            })),
            _ => Err(ModuleError { problems }),
        }
    }

    /// Its identity.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// What it says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The kinds of question it answers.
    #[must_use]
    pub fn worlds(&self) -> &BTreeSet<World> {
        &self.worlds
    }

    /// The capabilities it imports: at most those of its manifest.
    #[must_use]
    pub fn imports(&self) -> &BTreeSet<Capability> {
        &self.imports
    }

    /// The test cases it carries.
    #[must_use]
    pub fn fixtures(&self) -> &[eventflow_policy_fixture::Fixture] {
        &self.fixtures
    }
}

/// Machine code for `bytes`, from the cache or made. The compiler works on its own thread, because it cannot be
/// stopped: past the limit the caller goes on without it, and what it goes on doing is bounded by [`scan`].
pub(crate) fn compile(
    engine: &PolicyEngine,
    digest: Sha256Digest,
    bytes: &[u8],
    cache: Option<&Cache>,
) -> Result<Component, Problem> {
    if let Some(component) = cache.and_then(|cache| cache.load(engine.wasmtime(), digest)) {
        return Ok(component);
    }
    let component = engine.compile(bytes).map_err(|e| match e {
        CompileError::Wasmtime(e) => Problem::new("malformed", format!("does not compile: {e:#}")),
        CompileError::TimedOut => Problem::new(
            "compile-time",
            format!("does not compile within {} s of computing", limits::COMPILE.as_secs()),
        ),
        CompileError::Panicked => Problem::new("compile", "the compiler gave up on it".to_owned()),
    })?;
    let range = component.image_range();
    let code_bytes = range.end.addr() - range.start.addr();
    if code_bytes > limits::CODE_BYTES {
        let message = format!("compiles to {code_bytes} bytes; at most {} are kept", limits::CODE_BYTES);
        return Err(Problem::new("too-large", message));
    }
    if let Some(cache) = cache {
        cache.store(engine.wasmtime(), digest, &component);
    }
    Ok(component)
}

/// The capabilities a component imports; a problem for each import that is none, or is not granted.
fn imports(
    engine: &PolicyEngine,
    component: &Component,
    granted: &BTreeSet<Capability>,
    problems: &mut Vec<Problem>,
) -> BTreeSet<Capability> {
    let mut found = BTreeSet::new();
    for (name, _) in component.component_type().imports(engine.wasmtime()) {
        match import(name) {
            Ok(Some(capability)) if granted.contains(&capability) => drop(found.insert(capability)),
            Ok(Some(capability)) => {
                let names: Vec<_> = granted.iter().map(|c| c.interface()).collect();
                let granted = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let message = format!("imports {}, which is not granted (granted: {granted})", capability.interface());
                problems.push(Problem::new("not-granted", message));
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    found
}

/// What an import's name stands for: a capability, or nothing but types.
fn import(name: &str) -> Result<Option<Capability>, Problem> {
    let Some((interface, version)) =
        name.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('/')?.split_once('@'))
    else {
        let hint = if name.starts_with("wasi:") { "; policies have no WASI" } else { "" };
        return Err(Problem::new("unknown-import", format!("imports {name}, which no policy is given{hint}")));
    };
    if version.split('.').next() != Some("1") {
        let message = format!("is built for {PACKAGE}@{version}; accepted: {ACCEPTED}");
        return Err(Problem::new("version", message));
    }
    if interface == "types" {
        return Ok(None);
    }
    let capability = Capability::ALL.into_iter().find(|c| c.interface() == interface);
    let message = || format!("imports {name}, which version {ACCEPTED} of the contract does not have");
    capability.map(Some).ok_or_else(|| Problem::new("unknown-import", message()))
}

/// The worlds whose export a component has; problems for what is missing to any.
fn worlds(engine: &PolicyEngine, component: &Component, problems: &mut Vec<Problem>) -> BTreeSet<World> {
    let ty = component.component_type();
    let is_function = |name: &str| {
        ty.get_export(engine.wasmtime(), name).is_some_and(|e| matches!(e.ty, ComponentItem::ComponentFunc(_)))
    };
    for name in ["describe", "configure"] {
        if !is_function(name) {
            problems.push(Problem::new("missing-export", format!("does not export the function {name}")));
        }
    }
    let worlds: BTreeSet<_> =
        [World::Request, World::Admission].into_iter().filter(|world| is_function(world.export())).collect();
    if worlds.is_empty() {
        let message = "exports neither check (world request-policy) nor admit (world admission-policy)";
        problems.push(Problem::new("missing-export", message.to_owned()));
    }
    worlds
}

fn fixtures(shape: &Shape, problems: &mut Vec<Problem>) -> Vec<eventflow_policy_fixture::Fixture> {
    let parsed = shape.fixtures.as_deref().map_or(Ok(Vec::new()), eventflow_policy_fixture::parse);
    let cases = parsed.unwrap_or_else(|e| {
        problems.push(Problem::new("fixtures", format!("carries test cases that cannot be read: {e}")));
        Vec::new()
    });
    if cases.len() > limits::FIXTURES {
        let message = format!("carries {} test cases; at most {} are run", cases.len(), limits::FIXTURES);
        problems.push(Problem::new("fixtures", message));
    }
    cases
}

/// Problems of a manifest. The schema comes back if it is one.
fn manifest_problems(
    manifest: &Manifest,
    imports: &BTreeSet<Capability>,
    problems: &mut Vec<Problem>,
) -> Option<Validator> {
    let name = &manifest.name;
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(label) || name.starts_with('-') || name.ends_with('-') {
        let message = "its name must be 1 to 63 lower-case letters, digits and inner hyphens";
        problems.push(Problem::new("manifest", message.to_owned()));
    }
    for (what, text, most) in [("version", &manifest.version, 64), ("summary", &manifest.summary, 1024)] {
        if text.len() > most || text.chars().any(char::is_control) {
            problems.push(Problem::new("manifest", format!("its {what} must be at most {most} printable bytes")));
        }
    }
    for capability in imports.iter().filter(|c| !manifest.capabilities.contains(c)) {
        let message = format!("imports {} without naming it in its manifest", capability.interface());
        problems.push(Problem::new("manifest", message));
    }
    let schema = schema::build(&manifest.settings_schema);
    schema.map_err(|e| problems.push(Problem::new("schema", format!("its settings schema {e}")))).ok()
}
