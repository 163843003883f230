//! The same policy in three languages, and the same component under a second runtime: fixtures hold for all of them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use eventflow_policy_fixture::Fixture;
use policy_engine::fixtures;
use serde_json::{Value, json};

use crate::common::{BUILTINS, builtin, load};

/// Folder of the examples, built once per run.
fn examples() -> &'static Path {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        let out = root.join("target/policies/examples");
        let status = Command::new(root.join("policies/examples/build.sh")).arg(&out).status().unwrap();
        assert!(status.success(), "the examples in other languages did not build");
        out
    })
}

fn give_the_verdicts_of_rust(language: &str) {
    let rust = load(&builtin("replica-limit")).unwrap();
    assert!(rust.fixtures().len() >= 8);
    let bytes = fs::read(examples().join(format!("replica-limit-{language}.wasm"))).unwrap();
    let module = load(&bytes).unwrap_or_else(|e| panic!("{language}: {e}"));
    assert_eq!(module.manifest().name, rust.manifest().name);
    let report = fixtures::run(&module, rust.fixtures());
    assert!(report.wrong.is_empty(), "{language}:\n{}", report.wrong.join("\n"));
    assert_eq!(report.run, rust.fixtures().len());
}

#[test]
fn javascript_gives_the_verdicts_of_rust() {
    give_the_verdicts_of_rust("js");
}

#[test]
fn python_gives_the_verdicts_of_rust() {
    give_the_verdicts_of_rust("py");
}

/// Node's engine has nothing in common with wasmtime, nor has the reading of the component model in jco.
#[test]
fn a_second_runtime_gives_the_same_verdicts() {
    let folder = examples().join("components");
    fs::create_dir_all(&folder).unwrap();
    for name in BUILTINS {
        let bytes = builtin(name);
        let component = folder.join(format!("{name}.wasm"));
        fs::write(&component, &bytes).unwrap();
        let module = load(&bytes).unwrap();
        let cases = module.fixtures();
        let verdicts = judge(&component, cases);
        assert_eq!(verdicts.len(), cases.len());
        let wrong: Vec<_> = cases.iter().zip(&verdicts).filter_map(|(case, verdict)| case.mismatch(verdict)).collect();
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}

/// The verdicts of Node about `cases`.
fn judge(component: &Path, cases: &[Fixture]) -> Vec<Value> {
    let views: Vec<_> = cases
        .iter()
        .map(|case| json!({"settings": case.settings, "request": case.request_view(), "admission": case.admission_view()}))
        .collect();
    let mut node = Command::new("node")
        .arg(examples().join("second-runtime").canonicalize().unwrap().join("judge.js"))
        .arg(component)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin.take().unwrap().write_all(json!(views).to_string().as_bytes()).unwrap();
    let output = node.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", component.display());
    serde_json::from_slice(&output.stdout).unwrap()
}
