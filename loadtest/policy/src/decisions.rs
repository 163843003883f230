//! Decisions: fresh, reused, native, on demand; many policies; many threads.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use policy_engine::counters::Lane;
use policy_engine::set::{Binding, Entry, Scope};
use policy_engine::types::{FailureMode, Pair, Rate, RequestView, SettingsProblem, Verdict};
use policy_engine::{Call, Counters, EngineOptions, Module, Policy, PolicyEngine, PolicySet, World};
use serde_json::json;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use crate::measure::Times;

/// Prints the table of decisions.
pub fn measure(bytes: &[u8], count: usize) -> anyhow::Result<()> {
    let view = view()?;
    println!("| one decision, 12 headers in | p50 | p99 | mean |\n|---|---|---|---|");
    Times::of(count, || drop(black_box(native(black_box(&view))))).row("native Rust function");
    reused(bytes, &view, count)?;
    let best = policy(bytes, EngineOptions::default(), true)?;
    single(&best, &view, count, "**fresh instance, frozen image, pool**");
    let plain = policy(bytes, EngineOptions::default(), false)?;
    single(&plain, &view, count, "fresh instance, pool, configured in each decision");
    let no_scan = policy(bytes, EngineOptions { pagemap_scan: false, ..EngineOptions::default() }, true)?;
    single(&no_scan, &view, count, "fresh instance, frozen image, pool without PAGEMAP_SCAN");
    let on_demand = policy(bytes, EngineOptions { pool: false, ..EngineOptions::default() }, true)?;
    single(&on_demand, &view, count / 4, "fresh instance, frozen image, allocated on demand");

    println!("\n| policies bound | p50 | p99 | mean |\n|---|---|---|---|");
    for policies in [1, 2, 5, 20] {
        let set = set(&best, policies)?;
        let call = call();
        Times::of(count / policies, || drop(black_box(set.check(&view, &call)))).row(&policies.to_string());
    }

    println!("\n| decisions per second | 1 thread | 2 threads | ratio |\n|---|---|---|---|");
    for (what, policy) in
        [("frozen image, pool", &best), ("pool without PAGEMAP_SCAN", &no_scan), ("on demand", &on_demand)]
    {
        let [one, two] = [1, 2].map(|threads| throughput(policy, &view, threads));
        println!("| {what} | {one:.0} | {two:.0} | {:.2} |", two / one);
    }
    Ok(())
}

fn single(policy: &Policy, view: &RequestView, count: usize, what: &str) {
    let call = call();
    Times::of(count, || assert!(black_box(policy.check(view, &call)).outcome.is_ok())).row(what);
}

fn policy(bytes: &[u8], options: EngineOptions, freeze: bool) -> anyhow::Result<Policy> {
    let engine = PolicyEngine::new(options)?;
    if options == EngineOptions::default() && !engine.fallbacks().is_empty() {
        println!("note: this machine lacks {:?}", engine.fallbacks());
    }
    let module = Module::load(&engine, bytes, &[].into(), None)?;
    let policy = Policy::configure(&module, World::Request, &json!({}))?;
    if freeze { Ok(policy.freeze(&module, bytes, None)?) } else { Ok(policy) }
}

fn set(policy: &Policy, policies: usize) -> anyhow::Result<PolicySet> {
    // Frozen already, so this is the same image under another handle.
    let policy = Arc::new(policy.clone());
    let entry = |i| {
        Entry::One(Binding {
            name: format!("b{i}").into(),
            scope: Scope::Everyone,
            order: 0,
            failure: FailureMode::Closed,
            active: Some(policy.clone()),
            trial: None,
        })
    };
    Ok(PolicySet::new(1, World::Request, (0..policies).map(entry).collect())?)
}

/// The same decision without a sandbox, so that what remains is the sandbox.
fn native(view: &RequestView) -> Verdict {
    let costs: BTreeMap<String, u32> = BTreeMap::new();
    if view.role == "operator" {
        return Verdict::Allow;
    }
    let limits = view.tenant.limits;
    Verdict::Rate(Rate {
        name: "requests".to_owned(),
        key: String::new(),
        cost: costs.get(&view.action).copied().unwrap_or(1).min(limits.burst),
        limit: limits.requests_per_second,
        burst: limits.burst,
        window_ms: 1000,
    })
}

/// One instance for all decisions: what isolation between decisions costs is the difference.
fn reused(bytes: &[u8], view: &RequestView, count: usize) -> anyhow::Result<()> {
    let mut config = wasmtime::Config::new();
    config.concurrency_support(false).epoch_interruption(true);
    let engine = Engine::new(&config).map_err(|e| anyhow::anyhow!("{e:#}"))?;
    let measured = || -> wasmtime::Result<()> {
        let component = Component::new(&engine, bytes)?;
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = Linker::new(&engine).instantiate(&mut store, &component)?;
        let configure =
            instance.get_typed_func::<(&str,), (Result<(), Vec<SettingsProblem>>,)>(&mut store, "configure")?;
        drop(configure.call(&mut store, ("{}",))?);
        let check = instance.get_typed_func::<(&RequestView,), (Verdict,)>(&mut store, "check")?;
        let times = Times::of(count, || drop(black_box(check.call(&mut store, (view,)))));
        times.row("reused instance (no isolation between decisions)");
        Ok(())
    };
    measured().map_err(|e| anyhow::anyhow!("{e:#}"))
}

fn throughput(policy: &Policy, view: &RequestView, threads: usize) -> f64 {
    let time = Duration::from_secs(2);
    let decided: usize = thread::scope(|scope| {
        let thread = || {
            let (call, start, mut decided) = (call(), Instant::now(), 0);
            while start.elapsed() < time {
                for _ in 0..64 {
                    drop(black_box(policy.check(view, &call)));
                }
                decided += 64;
            }
            decided
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(thread)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or(0)).sum()
    });
    decided as f64 / time.as_secs_f64()
}

/// Surroundings of a decision.
pub fn call() -> Call {
    Call {
        now_ms: 1_700_000_000_000,
        tenant: "acme".into(),
        counters: Arc::new(Counters::default()),
        lane: Lane::Peek,
        facts: None,
    }
}

/// A request with 12 headers.
pub fn view() -> anyhow::Result<RequestView> {
    let case = json!([{"name": "n", "request": {}, "expect": "allow"}]).to_string();
    let cases = eventflow_policy_fixture::parse(&case).map_err(anyhow::Error::msg)?;
    let mut view: RequestView = serde_json::from_value(cases[0].request_view().context("a request")?)?;
    view.headers =
        (0..12).map(|i| Pair { name: format!("x-header-{i}"), value: format!("value number {i}") }).collect();
    Ok(view)
}
