//! What the host does for a guest during a call: the four capabilities, and the bookkeeping that bounds them. A
//! capability is linked only if the module imports it and the operator granted it, so a guest cannot so much as name
//! another.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmtime::component::Linker;
use wasmtime::{Engine, ResourceLimiter, StoreContextMut};

use crate::counters::{Counters, Lane, Owner};
use crate::limits::{self, Limits};
use crate::types::{Amounts, Capability, FunctionSummary, Level, PACKAGE, Taken};

/// What the tenant at hand has, for the `context` capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantFacts {
    /// What its functions use now.
    pub used: Amounts,
    /// What they may use at most.
    pub hard: Amounts,
    /// Its functions by name; the first [`limits::CONTEXT_FUNCTIONS`] are handed over.
    pub functions: Vec<FunctionSummary>,
}

/// Asks for the facts of the tenant at hand. Called at most once per call into a guest, and only if the guest asks.
pub type FactsSource = Arc<dyn Fn() -> TenantFacts + Send + Sync>;

/// One line a policy wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// The text, cut at the limit.
    pub message: String,
}

/// Why the host ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostRefusal {
    #[error("more calls into the host than a decision may make")]
    TooManyCalls,
}

/// What a guest's call may see of the world outside, already narrowed to one tenant and one policy.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub now_ms: u64,
    pub owner: Owner,
    pub lane: Lane,
    pub counters: Arc<Counters>,
    pub facts: Option<FactsSource>,
}

/// The data of a store: one call into one guest.
pub(crate) struct CallState {
    limits: &'static Limits,
    around: Surroundings,
    facts: Option<TenantFacts>,
    calls: u32,
    pub log: Vec<LogLine>,
    log_bytes: usize,
    pub log_dropped: u32,
    /// Bytes of its memories. They only grow.
    pub memory_bytes: usize,
    /// Whether the guest asked for more than it may have.
    pub memory_refused: bool,
}

impl CallState {
    pub fn new(limits: &'static Limits, around: Surroundings) -> Self {
        Self {
            limits,
            around,
            facts: None,
            calls: 0,
            log: Vec::new(),
            log_bytes: 0,
            log_dropped: 0,
            memory_bytes: 0,
            memory_refused: false,
        }
    }

    /// Counts a call into the host.
    fn enter(&mut self) -> Result<(), wasmtime::Error> {
        self.calls += 1;
        if self.calls > self.limits.host_calls { Err(HostRefusal::TooManyCalls.into()) } else { Ok(()) }
    }

    fn write(&mut self, level: Level, message: String) {
        let room = self.limits.log_bytes - self.log_bytes;
        // An empty line costs too, or a flood of them would be free.
        let cost = message.len().max(16);
        if cost > room {
            self.log_dropped = self.log_dropped.saturating_add(1);
            return;
        }
        self.log_bytes += cost;
        self.log.push(LogLine { level, message });
    }

    fn facts(&mut self) -> &TenantFacts {
        let source = &self.around.facts;
        self.facts.get_or_insert_with(|| match source {
            Some(source) => source(),
            None => TenantFacts { used: Amounts::NONE, hard: Amounts::NONE, functions: Vec::new() },
        })
    }
}

impl ResourceLimiter for CallState {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let whole = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        let fits = whole <= self.limits.memory_bytes;
        if fits {
            self.memory_bytes = whole;
        } else {
            self.memory_refused = true;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= self.limits.table_elements)
    }

    fn instances(&self) -> usize {
        limits::CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        limits::TABLES as usize
    }

    fn memories(&self) -> usize {
        limits::MEMORIES as usize
    }
}

/// A linker with `granted` and nothing else.
pub(crate) fn linker(engine: &Engine, granted: &BTreeSet<Capability>) -> wasmtime::Result<Linker<CallState>> {
    let mut linker = Linker::new(engine);
    for capability in granted {
        let mut interface = linker.instance(&format!("{PACKAGE}/{}@1.0.0", capability.interface()))?;
        match capability {
            Capability::Log => {
                interface.func_wrap("write", |mut store: StoreContextMut<'_, CallState>, (level, message)| {
                    store.data_mut().enter()?;
                    store.data_mut().write(level, message);
                    Ok(())
                })?;
            }
            Capability::Clock => {
                interface.func_wrap("now-ms", |mut store: StoreContextMut<'_, CallState>, ()| {
                    store.data_mut().enter()?;
                    Ok((store.data().around.now_ms,))
                })?;
            }
            Capability::Counters => interface.func_wrap("take", take)?,
            Capability::Context => {
                interface.func_wrap("used", |mut store: StoreContextMut<'_, CallState>, ()| {
                    store.data_mut().enter()?;
                    Ok((store.data_mut().facts().used,))
                })?;
                interface.func_wrap("hard", |mut store: StoreContextMut<'_, CallState>, ()| {
                    store.data_mut().enter()?;
                    Ok((store.data_mut().facts().hard,))
                })?;
                interface.func_wrap("functions", |mut store: StoreContextMut<'_, CallState>, ()| {
                    store.data_mut().enter()?;
                    let functions = &store.data_mut().facts().functions;
                    Ok((functions.iter().take(limits::CONTEXT_FUNCTIONS).cloned().collect::<Vec<_>>(),))
                })?;
            }
        }
    }
    Ok(linker)
}

/// `counters.take`, whose arguments are those of the contract.
fn take(
    mut store: StoreContextMut<'_, CallState>,
    (key, cost, limit, burst, window_ms): (String, u32, u32, u32, u32),
) -> wasmtime::Result<(Taken,)> {
    store.data_mut().enter()?;
    let around = &store.data().around;
    let bucket = crate::counters::Bucket { key: &key, cost, limit, burst, window_ms };
    Ok((around.counters.take(&around.owner, around.lane, &bucket),))
}
