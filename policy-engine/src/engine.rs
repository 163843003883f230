//! wasmtime's settings, the pool and the epoch ticker. All of wasmtime's knobs are turned here and nowhere else.
//!
//! One engine per trust class: a guest that broke out of its sandbox would have the other guests of its engine, so
//! modules of operators and modules of tenants should never share one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy};

use crate::compiler::{CompileError, Compiler};
use crate::limits;

/// What a caller may choose. The defaults are right for the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Whether instances come from a pool. Off: memory is mapped for each decision, which does not scale past one
    /// thread (the process has one lock for its mappings). For measurements, and for machines where it must be.
    pub pool: bool,
    /// Whether the kernel's PAGEMAP_SCAN may be used to find what an instance dirtied.
    pub pagemap_scan: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { pool: true, pagemap_scan: true }
    }
}

/// What this machine does not have. Decisions are right all the same and slower, so each is worth a loud metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The kernel has no PAGEMAP_SCAN (Linux before 6.7): a used memory is reset by copying.
    NoPagemapScan,
    /// The address space for unchecked memory accesses could not be reserved: the pool is small and guests check bounds.
    SmallPool,
    /// No pool could be reserved: every decision maps its memory anew.
    NoPool,
}

impl Fallback {
    /// As a metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPagemapScan => "no-pagemap-scan",
            Self::SmallPool => "small-pool",
            Self::NoPool => "no-pool",
        }
    }
}

/// The engine could not be made at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused the settings or the machine.
    #[error("the WebAssembly engine did not start")]
    Start(#[source] wasmtime::Error),
    /// The ticker's thread did not start.
    #[error("the epoch ticker did not start")]
    Ticker(#[source] std::io::Error),
    /// The compiling threads did not start.
    #[error("the compiling threads did not start")]
    Compiler(#[source] rayon::ThreadPoolBuildError),
}

/// An engine with its pool and its ticker. Cheap to clone; the ticker ends with the last clone and the last module.
#[derive(Clone)]
pub struct PolicyEngine {
    engine: Engine,
    ticker: Arc<Ticker>,
    compiler: Arc<Compiler>,
    fallbacks: Arc<[Fallback]>,
}

impl PolicyEngine {
    /// Starts an engine, on a machine that lacks something with [`PolicyEngine::fallbacks`].
    ///
    /// # Errors
    /// Not even the simplest settings work.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let mut fallbacks = Vec::new();
        let scan = options.pagemap_scan && PoolingAllocationConfig::is_pagemap_scan_available();
        let pools: &[_] = if options.pool { &[Pool::Large, Pool::Small] } else { &[] };
        let pooled = pools.iter().find_map(|pool| {
            let engine = Engine::new(&config(Some((*pool, scan))));
            engine
                .inspect_err(|e| tracing::warn!(pool = ?pool, error = %format!("{e:#}"), "the pool was not reserved"))
                .ok()
                .map(|e| (*pool, e))
        });
        let engine = match pooled {
            Some((pool, engine)) => {
                if pool == Pool::Small {
                    fallbacks.push(Fallback::SmallPool);
                }
                if !scan {
                    fallbacks.push(Fallback::NoPagemapScan);
                }
                engine
            }
            None => {
                fallbacks.push(Fallback::NoPool);
                Engine::new(&config(None)).map_err(EngineError::Start)?
            }
        };
        let ticker = Ticker::start(&engine).map_err(EngineError::Ticker)?;
        let compiler = Compiler::start().map_err(EngineError::Compiler)?;
        Ok(Self { engine, ticker: Arc::new(ticker), compiler: Arc::new(compiler), fallbacks: fallbacks.into() })
    }

    /// What this machine does not have; empty on a good day.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// wasmtime's engine.
    pub(crate) fn wasmtime(&self) -> &Engine {
        &self.engine
    }

    /// Compiles a component in the background and waits for it.
    pub(crate) fn compile(&self, bytes: &[u8]) -> Result<Component, CompileError> {
        self.compiler.compile(&self.engine, bytes)
    }

    /// What sees to deadlines.
    pub(crate) fn ticker(&self) -> &Arc<Ticker> {
        &self.ticker
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    /// Each memory has 4 GiB of address space, so that guests need no bounds checks.
    Large,
    /// Each memory has what it may use at most, and guests check bounds.
    Small,
}

fn config(pool: Option<(Pool, bool)>) -> Config {
    let mut config = Config::new();
    // Fast code matters more than fast compilation: a module is compiled once and runs for months.
    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed).parallel_compilation(true);
    // The same answer on every machine: no payload of a NaN may differ between replicas.
    config.cranelift_nan_canonicalization(true);
    config.wasm_component_model(true);
    // Policies answer at once. Without async the component calls are three times as fast and no future can be dropped
    // in the middle of a call.
    config.concurrency_support(false);
    // Off: more than a policy needs is more than must be right.
    config.wasm_memory64(false).wasm_relaxed_simd(false).wasm_custom_page_sizes(false).wasm_wide_arithmetic(false);
    // On: what the compiler puts between two components of one policy copies from memory to memory, and without this it
    // panics over such policies (JavaScript's, whose WASI is a component of traps).
    config.wasm_multi_memory(true);
    // A deadline by epoch costs two instructions per loop and call; fuel costs more and counts instead of measuring.
    config.epoch_interruption(true);
    config.max_wasm_stack(limits::STACK_BYTES);
    // A trap's backtrace would be read by nobody: it names the guest's functions.
    config.wasm_backtrace_max_frames(None);
    // The image of a configured guest is mapped copy-on-write: starting from it costs a page fault per page it touches.
    config.memory_init_cow(true);
    match pool {
        Some((size, scan)) => {
            if size == Pool::Small {
                config.memory_reservation(limits::ADMISSION.memory_bytes as u64).memory_guard_size(64 << 10);
            }
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pooling(size, scan)));
        }
        None => {
            // Whoever could not reserve a pool has little address space.
            config.memory_reservation(limits::ADMISSION.memory_bytes as u64).memory_guard_size(64 << 10);
            config.memory_reservation_for_growth(0);
        }
    }
    config
}

