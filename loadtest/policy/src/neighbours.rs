//! What a bad policy costs the requests that it does not judge.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use policy_engine::types::{Capability, RequestView};
use policy_engine::{EngineOptions, Module, Policy, PolicyEngine, World};
use serde_json::json;

use crate::decisions::{call, view};
use crate::measure::{Times, micros, resident_kib};

/// Prints, for each way to misbehave, the decisions of a good policy on one thread beside a bad one on another.
pub fn measure(good: &[u8], bad: &[u8], count: usize) -> anyhow::Result<()> {
    let engine = PolicyEngine::new(EngineOptions::default())?;
    let module = Module::load(&engine, good, &[].into(), None)?;
    let good = Policy::configure(&module, World::Request, &json!({}))?.freeze(&module, good, None)?;
    let module = Module::load(&engine, bad, &[Capability::Log].into(), None)?;
    let view = view()?;
    println!("\n| beside a policy that | p50 | p99 | bad decisions | resident, KiB more |\n|---|---|---|---|---|");
    row("is not there", None, &good, &view, count);
    for how in ["loop", "recurse", "memory", "panic", "output", "log", "behave"] {
        let policy = Policy::configure(&module, World::Request, &json!({"how": how}))?.freeze(&module, bad, None)?;
        // The first decision of each brings its image into memory.
        drop(policy.check(&view, &call()));
        row(&format!("is told to `{how}`"), Some(&policy), &good, &view, count);
    }
    Ok(())
}

fn row(what: &str, bad: Option<&Policy>, good: &Policy, view: &RequestView, count: usize) {
    let (done, before) = (AtomicBool::new(false), resident_kib("VmRSS"));
    let (times, decided) = thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let (call, mut decided) = (call(), 0_u64);
            while let Some(bad) = bad.filter(|_| !done.load(Ordering::Relaxed)) {
                drop(black_box(bad.check(view, &call)));
                decided += 1;
            }
            decided
        });
        let call = call();
        let times = Times::of(count, || drop(black_box(good.check(view, &call))));
        done.store(true, Ordering::Relaxed);
        (times, beside.join().unwrap_or_default())
    });
    let more = resident_kib("VmRSS").saturating_sub(before);
    println!("| {what} | {} | {} | {decided} | {more} |", micros(times.at(0.5)), micros(times.at(0.99)));
}
