//! Points at which a test kills the process, to show that nothing is lost there. Compiled to nothing unless the
//! feature `failpoints` is on, which no release has.

/// Kills the process, as `kill -9` would, if the environment variable `EVENTFLOW_FAILPOINT` names this point.
#[cfg(feature = "failpoints")]
pub fn hit(point: &str) {
    use std::sync::LazyLock;

    #[expect(clippy::disallowed_methods, reason = "no part of the configuration: absent from every release")]
    static ARMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("EVENTFLOW_FAILPOINT").ok());
    if ARMED.as_deref() == Some(point) {
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_point: &str) {}
