//! Activation, roll-back, resident memory, runaway guests.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy_engine::counters::Lane;
use policy_engine::set::{Binding, Entry, Scope};
use policy_engine::types::{AdmissionView, Capability, FailureMode, RequestView};
use policy_engine::{Cache, Call, Counters, EngineOptions, Module, Policy, PolicyEngine, PolicySet, Published, World};
use serde_json::json;

use crate::measure::{Times, micros, resident_kib};

/// Prints the table of a policy's life.
pub fn measure(bytes: &[u8], resident: usize) -> anyhow::Result<()> {
    let engine = PolicyEngine::new(EngineOptions::default())?;
    println!("\n| a module of {} KiB | time |\n|---|---|", bytes.len() / 1024);
    let start = Instant::now();
    let module = Module::load(&engine, bytes, &[].into(), None)?;
    println!("| upload: validate, compile, describe | {} |", micros(start.elapsed()));
    let start = Instant::now();
    let policy = Policy::configure(&module, World::Admission, &json!({}))?;
    println!("| new settings in force (configured in each decision) | {} |", micros(start.elapsed()));
    let start = Instant::now();
    let frozen = Arc::new(policy.freeze(&module, bytes, None)?);
    println!("| new settings frozen, in the background | {} |", micros(start.elapsed()));
    rollback(&frozen)?;
    cached_start(&engine, bytes)?;
    memory(&module, bytes, resident)
}

/// How long a guest runs that never returns.
pub fn runaway(bytes: &[u8]) -> anyhow::Result<()> {
    let engine = PolicyEngine::new(EngineOptions::default())?;
    let module = Module::load(&engine, bytes, &[Capability::Log].into(), None)?;
    let policy = Policy::configure(&module, World::Request, &json!({"how": "loop"}))?;
    let case = json!([{"name": "n", "request": {}, "expect": "allow"}]).to_string();
    let cases = eventflow_policy_fixture::parse(&case).map_err(anyhow::Error::msg)?;
    let view: RequestView = serde_json::from_value(cases[0].request_view().unwrap_or_default())?;
    let call = call();
    println!("\n| | p50 | p99 | mean |\n|---|---|---|---|");
    let limit = policy_engine::limits::REQUEST.deadline.as_millis();
    let mut computing = Vec::new();
    let times = Times::of(200, || {
        let before = computed();
        assert!(policy.check(&view, &call).outcome.is_err());
        computing.push(computed() - before);
    });
    times.row(&format!("a guest that never returns, deadline {limit} ms, by the clock"));
    Times::from(computing).row("the same, time it computed: what the deadline is about");
    Ok(())
}

/// Time that this thread has computed since it began.
fn computed() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn call() -> Call {
    Call { now_ms: 0, tenant: "acme".into(), counters: Arc::new(Counters::default()), lane: Lane::Peek, facts: None }
}

fn rollback(policy: &Arc<Policy>) -> anyhow::Result<()> {
    let set = |revision| -> anyhow::Result<Arc<PolicySet>> {
        let binding = Binding {
            name: "b".into(),
            scope: Scope::Everyone,
            order: 0,
            failure: FailureMode::Closed,
            active: Some(policy.clone()),
            trial: None,
        };
        Ok(Arc::new(PolicySet::new(revision, World::Admission, vec![Entry::One(binding)])?))
    };
    let sets = [set(1)?, set(2)?];
    let published = Published::new(PolicySet::new(0, World::Admission, Vec::new())?);
    let mut turn = 0;
    let times = Times::of(10_000, || {
        drop(published.publish(sets[turn % 2].clone()));
        turn += 1;
    });
    println!("\n| | p50 | p99 | mean |\n|---|---|---|---|");
    times.row("roll-back: publish an earlier set");
    Ok(())
}

fn cached_start(engine: &PolicyEngine, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("eventflow-loadtest-policy-{}", std::process::id()));
    let cache = Cache::open(&folder)?;
    let start_ten = || -> anyhow::Result<()> {
        for i in 0..10 {
            let module = Module::load(engine, bytes, &[].into(), Some(&cache))?;
            let settings = json!({"everyone": {"defaults": {"cpuRequest": format!("{}m", i + 1)}}});
            Policy::configure(&module, World::Admission, &settings)?.freeze(&module, bytes, Some(&cache))?;
        }
        Ok(())
    };
    start_ten()?;
    let start = Instant::now();
    start_ten()?;
    println!(
        "\n| start with 10 cached policies: load, configure, frozen images | {} |\n|---|---|",
        micros(start.elapsed())
    );
    fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Keeps policies with settings of their own, each asked once, and says what each holds beyond its machine code.
fn memory(module: &Module, bytes: &[u8], resident: usize) -> anyhow::Result<()> {
    let call = call();
    let case = json!([{"name": "n", "admission": {}, "expect": "allow"}]).to_string();
    let cases = eventflow_policy_fixture::parse(&case).map_err(anyhow::Error::msg)?;
    let view: AdmissionView = serde_json::from_value(cases[0].admission_view().unwrap_or_default())?;
    let keep = |i: usize| -> anyhow::Result<Policy> {
        let settings = json!({"everyone": {"defaults": {"cpuRequest": format!("{}m", i + 1)}}});
        let policy = Policy::configure(module, World::Admission, &settings)?.freeze(module, bytes, None)?;
        assert!(policy.admit(&view, &call).outcome.is_ok());
        Ok(policy)
    };
    // What the compiler takes for its work, it takes once.
    for i in 0..5 {
        drop(keep(resident + i)?);
    }
    let before = (resident_kib("VmRSS"), resident_kib("RssShmem"));
    let mut policies = Vec::with_capacity(resident);
    for i in 0..resident {
        policies.push(keep(i)?);
    }
    let (rss, shmem) = (resident_kib("VmRSS") - before.0, resident_kib("RssShmem") - before.1);
    let code: usize = policies.iter().map(Policy::code_bytes).sum::<usize>() / 1024;
    let beyond = rss.saturating_sub(code as u64);
    println!("\n| {resident} resident policies, frozen, settings of their own | KiB |\n|---|---|");
    println!(
        "| resident memory they added | {rss} |\n| of it machine code | {code} |\n| of it images in use | {shmem} |"
    );
    println!("| beyond code, for 1,000 | {} |", beyond * 1000 / resident.max(1) as u64);
    Ok(())
}
