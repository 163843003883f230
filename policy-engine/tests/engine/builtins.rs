//! The built-in policies as components: the same cases as natively, before and after freezing.

use std::fs;
use std::path::Path;

use policy_build::builtin::DEFAULTS;
use policy_engine::types::{AdmissionVerdict, Verdict};
use policy_engine::{Policy, World, fixtures};
use serde_json::json;

use crate::common::{BUILTINS, admission, builtin, call, load, request};

#[test]
fn give_the_verdicts_of_their_fixtures() {
    for name in BUILTINS {
        let module = load(&builtin(name)).unwrap();
        assert_eq!(module.manifest().name, name);
        assert!(module.imports().is_empty(), "{name} needs no capability");
        assert!(module.fixtures().len() >= 8, "{name} carries its cases");
        let report = fixtures::run(&module, module.fixtures());
        assert!(report.wrong.is_empty(), "{name}:\n{}", report.wrong.join("\n"));
        assert_eq!(report.run, module.fixtures().len());
    }
}

#[test]
fn decide_the_same_from_a_frozen_image() {
    let bytes = builtin("replica-limit");
    let module = load(&bytes).unwrap();
    let slow = Policy::configure(&module, World::Admission, &json!({"max": 3})).unwrap();
    let frozen = slow.freeze(&module, &bytes, None).unwrap();
    assert!(frozen.is_frozen() && !slow.is_frozen());
    assert_eq!(frozen.settings_digest(), slow.settings_digest());
    for replicas in 0..6 {
        let view = admission(&json!({"metadata": {"name": "f"}, "spec": {"image": "a:1", "replicas": replicas}}));
        let verdicts = [&slow, &frozen].map(|policy| policy.admit(&view, &call()).outcome.unwrap());
        assert_eq!(verdicts[0], verdicts[1]);
        assert_eq!(verdicts[0] == AdmissionVerdict::Allow, replicas <= 3);
    }
    assert!(slow.freeze(&module, &builtin("require-fields"), None).is_err(), "another module's bytes");
}

#[test]
fn decisions_leave_nothing_behind() {
    let bytes = builtin("tier-limits");
    let module = load(&bytes).unwrap();
    let policy = Policy::configure(&module, World::Request, &json!({})).unwrap().freeze(&module, &bytes, None).unwrap();
    let first = policy.check(&request(), &call());
    assert!(matches!(first.outcome, Ok(Verdict::Rate(_))), "{first:?}");
    for _ in 0..100 {
        let next = policy.check(&request(), &call());
        assert_eq!((&next.outcome, next.memory_bytes), (&first.outcome, first.memory_bytes));
    }
}

#[test]
fn schemas_in_the_manifest_name_every_setting_of_the_readme() {
    for name in BUILTINS {
        let module = load(&builtin(name)).unwrap();
        let schema: serde_json::Value = serde_json::from_str(&module.manifest().settings_schema).unwrap();
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").join(name).join("README.md");
        let readme = fs::read_to_string(readme).unwrap();
        for setting in schema["properties"].as_object().unwrap().keys() {
            assert!(readme.contains(&format!("`{setting}")), "{name}: {setting} is not in its README");
        }
    }
}

/// What the gateway binds first on a new platform.
#[test]
fn the_default_bindings_are_accepted() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").join(DEFAULTS);
    let defaults: Vec<serde_json::Value> = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let bound: Vec<_> = defaults.iter().map(|d| d["policy"].as_str().unwrap()).collect();
    assert_eq!(bound, BUILTINS);
    for default in &defaults {
        let name = default["policy"].as_str().unwrap();
        let module = load(&builtin(name)).unwrap();
        let world = if default["world"] == "request" { World::Request } else { World::Admission };
        let policy = Policy::configure(&module, world, &default["settings"]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(default["failure_mode"] == "closed" && default["order"].is_i64());
        // An ordinary function is nobody's concern.
        if world == World::Admission {
            let view = admission(&json!({"metadata": {"name": "f"}, "spec": {"image": "hello:v1"}}));
            assert_eq!(policy.admit(&view, &call()).outcome, Ok(AdmissionVerdict::Allow), "{name}");
        }
    }
}
