//! The way of a policy's author: what `policy new` writes compiles, passes its own cases on the platform's engine, and
//! fails them when it is changed. Needs a compiler for wasm32.

use std::path::PathBuf;
use std::process::{Command, Output};

fn eventflow(args: &[&str]) -> Output {
    // The compiler needs the caller's environment.
    Command::new(env!("CARGO_BIN_EXE_eventflow")).args(args).output().expect("the program runs")
}

#[track_caller]
fn ends(output: Output, code: i32) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn from_a_template_to_a_tested_component() {
    // Beside the build's own folders, where a second run finds what the first compiled.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("policy-source");
    let policy = folder.join("few-replicas");
    drop(std::fs::remove_dir_all(policy.join("src")));
    drop(std::fs::remove_file(policy.join("Cargo.toml")));
    let kept = folder.join("kept-target");
    drop(std::fs::rename(policy.join("target"), &kept));
    drop(std::fs::remove_dir_all(&policy));
    let [folder, path] = [&folder, &policy].map(|path| path.to_str().unwrap());
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/sdk");
    ends(eventflow(&["policy", "new", "few-replicas", "--folder", folder, "--sdk", sdk]), 0);
    drop(std::fs::rename(&kept, policy.join("target")));

    ends(eventflow(&["policy", "build", path]), 0);
    let component = policy.join("target/few-replicas.wasm");
    let component = component.to_str().unwrap();
    let said = ends(eventflow(&["policy", "test", component]), 0);
    assert!(said.contains("3 cases passed"), "{said}");

    // Another expectation of the very same component.
    let cases = std::fs::read_to_string(policy.join("fixtures.json")).unwrap().replace("at most 3", "at most 4");
    let file = policy.join("other.json");
    std::fs::write(&file, cases).unwrap();
    let said = ends(eventflow(&["policy", "test", component, "--cases", file.to_str().unwrap()]), 7);
    assert!(said.contains("1 of 3 cases came out otherwise") && said.contains("more than the settings say"), "{said}");
    std::fs::write(&file, "[{}]").unwrap();
    ends(eventflow(&["policy", "test", component, "--cases", file.to_str().unwrap()]), 2);
}
