//! Guests that mean harm or are broken. Each is contained: a typed failure, nothing left behind, others undisturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use policy_engine::set::{Binding, Entry, PolicySet, Refused, Scope};
use policy_engine::types::{Denial, FailureMode, Verdict};
use policy_engine::{ConfigureError, Failure, Module, Policy, World, fixtures, limits};
use serde_json::json;
use wit_parser::Resolve;

use crate::common::{Guest, builtin, call, contract, encode, engine, everything, load, request};

const LOG: &str = r#"(import "eventflow:policy/log@1.0.0" "write" (func $log (param i32 i32 i32)))"#;
const CLOCK: &str = r#"(import "eventflow:policy/clock@1.0.0" "now-ms" (func $now (result i64)))"#;
const ENDLESS: &str = "(loop $again (br $again)) unreachable";

fn check(guest: &Guest<'_>) -> Result<Verdict, Failure> {
    guest.policy().check(&request(), &call()).outcome
}

fn problems(bytes: &[u8]) -> Vec<&'static str> {
    let error = load(bytes).err().expect("the module should be refused");
    error.problems.iter().map(|problem| problem.code).collect()
}

#[test]
fn the_template_itself_is_harmless() {
    assert_eq!(check(&Guest::default()), Ok(Verdict::Allow));
}

#[test]
fn an_endless_loop_is_stopped() {
    let outcome = check(&Guest { check: ENDLESS, ..Guest::default() });
    assert_eq!(outcome, Err(Failure::TimedOut(limits::REQUEST.deadline)));
}

#[test]
fn endless_recursion_is_stopped() {
    let outcome =
        check(&Guest { check: "(call $check (local.get 0)) (drop) (call $check (local.get 0))", ..Guest::default() });
    assert!(matches!(&outcome, Err(Failure::Trapped(why)) if why.contains("stack")), "{outcome:?}");
}

#[test]
fn a_memory_bomb_stays_in_its_limit() {
    let grow = "(block $full (loop $more (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more))) unreachable";
    let decision = Guest { check: grow, ..Guest::default() }.policy().check(&request(), &call());
    assert_eq!(decision.outcome, Err(Failure::OutOfMemory(limits::REQUEST.memory_bytes)));
    assert!(decision.memory_bytes <= limits::REQUEST.memory_bytes);
}

#[test]
fn a_table_bomb_stays_in_its_limit() {
    let fields = "(table $t 1 funcref)";
    let grow = "(block $full (loop $more (br_if $full (i32.eq (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))) (br $more)))
        (if (i32.gt_u (table.size $t) (i32.const 10000)) (then (return (i32.const 100))))
        i32.const 200";
    assert_eq!(check(&Guest { fields, check: grow, ..Guest::default() }), Ok(Verdict::Allow));
}

#[test]
fn huge_and_wild_answers_are_no_verdicts() {
    // A refusal at 1024: status 403, code "guest", message at 2048.
    let deny = |length: u32| {
        format!(
            "(i32.store8 (i32.const 1024) (i32.const 3)) (i32.store16 (i32.const 1028) (i32.const 403))
             (i32.store (i32.const 1032) (i32.const 16)) (i32.store (i32.const 1036) (i32.const 5))
             (i32.store (i32.const 1040) (i32.const 2048)) (i32.store (i32.const 1044) (i32.const {length}))
             (memory.fill (i32.const 2048) (i32.const 120) (i32.const 60000))
             i32.const 1024"
        )
    };
    let outcome = |check: &str| self::check(&Guest { check, ..Guest::default() });
    let denial = Denial { status: 403, code: "guest".to_owned(), message: "xxx".to_owned(), retry_after_ms: None };
    assert_eq!(outcome(&deny(3)), Ok(Verdict::Deny(denial)));
    for wild in [deny(60_000), deny(0x7fff_ffff), "i32.const 65535".to_owned(), "i32.const -4".to_owned()] {
        assert!(matches!(outcome(&wild), Err(Failure::Invalid(_))), "{wild}");
    }
    // A case that the contract does not have, and text that is no UTF-8.
    let strange = "(i32.store8 (i32.const 1024) (i32.const 9)) i32.const 1024";
    assert!(matches!(outcome(strange), Err(Failure::Invalid(_))));
    let garbled = deny(3).replace("(i32.const 120)", "(i32.const 255)");
    assert!(matches!(outcome(&garbled), Err(Failure::Invalid(_))));
}

