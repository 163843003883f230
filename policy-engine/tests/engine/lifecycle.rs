//! Between upload and decision: the cache, settings, machines that lack something.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use policy_engine::types::Verdict;
use policy_engine::{Cache, ConfigureError, EngineOptions, Fallback, Module, Policy, PolicyEngine, World};
use serde_json::json;

use crate::common::{Guest, builtin, call, engine, everything, load, request};

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("eventflow-policy-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

#[test]
fn compiled_modules_are_kept_and_verified() {
    let folder = folder("cache");
    let bytes = Guest::default().component();
    let entries = || {
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.file_name().unwrap() != "key").collect::<Vec<_>>()
    };
    let decides = |cache: &Cache| {
        let module = Module::load(engine(), &bytes, &everything(), Some(cache)).unwrap();
        let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
        let frozen = policy.freeze(&module, &bytes, Some(cache)).unwrap();
        assert_eq!(frozen.check(&request(), &call()).outcome, Ok(Verdict::Allow));
    };
    let cache = Cache::open(&folder).unwrap();
    decides(&cache);
    let kept = entries();
    assert_eq!(kept.len(), 2, "the module and its image");
    for path in kept.iter().chain([&folder.join("key")]) {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Found again by another process, which reads the same key.
    let file = || fs::metadata(&kept[0]).unwrap().ino();
    let written = file();
    decides(&Cache::open(&folder).unwrap());
    assert_eq!(file(), written);
    // Damaged, swapped or foreign files are as good as none.
    for path in &kept {
        let mut damaged = fs::read(path).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(path, damaged).unwrap();
    }
    decides(&cache);
    assert_ne!(file(), written, "compiled and written again");
    fs::copy(&kept[0], folder.join("other")).unwrap();
    fs::rename(folder.join("other"), &kept[1]).unwrap();
    decides(&cache);
    fs::set_permissions(&kept[0], fs::Permissions::from_mode(0o644)).unwrap();
    decides(&cache);
    fs::write(folder.join("key"), "short").unwrap();
    decides(&Cache::open(&folder).unwrap());
    // A folder that others may enter is none.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Cache::open(&folder).is_err());
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn settings_are_checked_by_schema_and_guest() {
    let module = load(&builtin("resource-bounds")).unwrap();
    let refused = |settings: serde_json::Value| match Policy::configure(&module, World::Admission, &settings).err() {
        Some(ConfigureError::Refused(problems)) => problems.into_iter().map(|p| p.path).collect::<Vec<_>>(),
        other => panic!("{settings}: {other:?}"),
    };
    // The schema lists every misfit, the guest what a schema cannot say.
    let mut paths = refused(json!({"everyone": {"bounds": {"cpuLimit": {"max": 1}, "memoryLimit": {"max": 2}}}}));
    paths.sort();
    assert_eq!(paths, ["/everyone/bounds/cpuLimit/max", "/everyone/bounds/memoryLimit/max"]);
    assert_eq!(refused(json!({"everyone": {"defaults": {"cpuLimit": "much"}}})), ["/everyone/defaults/cpuLimit"]);
    assert_eq!(refused(json!({"everyone": {"x": "y".repeat(70_000)}})), [""]);
    let other = Policy::configure(&module, World::Request, &json!({})).err();
    assert!(matches!(other, Some(ConfigureError::OtherWorld(_))));
}

#[test]
fn machines_without_pool_or_pagemap_scan_decide_the_same() {
    for options in [
        EngineOptions { pool: false, ..EngineOptions::default() },
        EngineOptions { pagemap_scan: false, ..EngineOptions::default() },
    ] {
        let engine = PolicyEngine::new(options).unwrap();
        assert!(!engine.fallbacks().is_empty());
        let bytes = Guest::default().component();
        let module = Module::load(&engine, &bytes, &everything(), None).unwrap();
        let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
        let policy = policy.freeze(&module, &bytes, None).unwrap();
        for _ in 0..10 {
            assert_eq!(policy.check(&request(), &call()).outcome, Ok(Verdict::Allow));
        }
    }
}

/// Runs this very test in a process whose address space is too small for any pool.
#[test]
fn a_pool_that_cannot_be_reserved_is_done_without() {
    const CHILD: &str = "EVENTFLOW_TEST_SMALL_ADDRESS_SPACE";
    if std::env::var_os(CHILD).is_some() {
        let engine = PolicyEngine::new(EngineOptions::default()).unwrap();
        assert_eq!(engine.fallbacks(), [Fallback::NoPool]);
        let module = Module::load(&engine, &Guest::default().component(), &everything(), None).unwrap();
        let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
        assert_eq!(policy.check(&request(), &call()).outcome, Ok(Verdict::Allow));
        return;
    }
    let this = std::env::current_exe().unwrap();
    let status = Command::new("prlimit")
        .arg("--as=3000000000")
        .arg(this)
        .args(["lifecycle::a_pool_that_cannot_be_reserved_is_done_without", "--exact", "--test-threads=1"])
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success());
}
