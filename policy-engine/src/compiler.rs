//! The threads that compile modules: as many as the machine has cores, so that an upload is quick on an idle machine, and
//! behind everything else in the scheduler's order, so that it takes from a busy one only what is left. They never run
//! a guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::limits;

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
pub(crate) struct Compiler(ThreadPool);

impl Compiler {
    pub fn start() -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new()
            .thread_name(|i| format!("policy-compile-{i}"))
            // Linux counts niceness by thread. Without it compilation is only less polite.
            .start_handler(|_| {
                let _ = rustix::process::setpriority_process(None, limits::COMPILE_NICENESS);
            })
            // The compiler's panics end the compilation, not the gateway: whoever waits sees the channel close.
            .panic_handler(|_| tracing::error!("the compiler panicked over a policy"))
            .build()?;
        Ok(Self(pool))
    }

    /// Compiles a component, waiting for a thread and for the work at most [`limits::COMPILE`]. What has begun by then
    /// goes on to its end, which [`crate::scan`] bounds; what has not is never begun.
    pub fn compile(&self, engine: &Engine, bytes: &[u8]) -> Result<Component, CompileError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let abandoned = Arc::new(AtomicBool::new(false));
        let (engine, bytes, seen) = (engine.clone(), bytes.to_vec(), abandoned.clone());
        self.0.spawn(move || {
            if !seen.load(Ordering::Relaxed) {
                // Nobody may be waiting any more.
                let _ = sender.send(Component::new(&engine, bytes));
            }
        });
        match receiver.recv_timeout(limits::COMPILE) {
            Ok(compiled) => compiled.map_err(CompileError::Wasmtime),
            Err(RecvTimeoutError::Timeout) => {
                abandoned.store(true, Ordering::Relaxed);
                Err(CompileError::TimedOut)
            }
            Err(RecvTimeoutError::Disconnected) => Err(CompileError::Panicked),
        }
    }
}
