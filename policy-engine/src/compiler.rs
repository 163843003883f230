//! The threads that compile modules: as many as the machine has cores, so that an upload is quick on an idle machine, and
//! behind everything else in the scheduler's order, so that it takes from a busy one only what is left. They never run
//! a guest.
//!
//! What stands back may wait for long on a busy machine, so what is limited is the time these threads compute.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::limits;

/// How often it is looked at what a compilation has cost.
const LOOK: Duration = Duration::from_millis(200);

/// Why a component did not compile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("it is not valid")]
    Wasmtime(#[source] wasmtime::Error),
    #[error("it takes too long")]
    TimedOut,
    #[error("the compiler failed")]
    Panicked,
}

/// A pool of compiling threads. It ends when its last user does.
pub(crate) struct Compiler {
    pool: ThreadPool,
    /// Where the kernel says how long each thread has run.
    clocks: Arc<Mutex<Vec<PathBuf>>>,
}

impl Compiler {
    pub fn start() -> Result<Self, rayon::ThreadPoolBuildError> {
        let clocks = Arc::<Mutex<Vec<PathBuf>>>::default();
        let started = clocks.clone();
        let pool = ThreadPoolBuilder::new()
            .thread_name(|i| format!("policy-compile-{i}"))
            .start_handler(move |_| {
                // Linux counts niceness by thread. Without it compilation is only less polite.
                let _ = rustix::process::setpriority_process(None, limits::COMPILE_NICENESS);
                if let Ok(this) = fs::read_link("/proc/thread-self") {
                    let clock = Path::new("/proc").join(this).join("schedstat");
                    started.lock().unwrap_or_else(PoisonError::into_inner).push(clock);
                }
            })
            // The compiler's panics end the compilation, not the gateway: whoever waits sees the channel close.
            .panic_handler(|_| tracing::error!("the compiler panicked over a policy"))
            .build()?;
        Ok(Self { pool, clocks })
    }

    /// Compiles a component. It ends after [`limits::COMPILE`] of computing, whatever else the threads had to do in it,
    /// or [`limits::COMPILE_WAIT`] by the clock. What has begun by then goes on to its end, which [`crate::scan`]
    /// bounds; what has not is never begun.
    pub fn compile(&self, engine: &Engine, bytes: &[u8]) -> Result<Component, CompileError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let abandoned = Arc::new(AtomicBool::new(false));
        let (engine, bytes, seen) = (engine.clone(), bytes.to_vec(), abandoned.clone());
        let (started, before) = (Instant::now(), self.computed());
        self.pool.spawn(move || {
            if !seen.load(Ordering::Relaxed) {
                // Nobody may be waiting any more.
                let _ = sender.send(Component::new(&engine, bytes));
            }
        });
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(compiled) => return compiled.map_err(CompileError::Wasmtime),
                Err(RecvTimeoutError::Disconnected) => return Err(CompileError::Panicked),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let waited = started.elapsed();
            // Where the kernel does not say, all of the time counts.
            let computed = self.computed().zip(before).map_or(waited, |(now, before)| now.saturating_sub(before));
            if computed > limits::COMPILE || waited > limits::COMPILE_WAIT {
                abandoned.store(true, Ordering::Relaxed);
                return Err(CompileError::TimedOut);
            }
        }
    }

    /// Time that all threads have computed since they began.
    fn computed(&self) -> Option<Duration> {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let nanoseconds = |clock: &PathBuf| fs::read_to_string(clock).ok()?.split(' ').next()?.parse::<u64>().ok();
        let all: Option<Vec<u64>> = clocks.iter().map(nanoseconds).collect();
        all.filter(|all| !all.is_empty()).map(|all| Duration::from_nanos(all.iter().sum()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_long_the_threads_computed() {
        let compiler = Compiler::start().unwrap();
        let engine = Engine::default();
        // The second use finds every thread started.
        for _ in 0..2 {
            assert!(compiler.compile(&engine, b"(component)").is_err());
        }
        let before = compiler.computed().unwrap();
        compiler.pool.install(|| {
            let start = Instant::now();
            while compiler.computed().unwrap() == before && start.elapsed() < Duration::from_secs(60) {}
        });
        assert!(compiler.computed().unwrap() > before);
    }
}
