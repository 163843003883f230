//! Every limit on a guest, with its reason. Nothing else in this crate has a number of its own that a guest can feel.

use std::time::Duration;

/// Limits of one call into a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Computing time of a call until its forced end, to within a tick. Time in which the machine ran something else
    /// does not count: a busy machine must not make good policies fail. A request policy runs on a worker of the
    /// server, so this is also how long a guest can hold up the connections of that worker; an admission policy runs
    /// beside them and parses objects.
    pub deadline: Duration,
    /// Linear memory of one instance, all its memories together. A policy that needs more for one decision is not a policy.
    pub memory_bytes: usize,
    /// Elements of one table: function pointers of the module itself. Rust guests have hundreds.
    pub table_elements: usize,
    /// Bytes a guest may make the host allocate per host call and for its answer (wasmtime's default is 128 MiB).
    pub hostcall_fuel: usize,
    /// Bytes of text in a verdict. Larger ones are invalid answers.
    pub output_bytes: usize,
    /// Bytes of log lines kept per decision; what is over is dropped and counted.
    pub log_bytes: usize,
    /// Calls into the host per decision; one more traps. A host call costs some 60 ns, so this bounds work outside of
    /// the guest, where the deadline is not checked.
    pub host_calls: u32,
    /// Handles to host resources. The contract has none; a module that makes its own is bounded.
    pub handles: usize,
}

/// A request policy: on every call, in the server's worker.
pub const REQUEST: Limits = Limits {
    deadline: Duration::from_millis(10),
    memory_bytes: 16 << 20,
    table_elements: 10_000,
    hostcall_fuel: 64 << 10,
    output_bytes: 16 << 10,
    log_bytes: 4 << 10,
    host_calls: 1_000,
    handles: 256,
};

/// An admission policy: on changes of functions, beside the server's workers; a patch can be as large as a spec.
pub const ADMISSION: Limits = Limits {
    deadline: Duration::from_millis(500),
    memory_bytes: 64 << 20,
    table_elements: 10_000,
    hostcall_fuel: 1 << 20,
    output_bytes: 256 << 10,
    log_bytes: 32 << 10,
    host_calls: 10_000,
    handles: 1_000,
};

/// `describe` and `configure`: once per upload and per settings, never on a request's path. No capability is at hand.
pub const SETUP: Limits = Limits {
    deadline: Duration::from_millis(250),
    memory_bytes: 64 << 20,
    table_elements: 10_000,
    hostcall_fuel: 1 << 20,
    output_bytes: 256 << 10,
    log_bytes: 4 << 10,
    host_calls: 0,
    handles: 256,
};

