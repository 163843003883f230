//! What the host does for a policy that was granted it. In native tests the same calls work on stand-ins: lines go to
//! standard error, time stands still, counters always have room and the tenant has nothing.

/// Lines for the operator's decision log. Grant: `log`.
pub mod log {
    /// Writes one line at level "info".
    pub fn info(message: &str) {
        #[cfg(target_arch = "wasm32")]
        crate::bindings::log::write(crate::bindings::log::Level::Info, message);
        #[cfg(not(target_arch = "wasm32"))]
        eprintln!("info: {message}");
    }

    /// Writes one line at level "warn".
    pub fn warn(message: &str) {
        #[cfg(target_arch = "wasm32")]
        crate::bindings::log::write(crate::bindings::log::Level::Warn, message);
        #[cfg(not(target_arch = "wasm32"))]
        eprintln!("warn: {message}");
    }
}

/// The time, frozen for the length of one decision. Grant: `clock`.
pub mod clock {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn now_ms() -> u64 {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::clock::now_ms();
        #[cfg(not(target_arch = "wasm32"))]
        1_700_000_000_000
    }
}

/// Token buckets kept by the host. Grant: `counters`.
pub mod counters {
    pub use crate::bindings::request_world::eventflow::policy::counters::Taken;

    /// Takes `cost` tokens from the tenant's bucket `key`, which refills with `limit` tokens per `window_ms` up to
    /// `burst`.
    #[must_use]
    pub fn take(key: &str, cost: u32, limit: u32, burst: u32, window_ms: u32) -> Taken {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::counters::take(key, cost, limit, burst, window_ms);
        #[cfg(not(target_arch = "wasm32"))]
        {
            let _ = (key, limit, window_ms);
            Taken { allowed: cost <= burst, remaining: burst.saturating_sub(cost), retry_after_ms: 0 }
        }
    }
}

/// What the tenant at hand has. Grant: `context`.
pub mod context {
    pub use crate::bindings::request_world::eventflow::policy::context::FunctionSummary;

    /// The tenant's functions by name, at most 1,000.
    #[must_use]
    pub fn functions() -> Vec<FunctionSummary> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::context::functions();
        #[cfg(not(target_arch = "wasm32"))]
        Vec::new()
    }
}
