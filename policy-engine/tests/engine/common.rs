//! Components to test with, and short ways to load and ask them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use policy_build::builtin;
pub use policy_build::builtin::BUILTINS;
use policy_engine::counters::Lane;
use policy_engine::types::{AdmissionView, RequestView};
use policy_engine::{Call, Capability, Counters, EngineOptions, Module, ModuleError, Policy, PolicyEngine, World};
use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// One engine for all tests of the process.
pub fn engine() -> &'static PolicyEngine {
    static ENGINE: OnceLock<PolicyEngine> = OnceLock::new();
    ENGINE.get_or_init(|| PolicyEngine::new(EngineOptions::default()).unwrap())
}

pub fn everything() -> BTreeSet<Capability> {
    Capability::ALL.into()
}

pub fn load(bytes: &[u8]) -> Result<Arc<Module>, ModuleError> {
    Module::load(engine(), bytes, &everything(), None)
}

/// A component from a core module in text, with the contract's world or another's metadata.
pub fn encode(wat: &str, resolve: &Resolve, world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let package = resolve.packages.iter().next_back().unwrap().0;
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// The contract.
pub fn contract() -> Resolve {
    let mut resolve = Resolve::default();
    resolve.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/wit")).unwrap();
    resolve
}

/// Parts of a request policy in WebAssembly text; the defaults allow everything.
pub struct Guest<'a> {
    /// Imports and other module fields.
    pub fields: &'a str,
    /// Body of `describe`; 100 is the address of a good manifest.
    pub describe: &'a str,
    /// Body of `configure`; 200 is the address of "ok".
    pub configure: &'a str,
    /// Body of `check`; 200 is the address of "allow".
    pub check: &'a str,
    /// Settings schema.
    pub schema: &'a str,
    /// Capabilities in the manifest, by their place in `Capability::ALL`.
    pub capabilities: &'a [u8],
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Self {
            fields: "",
            describe: "i32.const 100",
            configure: "i32.const 200",
            check: "i32.const 200",
            schema: "{}",
            capabilities: &[0, 1],
        }
    }
}

impl Guest<'_> {
    pub fn wat(&self) -> String {
        let Self { fields, describe, configure, check, schema, capabilities } = self;
        let named = capabilities.len();
        let capabilities: String = capabilities.iter().map(|c| format!("\\{c:02x}")).collect();
        let length = format!("\\{:02x}\\00\\00\\00", schema.len());
        let schema = schema.replace('"', "\\22");
        format!(
            r#"(module
            {fields}
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 8192))
            (data (i32.const 16) "guest")
            (data (i32.const 32) "1")
            (data (i32.const 100) "\10\00\00\00\05\00\00\00 \00\00\00\01\00\00\00 \00\00\00\00\00\00\00\2c\01\00\00\0{named}\00\00\00\90\01\00\00{length}\00")
            (data (i32.const 300) "{capabilities}")
            (data (i32.const 400) "{schema}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                (global.get $heap)
                (global.set $heap (i32.add (global.get $heap) (local.get 3))))
            (func (export "describe") (result i32) {describe})
            (func (export "configure") (param i32 i32) (result i32) {configure})
            (func $check (export "check") (param i32) (result i32) {check}))"#
        )
    }

    pub fn component(&self) -> Vec<u8> {
        encode(&self.wat(), &contract(), "request-policy")
    }

    pub fn policy(&self) -> Policy {
        let module = load(&self.component()).unwrap();
        Policy::configure(&module, World::Request, &json!({})).unwrap()
    }
}

/// An admission policy that answers every question with this patch.
pub struct Admits(pub &'static str);

impl Admits {
    pub fn policy(&self) -> Policy {
        let patch = self.0.replace('"', "\\22");
        let length = self.0.len();
        // The verdict at 1024: the case `allow-with`, the patch at 2048, no warnings.
        let admit = format!(
            "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 2048))
             (i32.store (i32.const 1032) (i32.const {length})) (i32.store (i32.const 1036) (i32.const 0))
             (i32.store (i32.const 1040) (i32.const 0)) i32.const 1024"
        );
        let fields = format!(r#"(data (i32.const 2048) "{patch}")"#);
        let wat = Guest { check: &admit, ..Guest::default() }.wat();
        let wat =
            wat.replace(r#"(export "check")"#, r#"(export "admit")"#).replacen("(data", &format!("{fields} (data"), 1);
        let module = load(&encode(&wat, &contract(), "admission-policy")).unwrap();
        Policy::configure(&module, World::Admission, &json!({})).unwrap()
    }
}

fn defaults() -> (RequestView, AdmissionView) {
    let case = |kind: &str| json!([{"name": "n", kind: {}, "expect": "allow"}]).to_string();
    let read = |kind: &str| eventflow_policy_fixture::parse(&case(kind)).unwrap().remove(0);
    let request = read("request").request_view().unwrap();
    let admission = read("admission").admission_view().unwrap();
    (serde_json::from_value(request).unwrap(), serde_json::from_value(admission).unwrap())
}

pub fn request() -> RequestView {
    defaults().0
}

pub fn admission(object: &Value) -> AdmissionView {
    AdmissionView { object: object.to_string(), ..defaults().1 }
}

pub fn call() -> Call {
    Call {
        now_ms: 1_700_000_000_000,
        tenant: "acme".into(),
        counters: Arc::new(Counters::default()),
        lane: Lane::Enforced,
        facts: None,
    }
}