#[test]
fn a_log_flood_is_cut_and_then_stopped() {
    let flood = |lines: u32| {
        format!(
            "(local $i i32) (loop $more (call $log (i32.const 1) (i32.const 2048) (i32.const 100))
             (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {lines})))) i32.const 200"
        )
    };
    let decision = Guest { fields: LOG, check: &flood(500), ..Guest::default() }.policy().check(&request(), &call());
    assert_eq!(decision.outcome, Ok(Verdict::Allow));
    assert_eq!((decision.log.len(), decision.log_dropped), (40, 460));
    let decision = Guest { fields: LOG, check: &flood(5_000), ..Guest::default() }.policy().check(&request(), &call());
    assert_eq!(decision.outcome, Err(Failure::HostCalls(limits::REQUEST.host_calls)));
}

#[test]
fn a_host_call_flood_is_stopped() {
    let flood = "(loop $more (drop (call $now)) (br $more)) unreachable";
    let outcome = check(&Guest { fields: CLOCK, check: flood, ..Guest::default() });
    assert_eq!(outcome, Err(Failure::HostCalls(limits::REQUEST.host_calls)));
}

/// The same from Rust, frozen and not: what a compiler makes of these faults is what will be met.
#[test]
fn broken_rust_guests_are_told_apart() {
    let bytes = builtin("misbehave");
    let module = load(&bytes).unwrap();
    for (how, kind) in [
        ("loop", "timed-out"),
        ("recurse", "trapped"),
        ("memory", "out-of-memory"),
        ("panic", "trapped"),
        ("output", "invalid"),
        ("log", "host-calls"),
    ] {
        let policy = Policy::configure(&module, World::Request, &json!({"how": how})).unwrap();
        let frozen = policy.freeze(&module, &bytes, None).unwrap();
        for policy in [&policy, &frozen] {
            let outcome = policy.check(&request(), &call()).outcome;
            assert_eq!(outcome.as_ref().map_err(Failure::kind), Err(kind), "{how}: {outcome:?}");
        }
    }
}