fn pooling(size: Pool, scan: bool) -> PoolingAllocationConfig {
    let slots = if size == Pool::Large { limits::POOL_SLOTS } else { limits::POOL_SLOTS / 4 };
    let mut pooling = PoolingAllocationConfig::default();
    pooling
        .total_component_instances(slots)
        .total_core_instances(slots * 4)
        .total_memories(slots)
        .total_tables(slots * 4)
        .max_core_instances_per_component(limits::CORE_INSTANCES)
        .max_memories_per_component(limits::MEMORIES)
        .max_tables_per_component(limits::TABLES)
        .max_memory_size(limits::ADMISSION.memory_bytes)
        .table_elements(limits::REQUEST.table_elements)
        // Only the pages an instance dirtied are reset, by asking the kernel which; without that they are copied.
        .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No })
        .linear_memory_keep_resident(if scan { limits::KEEP_RESIDENT } else { limits::KEEP_RESIDENT_COPIED })
        .table_keep_resident(64 << 10)
        // A slot keeps the image of the policy it served last; with as many as slots no decision maps an image anew.
        .max_unused_warm_slots(slots);
    pooling
}

/// Advances the engine's epoch while guests run, and sleeps while none does, because wake-ups of an idle machine cost
/// others. It holds the engine weakly: it must not keep alive what it watches.
pub(crate) struct Ticker {
    /// Set by whoever is about to run a guest, cleared by every tick.
    used: Arc<AtomicBool>,
    /// True while the thread sleeps without a time-out.
    asleep: Arc<AtomicBool>,
    thread: Thread,
}

impl Ticker {
    fn start(engine: &Engine) -> std::io::Result<Self> {
        let (used, asleep) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (weak, flags) = (engine.weak(), (used.clone(), asleep.clone()));
        let idle_ticks = limits::TICKER_IDLE.as_micros() / limits::TICK.as_micros();
        let handle = thread::Builder::new().name("policy-epoch".to_owned()).spawn(move || {
            let (used, asleep) = flags;
            let mut idle = 0;
            loop {
                thread::sleep(limits::TICK);
                // Missed ticks are not made up for: a machine that stood still has not used the guests' time.
                match weak.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
                idle = if used.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
                if idle > idle_ticks {
                    // Told first, asked again then: of a thread that sets `used` and this one, one sees the other.
                    asleep.store(true, Ordering::SeqCst);
                    if !used.load(Ordering::SeqCst) {
                        // A bounded sleep, so that the thread ends some time after its engine.
                        thread::park_timeout(limits::TICKER_IDLE * 30);
                    }
                    asleep.store(false, Ordering::SeqCst);
                    idle = 0;
                }
            }
        })?;
        Ok(Self { used, asleep, thread: handle.thread().clone() })
    }

    /// Says that a guest is about to run, so that its deadline will be seen.
    pub fn awake(&self) {
        // Mostly the flag is set already since the last tick, and a shared line is only read. A tick ago it was seen
        // set by the ticker, which therefore stays awake for longer than any deadline.
        if !self.used.load(Ordering::SeqCst) {
            self.used.store(true, Ordering::SeqCst);
        }
        if self.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // It sees that the engine is gone and ends.
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_optional() {
        let engine = PolicyEngine::new(EngineOptions { pool: false, ..EngineOptions::default() }).unwrap();
        assert_eq!(engine.fallbacks(), [Fallback::NoPool]);
    }

    #[test]
    fn pagemap_scan_is_optional() {
        let engine = PolicyEngine::new(EngineOptions { pagemap_scan: false, ..EngineOptions::default() }).unwrap();
        assert!(engine.fallbacks().contains(&Fallback::NoPagemapScan));
    }
}