/// Bytes of an upload. A JavaScript component is 12 MB; nothing seen in the wild is twice that.
pub const MODULE_BYTES: usize = 32 << 20;
/// Bytes of one function's body. The compiler's time grows faster than a function does; the interpreter loops inside
/// JavaScript and Python components stay below this.
pub const FUNCTION_BYTES: usize = 512 << 10;
/// Functions of a module. Bounds the compiler's bookkeeping.
pub const FUNCTIONS: usize = 100_000;
/// Local variables of one function. A few bytes of wasm can declare 50,000, and register allocation pays for each.
pub const LOCALS: u32 = 10_000;
/// Locals and parameters times branches, in one function: the compiler may have a value for each of them at each, so a
/// function within all other bounds could ask for hours and gigabytes. The interpreter inside a 12 MB JavaScript
/// component has 450,000; what is made to be slow takes some 3 s for as much.
pub const CROSSINGS: usize = 1_000_000;
/// The same, all functions together. That component has 12 million.
pub const CROSSINGS_IN_ALL: usize = 24_000_000;
/// Components inside components. The encoder makes one level, replacing WASI by traps two more; each level multiplies
/// what it instantiates.
pub const NESTING: usize = 3;
/// Instantiations (of modules and of components) written in a component, all levels together.
pub const INSTANTIATIONS: usize = 64;
/// Core instances a component comes to at run time: 4 of a Rust guest (module, shim, fixups), 38 of a Python one, which
/// is linked from libraries.
pub const CORE_INSTANCES: u32 = 48;
/// Memories per component: one, and those of adapters (JavaScript components have three). They share one limit of bytes.
pub const MEMORIES: u32 = 3;
/// Tables per component: one of the module, one of the shim, and an adapter's.
pub const TABLES: u32 = 8;
/// Computing time of a compilation, all threads together: three times what a 12 MB JavaScript component needs. The thread
/// that runs past it ends by itself: [`crate::scan`] bounds it.
pub const COMPILE: Duration = Duration::from_secs(60);
/// Longest compilation by the clock, for machines so busy that those who stand back hardly ever run.
pub const COMPILE_WAIT: Duration = Duration::from_secs(600);
/// How far compiling threads stand back: one of them gets a quarter of a core that it shares with a
/// thread at work for requests.
pub const COMPILE_NICENESS: i32 = 5;
/// Bytes of machine code of one module. A 12 MB JavaScript component makes 37 MB.
pub const CODE_BYTES: usize = 128 << 20;
/// Bytes of compiled modules and images kept on disk: as much as all bindings together need with half a megabyte each,
/// and their earlier settings. What was not used for longest goes first.
pub const CACHE_BYTES: u64 = 2 << 30;
/// Age from which an unfinished file there is a crash's.
pub const CACHE_UNFINISHED: Duration = Duration::from_secs(3600);
/// Stack of a guest. Well below the 2 MiB of a server's worker, which it runs on.
pub const STACK_BYTES: usize = 512 << 10;
/// Bytes of settings, as JSON text.
pub const SETTINGS_BYTES: usize = 64 << 10;
/// Bytes of a manifest's settings schema.
pub const SCHEMA_BYTES: usize = 64 << 10;
/// Parts of a settings schema that one value can meet, references followed. Validation costs so much per value, and no
/// deadline ends it. The largest of the built-in policies has 150.
pub const SCHEMA_WEIGHT: usize = 10_000;
/// Levels of a settings schema, references followed: the validator calls itself for each.
pub const SCHEMA_DEPTH: usize = 64;
/// Patterns in a settings schema.
pub const SCHEMA_PATTERNS: usize = 64;
/// Bytes of one compiled pattern. A few characters (`\pL{999}`) can ask for megabytes.
pub const PATTERN_BYTES: usize = 256 << 10;
/// Problems told about settings at once.
pub const SETTINGS_PROBLEMS: usize = 50;
/// Bytes of the test cases a module carries.
pub const FIXTURES_BYTES: usize = 1 << 20;
/// Test cases that are run at once.
pub const FIXTURES: usize = 1_000;
/// Time that a run of test cases may take; each case may take as long as a decision and settings may.
pub const FIXTURES_TIME: Duration = Duration::from_secs(30);
/// Bytes of a view handed to a request policy; the gateway refuses larger headers long before.
pub const REQUEST_VIEW_BYTES: usize = 128 << 10;
/// Bytes of a view handed to an admission policy: the object before and after.
pub const ADMISSION_VIEW_BYTES: usize = 10 << 20;
/// Functions listed by the `context` capability.
pub const CONTEXT_FUNCTIONS: usize = 1_000;

/// Length of an epoch tick. Half a millisecond: a runaway guest is stopped within its deadline and one to two ticks,
/// and a tick costs one atomic add.
pub const TICK: Duration = Duration::from_micros(500);
/// After this long without a decision the ticker sleeps until the next. Must be longer than any deadline.
pub const TICKER_IDLE: Duration = Duration::from_secs(2);
const _: () = assert!(
    TICKER_IDLE.as_millis() > 2 * ADMISSION.deadline.as_millis()
        && TICKER_IDLE.as_millis() > 2 * REQUEST.deadline.as_millis()
        && TICKER_IDLE.as_millis() > 2 * SETUP.deadline.as_millis()
);

/// Instances that can exist at once in the pool: far more than threads that run guests, so that it is never the limit,
/// and few enough that their address space (some 4 GiB each) can be had everywhere.
pub const POOL_SLOTS: u32 = 256;
/// Bytes of a used memory that stay resident in the pool between two instances. What a decision dirties (stack and
/// heap of a small guest) fits; more would be memory held by idle slots.
pub const KEEP_RESIDENT: usize = 128 << 10;
/// The same without the kernel's PAGEMAP_SCAN, where that much is *copied* on every reset whether dirty or not.
pub const KEEP_RESIDENT_COPIED: usize = 32 << 10;

/// Token buckets per tenant and policy. The key is the guest's to choose, so it must not grow without bound.
pub const BUCKETS_PER_OWNER: usize = 1_000;
/// Token buckets in all, at some 100 bytes each.
pub const BUCKETS: usize = 200_000;
/// Bytes of a bucket's key.
pub const BUCKET_KEY_BYTES: usize = 128;

/// Policies bound at once. A request meets those in its scope one after the other.
pub const BINDINGS: usize = 1_000;

/// Ticks until a guest's computing time is first looked at; see `run.rs`. So much is taken to be computed by then.
pub const FIRST_ALARM_TICKS: u64 = 3;

/// The time that [`FIRST_ALARM_TICKS`] take, at least: the first tick has begun already when a call starts.
#[must_use]
pub fn first_alarm() -> Duration {
    TICK * 2
}

/// The ticks that a time takes, at least one.
#[must_use]
pub fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u64::MAX / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_never_short() {
        assert_eq!([0, 1, 500, 501, 10_000].map(|us| ticks(Duration::from_micros(us))), [1, 1, 1, 2, 20]);
        for limits in [REQUEST, ADMISSION, SETUP] {
            assert!(limits.deadline > 2 * first_alarm());
        }
    }
}