/// No smoke test can tell: what remains is that it costs nobody but those it judges, and that they hear its name.
#[test]
fn a_module_that_traps_only_in_use_costs_only_those_it_judges() {
    let module = load(&builtin("misbehave")).unwrap();
    let report = fixtures::run(&module, module.fixtures());
    assert_eq!((report.run, &report.wrong[..]), (3, &[][..]), "it passes its smoke test");
    let policy = Arc::new(Policy::configure(&module, World::Request, &json!({"how": "later"})).unwrap());
    let entry = |name: &str, scope, policy| {
        let failure = FailureMode::Closed;
        Entry::One(Binding { name: name.into(), scope, order: 1, failure, active: Some(policy), trial: None })
    };
    let good = Arc::new(Guest::default().policy());
    let entries = vec![entry("bad", Scope::Tenant("victim".to_owned()), policy), entry("good", Scope::Everyone, good)];
    let set = PolicySet::new(1, World::Request, entries).unwrap();
    for i in 0..50 {
        let mut view = request();
        view.request_id = format!("request-{i}");
        assert!(set.check(&view, &call()).result.is_ok());
        view.tenant.id = "victim".to_owned();
        match set.check(&view, &call()).result {
            Err(Refused::Failed { policy, failure, .. }) => {
                assert_eq!((&*policy, failure.kind()), ("misbehave", "trapped"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_trap_anywhere_is_told_apart() {
    let outcome = check(&Guest { check: "unreachable", ..Guest::default() });
    assert!(matches!(outcome, Err(Failure::Trapped(_))), "{outcome:?}");
    for describe in ["unreachable", ENDLESS] {
        assert_eq!(problems(&Guest { describe, ..Guest::default() }.component()), ["trap"]);
    }
    for (configure, kind) in [("unreachable", "trapped"), (ENDLESS, "timed-out"), ("i32.const -8", "invalid")] {
        let module = load(&Guest { configure, ..Guest::default() }.component()).unwrap();
        match Policy::configure(&module, World::Request, &json!({})).err() {
            Some(ConfigureError::Failed(failure)) => assert_eq!(failure.kind(), kind),
            other => panic!("{configure}: {other:?}"),
        }
    }
}

/// Setting up may take more memory than deciding; a policy that then could never decide is refused at once.
#[test]
fn settings_that_leave_no_memory_to_decide_are_refused() {
    let configure = "(drop (memory.grow (i32.const 300))) i32.const 200";
    let module = load(&Guest { configure, ..Guest::default() }.component()).unwrap();
    let outcome = Policy::configure(&module, World::Request, &json!({})).err();
    let most = limits::REQUEST.memory_bytes;
    assert_eq!(outcome, Some(ConfigureError::Failed(Failure::OutOfMemory(most))));
}

#[test]
fn capabilities_are_closed_while_configuring() {
    let configure = "(drop (call $now)) i32.const 200";
    let module = load(&Guest { fields: CLOCK, configure, ..Guest::default() }.component()).unwrap();
    let outcome = Policy::configure(&module, World::Request, &json!({})).err();
    assert!(matches!(outcome, Some(ConfigureError::Failed(Failure::HostCalls(0)))), "{outcome:?}");
}

#[test]
fn wrong_types_and_worlds_are_refused() {
    let mut resolve = Resolve::default();
    resolve
        .push_str("w.wit", "package eventflow:policy@1.0.0; world w { export describe: func() -> u32; export configure: func(s: string); export check: func(); }")
        .unwrap();
    let wat = r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "describe") (result i32) i32.const 1) (func (export "configure") (param i32 i32)) (func (export "check")))"#;
    assert_eq!(problems(&encode(wat, &resolve, "w")), ["mistyped-export"]);

    let mut resolve = Resolve::default();
    resolve
        .push_str("w.wit", "package eventflow:policy@2.0.0; interface log { write: func(); } interface disk { read: func(); } world w { import log; import disk; }")
        .unwrap();
    let wat = r#"(module (import "eventflow:policy/log@2.0.0" "write" (func)) (import "eventflow:policy/disk@2.0.0" "read" (func)))"#;
    // Everything at once: two imports of a major that is unknown, and three exports that are missing.
    let bytes = encode(wat, &resolve, "w");
    assert_eq!(problems(&bytes), ["version", "version", "missing-export", "missing-export", "missing-export"]);
    let told = load(&bytes).err().unwrap().to_string();
    assert!(told.contains("eventflow:policy@2.0.0; accepted: 1.x"), "{told}");
}

#[test]
fn imports_beyond_the_grant_are_refused() {
    let bytes = Guest {
        fields: LOG,
        check: "(call $log (i32.const 1) (i32.const 16) (i32.const 5)) i32.const 200",
        ..Guest::default()
    }
    .component();
    let refused = Module::load(engine(), &bytes, &[].into(), None).err().unwrap();
    assert_eq!(refused.problems[0].code, "not-granted");
    assert!(load(&bytes).is_ok());
    // `counters` is granted here and not named in the guest's manifest.
    let fields =
        r#"(import "eventflow:policy/counters@1.0.0" "take" (func $take (param i32 i32 i32 i32 i32 i32 i32)))"#;
    let check = "(call $take (i32.const 16) (i32.const 5) (i32.const 1) (i32.const 1) (i32.const 1) (i32.const 1000) (i32.const 1024)) i32.const 200";
    assert_eq!(problems(&Guest { fields, check, ..Guest::default() }.component()), ["manifest"]);
}

#[test]
fn bytes_that_are_no_component_are_refused() {
    assert_eq!(problems(b"MZ"), ["malformed"]);
    assert_eq!(problems(&[]), ["malformed"]);
    assert_eq!(problems(&wat::parse_str("(module)").unwrap()), ["core-module"]);
    let good = builtin("tier-limits");
    assert_eq!(problems(&good[..good.len() / 2]), ["malformed"]);
}

#[test]
fn gigantic_modules_and_compile_bombs_are_refused_unread() {
    assert_eq!(problems(&vec![0; limits::MODULE_BYTES + 1]), ["too-large"]);
    let nested = |levels: usize| {
        let bomb = "(component $x (core module $m) (core instance (instantiate $m)))".to_owned();
        (0..levels).fold(bomb, |inner, _| {
            format!("(component $x {inner} (instance (instantiate $x)) (instance (instantiate $x)))")
        })
    };
    let nested_bytes = wat::parse_str(nested(20).replacen("(component $x", "(component", 1)).unwrap();
    assert_eq!(problems(&nested_bytes), ["too-large"]);
    let wide = format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(100));
    assert_eq!(problems(&wat::parse_str(wide).unwrap()), ["too-large"]);
    let locals = format!("(component (core module (func (local {}))))", "i64 ".repeat(20_000));
    assert_eq!(problems(&wat::parse_str(locals).unwrap()), ["too-large"]);
    let long = format!("(component (core module (func {})))", "(drop (i32.const 1))".repeat(300_000));
    assert_eq!(problems(&wat::parse_str(long).unwrap()), ["too-large"]);
}

/// What unfolds only in the compiler: every local may differ at every branch.
#[test]
fn functions_that_unfold_in_the_compiler_are_refused_or_compiled_in_time() {
    let module = |functions: usize, locals: usize, branches: usize| {
        let sets: String =
            (0..locals).map(|i| format!("(local.set {i} (i64.add (local.get {i}) (i64.const 1)))")).collect();
        let (open, close) = ("loop ".repeat(branches), "end ".repeat(branches));
        let function =
            format!("(func (local {}) {open} {sets} (br_if 0 (i64.eqz (local.get 0))) {close})", "i64 ".repeat(locals));
        wat::parse_str(format!("(component (core module {}))", function.repeat(functions))).unwrap()
    };
    assert_eq!(problems(&module(1, 9_000, 40_000)), ["too-large", "too-large"]);
    assert_eq!(problems(&module(1, 100, 10_001)), ["too-large"]);
    assert_eq!(problems(&module(30, 900, 1_000)), ["too-large"]);
    // As much as a large policy has: it compiles, and is refused only for not being a policy.
    assert_eq!(problems(&module(1, 395, 1_000)), ["missing-export", "missing-export", "missing-export"]);
}

#[test]
fn a_bad_schema_is_refused() {
    assert_eq!(problems(&Guest { schema: "{", ..Guest::default() }.component()), ["schema"]);
    assert_eq!(problems(&Guest { schema: r#"{"type":"no"}"#, ..Guest::default() }.component()), ["schema"]);
    // A reference to elsewhere is never followed, and one to itself would be for ever.
    for schema in [r#"{"$ref":"http://192.0.2.1/s"}"#, r##"{"allOf":[{"$ref":"#"}]}"##] {
        assert_eq!(problems(&Guest { schema, ..Guest::default() }.component()), ["schema"]);
    }
}

#[test]
fn modules_that_cannot_be_frozen_still_decide() {
    let fields = "(table $t 1 funcref) (func $grow (drop (table.grow $t (ref.null func) (i32.const 1))))";
    let guest = Guest { fields, ..Guest::default() };
    let bytes = guest.component();
    let module = load(&bytes).unwrap();
    let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
    assert!(policy.freeze(&module, &bytes, None).is_err());
    assert_eq!(policy.check(&request(), &call()).outcome, Ok(Verdict::Allow));
    // What Wizer panics over is an error here too.
    let fields = "(global $v (mut v128) (v128.const i64x2 1 2))";
    let check = "(global.set $v (v128.const i64x2 0 0)) i32.const 200";
    let guest = Guest { fields, check, ..Guest::default() };
    let bytes = guest.component();
    let module = load(&bytes).unwrap();
    let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
    assert!(policy.freeze(&module, &bytes, None).is_err());
}

#[test]
fn others_are_undisturbed_and_memory_comes_back() {
    let good = Guest::default().policy();
    let grow =
        "(block $full (loop $more (br_if $full (i32.eq (memory.grow (i32.const 16)) (i32.const -1))) (br $more)))
        (memory.fill (i32.const 65536) (i32.const 1) (i32.const 8000000)) unreachable";
    let bad: Vec<_> = [ENDLESS, "unreachable", grow, "(call $check (local.get 0)) (drop) (call $check (local.get 0))"]
        .map(|check| Guest { check, ..Guest::default() }.policy())
        .into();
    let bad_round = || bad.iter().for_each(|policy| assert!(policy.check(&request(), &call()).outcome.is_err()));
    // Warm the pool, so that what is measured is what comes on top.
    (0..20).for_each(|_| bad_round());
    let before = resident_kib();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..50).for_each(|_| bad_round());
            done.store(true, Ordering::SeqCst);
        });
        let mut decisions = 0_u32;
        while !done.load(Ordering::SeqCst) || decisions < 1_000 {
            assert_eq!(good.check(&request(), &call()).outcome, Ok(Verdict::Allow));
            decisions += 1;
        }
    });
    let after = resident_kib();
    assert!(after < before + 32 * 1024, "{before} KiB before, {after} KiB after");
}

#[test]
fn two_thousand_activations_leave_no_memory_behind() {
    let guest = Guest::default();
    let module = load(&guest.component()).unwrap();
    let round = || {
        let policy = Policy::configure(&module, World::Request, &json!({})).unwrap();
        assert_eq!(policy.check(&request(), &call()).outcome, Ok(Verdict::Allow));
    };
    (0..100).for_each(|_| round());
    let before = resident_kib();
    (0..2_000).for_each(|_| round());
    let after = resident_kib();
    assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB after");
}

/// Resident memory of this process.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_contract_compiles_for_both_worlds() {
    let resolve = contract();
    for world in ["request-policy", "admission-policy", "pure-request-policy", "pure-admission-policy"] {
        let package = resolve.packages.iter().next_back().unwrap().0;
        assert!(resolve.select_world(&[package], Some(world)).is_ok());
    }
    assert_eq!(policy_build::component::FIXTURES_SECTION, eventflow_policy_fixture::SECTION);
    assert_eq!(everything().len(), 4);
}
