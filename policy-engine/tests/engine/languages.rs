//! The same policy in three languages: the fixtures of the built-in `replica-limit` hold for all of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use policy_engine::fixtures;

use crate::common::{builtin, load};

#[test]
fn give_the_same_verdicts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let out = root.join("target/policies/examples");
    let status = Command::new(root.join("policies/examples/build.sh")).arg(&out).status().unwrap();
    assert!(status.success(), "the examples in other languages did not build");
    let rust = load(&builtin("replica-limit")).unwrap();
    assert!(rust.fixtures().len() >= 8);
    for language in ["js", "py"] {
        let bytes = fs::read(out.join(format!("replica-limit-{language}.wasm"))).unwrap();
        let module = load(&bytes).unwrap_or_else(|e| panic!("{language}: {e}"));
        assert_eq!(module.manifest().name, rust.manifest().name);
        let report = fixtures::run(&module, rust.fixtures());
        assert!(report.wrong.is_empty(), "{language}:\n{}", report.wrong.join("\n"));
    }
}
