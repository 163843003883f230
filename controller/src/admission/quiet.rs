//! Since when nothing is left of functions that are gone, as far as this process saw: another one looks anew. Holds
//! nothing but what the last look at each namespace found, so that it never outgrows what is ending.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quota::uid::Uid;
use tokio::time::Instant;

/// How long nothing must have been left of a function that is gone: the ReplicaSet controller sees ReplicaSets go by a
/// watch, and may make a pod of one until then.
pub const QUIET: Duration = Duration::from_millis(300);

/// First sights, by namespace.
#[derive(Debug, Default)]
pub struct Quiet {
    since: Mutex<HashMap<String, HashMap<Uid, Instant>>>,
}

impl Quiet {
    /// Takes in of whom nothing is left in the namespace `now`; those of whom that has been so for [`QUIET`].
    pub fn lasted(&self, namespace: &str, nothing_left: &[Uid], now: Instant) -> Vec<Uid> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = since.remove(namespace).unwrap_or_default();
        let (mut lasted, mut waits) = (Vec::new(), HashMap::new());
        for uid in nothing_left {
            let first = before.remove(uid).unwrap_or(now);
            if now.duration_since(first) >= QUIET {
                lasted.push(*uid);
            }
            // Kept until the ledger has let it go: whoever loses the swap need not wait again.
            waits.insert(*uid, first);
        }
        if !waits.is_empty() {
            since.insert(namespace.to_owned(), waits);
        }
        lasted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_away_lasts() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        let [a, b] = [1, 2].map(Uid::from_bits);
        let later = |times: u32| start + QUIET * times;
        assert!(quiet.lasted("n", &[a, b], start).is_empty());
        assert_eq!(quiet.lasted("n", &[b], later(1)), [b], "a came back");
        assert!(quiet.lasted("n", &[a], later(2)).is_empty(), "and has to stay away anew");
        assert!(quiet.lasted("m", &[a], later(3)).is_empty(), "in another namespace it is another's");
        assert_eq!(quiet.lasted("n", &[a], later(3)), [a]);
        assert!(quiet.lasted("n", &[], later(4)).is_empty());
        assert!(!quiet.since.lock().unwrap().contains_key("n"), "nothing is kept of what is done");
    }
}
