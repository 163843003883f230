//! Waiting for something to become true, with a deadline and a last word on what was seen instead.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

/// Asks `probe` again and again until it gives `Ok`, at most `seconds`; panics with the last `Err`.
pub async fn eventually<T, E, F>(seconds: u64, what: &str, mut probe: impl FnMut() -> F) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => panic!("{what}: not within {seconds} s; last seen: {seen:#?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
