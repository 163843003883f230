//! What the host does for a guest that was granted it. A guest here allows if all it saw was right, and traps if not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use policy_engine::counters::Lane;
use policy_engine::host::TenantFacts;
use policy_engine::types::{Amounts, FunctionSummary, Level, Verdict};
use policy_engine::{Call, Capability, Failure, Module, Policy, World};
use serde_json::json;

use crate::common::{Guest, call, engine, load, request};

const NOW: &str = r#"(import "eventflow:policy/clock@1.0.0" "now-ms" (func $now (result i64)))"#;
const TAKE: &str =
    r#"(import "eventflow:policy/counters@1.0.0" "take" (func $take (param i32 i32 i32 i32 i32 i32 i32)))"#;
const CONTEXT: &str = r#"(import "eventflow:policy/context@1.0.0" "used" (func $used (param i32)))
    (import "eventflow:policy/context@1.0.0" "hard" (func $hard (param i32)))
    (import "eventflow:policy/context@1.0.0" "functions" (func $functions (param i32)))"#;

fn policy(fields: &str, capabilities: &[u8], check: &str) -> Policy {
    let guest = Guest { fields, capabilities, check, ..Guest::default() };
    let module = load(&guest.component()).unwrap();
    Policy::configure(&module, World::Request, &json!({})).unwrap()
}

/// Traps unless the condition holds.
fn must(condition: &str) -> String {
    format!("(if (i32.eqz {condition}) (then unreachable))")
}

#[test]
fn the_clock_stands_still_during_a_decision() {
    let at = "(i64.const 1700000000000)";
    let check = format!(
        "{} {} i32.const 200",
        must(&format!("(i64.eq (call $now) {at})")),
        must(&format!("(i64.eq (call $now) {at})"))
    );
    assert_eq!(policy(NOW, &[1], &check).check(&request(), &call()).outcome, Ok(Verdict::Allow));
}

#[test]
fn counters_are_the_tenants_and_the_hosts() {
    // Takes one token of two that come back once an hour; traps if there was none.
    let take = "(call $take (i32.const 16) (i32.const 5) (i32.const 1) (i32.const 2) (i32.const 2) (i32.const 3600000) (i32.const 1024))";
    let check = format!("{take} {} i32.const 200", must("(i32.load8_u (i32.const 1024))"));
    let policy = policy(TAKE, &[2], &check);
    let here = call();
    let given = |call: &Call| policy.check(&request(), call).outcome.is_ok();
    let peek = Call { lane: Lane::Peek, ..here.clone() };
    assert!(given(&peek) && given(&peek) && given(&peek), "a look takes nothing");
    assert!(given(&here) && given(&here) && !given(&here) && !given(&peek));
    assert!(given(&Call { lane: Lane::Settled, ..here.clone() }), "what paid is not asked again");
    assert!(given(&Call { lane: Lane::Shadow, ..here.clone() }), "a shadow has its own");
    assert!(given(&Call { tenant: "other".into(), ..here }), "so has another tenant");
}

#[test]
fn context_is_what_the_tenant_has_and_read_once() {
    let load_wide = |at: u32| format!("(i64.load (i32.const {at}))");
    let check = format!(
        "(call $used (i32.const 1024)) {} {} (call $hard (i32.const 1024)) {} (call $functions (i32.const 1024)) {} {} i32.const 200",
        must(&format!("(i64.eq {} (i64.const 7))", load_wide(1024))),
        must(&format!("(i64.eq {} (i64.const 2))", load_wide(1024 + 40))),
        must(&format!("(i64.eq {} (i64.const 50))", load_wide(1024 + 32))),
        must("(i32.eq (i32.load (i32.const 1028)) (i32.const 2))"),
        // The first letter of the first name.
        must("(i32.eq (i32.load8_u (i32.load (i32.load (i32.const 1024)))) (i32.const 97))"),
    );
    let policy = policy(CONTEXT, &[3], &check);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let facts = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let function = |name: &str| FunctionSummary {
            name: name.to_owned(),
            image: "i:1".to_owned(),
            replicas: 1,
            phase: "Running".to_owned(),
        };
        TenantFacts {
            used: Amounts { cpu_requests_milli: 7, functions: 2, ..Amounts::NONE },
            hard: Amounts { pods: 50, ..Amounts::NONE },
            functions: vec![function("alpha"), function("beta")],
        }
    };
    let call = Call { facts: Some(Arc::new(facts)), ..call() };
    assert_eq!(policy.check(&request(), &call).outcome, Ok(Verdict::Allow));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Whoever does not ask does not make the gateway look.
    assert_eq!(Guest::default().policy().check(&request(), &call).outcome, Ok(Verdict::Allow));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn log_lines_come_with_the_decision_also_of_one_that_fails() {
    let fields = r#"(import "eventflow:policy/log@1.0.0" "write" (func $log (param i32 i32 i32)))"#;
    let decision = policy(fields, &[0], "(call $log (i32.const 2) (i32.const 16) (i32.const 5)) unreachable")
        .check(&request(), &call());
    assert!(matches!(decision.outcome, Err(Failure::Trapped(_))));
    assert_eq!(
        decision.log.iter().map(|line| (line.level, line.message.as_str())).collect::<Vec<_>>(),
        [(Level::Warn, "guest")]
    );
}

#[test]
fn each_capability_is_granted_by_itself() {
    for (capability, fields, check) in [
        (Capability::Clock, NOW, "(drop (call $now)) i32.const 200"),
        (Capability::Context, CONTEXT, "(call $used (i32.const 1024)) i32.const 200"),
    ] {
        let bytes = Guest { fields, check, capabilities: &[0, 1, 2, 3], ..Guest::default() }.component();
        for granted in Capability::ALL {
            let outcome = Module::load(engine(), &bytes, &[granted].into(), None);
            assert_eq!(outcome.is_ok(), granted == capability, "{granted:?} for {capability:?}");
        }
    }
}
