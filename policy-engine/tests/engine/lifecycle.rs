//! Between upload and decision: the cache, settings, machines that lack something.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;

use policy_engine::host::TenantFacts;
use policy_engine::types::{Amounts, Verdict};
use policy_engine::{
    Cache, Call, ConfigureError, EngineOptions, Failure, Fallback, Module, Policy, PolicyEngine, World, limits,
};
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

/// Runs this very test in processes whose address space is too small for the large pool, and for any.
#[test]
fn a_pool_that_cannot_be_reserved_is_done_without() {
    const CHILD: &str = "EVENTFLOW_TEST_ADDRESS_SPACE_LACKS";
    if let Some(lacks) = std::env::var_os(CHILD) {
        let engine = PolicyEngine::new(EngineOptions::default()).unwrap();
        let lacking: Vec<_> = engine.fallbacks().iter().map(|fallback| fallback.as_str()).collect();
        assert!(lacking.contains(&lacks.to_str().unwrap()), "{lacking:?}");
        let bytes = Guest::default().component();
        let module = Module::load(&engine, &bytes, &everything(), None).unwrap();
        let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
        for policy in [&policy, &policy.freeze(&module, &bytes, None).unwrap()] {
            assert_eq!(policy.check(&request(), &call()).outcome, Ok(Verdict::Allow));
        }
        return;
    }
    let this = std::env::current_exe().unwrap();
    for (bytes, lacks) in [(100_000_000_000_u64, Fallback::SmallPool), (3_000_000_000, Fallback::NoPool)] {
        let status = Command::new("prlimit")
            .arg(format!("--as={bytes}"))
            .arg(&this)
            .args(["lifecycle::a_pool_that_cannot_be_reserved_is_done_without", "--exact", "--test-threads=1"])
            .env(CHILD, lacks.as_str())
            .status()
            .unwrap();
        assert!(status.success(), "{lacks:?}");
    }
}

/// As many guests as there are slots wait inside of the host; the next one is told so, and nothing is lost for others.
#[test]
fn a_full_pool_is_said_and_passes() {
    const SLOTS: usize = limits::POOL_SLOTS as usize;
    // Other tests must not find it full.
    let engine = PolicyEngine::new(EngineOptions::default()).unwrap();
    let guest = Guest {
        fields: r#"(import "eventflow:policy/context@1.0.0" "used" (func $used (param i32)))"#,
        capabilities: &[3],
        check: "(call $used (i32.const 1024)) i32.const 200",
        ..Guest::default()
    };
    let module = Module::load(&engine, &guest.component(), &everything(), None).unwrap();
    let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
    let (inside, leave) = (Arc::new(Barrier::new(SLOTS + 1)), Arc::new(Barrier::new(SLOTS + 1)));
    let doors = (inside.clone(), leave.clone());
    let facts = move || {
        doors.0.wait();
        doors.1.wait();
        TenantFacts { used: Amounts::NONE, hard: Amounts::NONE, functions: Vec::new() }
    };
    let waiting = Call { facts: Some(Arc::new(facts)), ..call() };
    thread::scope(|scope| {
        let guests: Vec<_> = (0..SLOTS).map(|_| scope.spawn(|| policy.check(&request(), &waiting).outcome)).collect();
        inside.wait();
        assert_eq!(policy.check(&request(), &call()).outcome, Err(Failure::Busy));
        leave.wait();
        for guest in guests {
            assert_eq!(guest.join().unwrap(), Ok(Verdict::Allow));
        }
    });
    assert_eq!(policy.check(&request(), &call()).outcome, Ok(Verdict::Allow));
}
