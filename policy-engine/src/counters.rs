//! Token buckets of the host. Atomic (a withdrawal happens whole or not at all), scoped to one tenant and one policy,
//! bounded in number, and exact: levels are integers, so that a bucket never gains or loses a fraction of a token.
//!
//! They count within one replica of the gateway. Several replicas share a limit by dividing it by how many of them are
//! alive ([`Counters::set_replicas`]): nothing is shared over the network in the path of a request, and a caller whose
//! connections favour one replica gets less than the limit, never more than the limit and one burst per change of the
//! number.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::limits;
use crate::types::Taken;

const SHARDS: usize = 16;

/// Whose bucket: no policy sees another's, no tenant another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The tenant's id.
    pub tenant: Arc<str>,
    /// The policy's name: a new revision goes on counting where the old one was.
    pub policy: Arc<str>,
}

/// Which set of buckets, and whether a withdrawal counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The caller feels it.
    Enforced,
    /// Tried out beside the enforced one; has buckets of its own.
    Shadow,
    /// Answered and not recorded: a dry run, an operator's question.
    Peek,
    /// A second look at a request that has paid: there is room, because the request itself took it.
    Settled,
}

/// A withdrawal from a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket<'a> {
    /// The guest's own name for it.
    pub key: &'a str,
    /// Tokens to take.
    pub cost: u32,
    /// Tokens that come back per window.
    pub limit: u32,
    /// Tokens it holds at most.
    pub burst: u32,
    /// Milliseconds of a window.
    pub window_ms: u32,
}

/// All buckets.
pub struct Counters {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    replicas: AtomicU32,
    start: Instant,
}

#[derive(Default)]
struct Shard {
    levels: HashMap<(Owner, Lane, Box<str>), Level>,
    per_owner: HashMap<(Owner, Lane), usize>,
}

/// Fill of a bucket. One token is `unit` parts, so that a nanosecond's refill is a whole number of them.
#[derive(Debug, Clone, Copy)]
struct Level {
    parts: u128,
    unit: u128,
    capacity: u128,
    /// Parts that come back per nanosecond.
    refill: u128,
    at: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            replicas: AtomicU32::new(1),
            start: Instant::now(),
        }
    }
}

impl Counters {
    /// Says how many replicas of the gateway are alive, this one among them. Takes effect with the next withdrawal.
    pub fn set_replicas(&self, replicas: u32) {
        self.replicas.store(replicas.max(1), Ordering::Relaxed);
    }

    /// Takes tokens, if there are enough.
    #[must_use]
    pub fn take(&self, owner: &Owner, lane: Lane, bucket: &Bucket<'_>) -> Taken {
        // 584 years of nanoseconds fit.
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(now, owner, lane, bucket)
    }

    /// As [`Counters::take`], at a time given in nanoseconds since an origin of the caller's choice.
    #[must_use]
    pub fn take_at(&self, now: u64, owner: &Owner, lane: Lane, bucket: &Bucket<'_>) -> Taken {
        if bucket.window_ms == 0 || bucket.limit == 0 || bucket.key.len() > limits::BUCKET_KEY_BYTES {
            return Taken { allowed: false, remaining: 0, retry_after_ms: u32::MAX };
        }
        let replicas = self.replicas.load(Ordering::Relaxed);
        // A look at a bucket is a look at the enforced one.
        let recorded = matches!(lane, Lane::Enforced | Lane::Shadow);
        let stored = if recorded { lane } else { Lane::Enforced };
        let shard_index = self.hasher.hash_one((owner, stored)) as usize % SHARDS;
        // A panic cannot leave a shard half-changed, so a poisoned lock is as good as any.
        let mut shard = self.shards[shard_index].lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Level::full(bucket, replicas, now);
        let key = (owner.clone(), stored, Box::from(bucket.key));
        let mut level = shard.levels.get(&key).map_or(fresh, |level| level.refilled(&fresh));
        let taken = level.take(bucket.cost);
        if lane == Lane::Settled {
            return Taken { allowed: true, retry_after_ms: 0, ..taken };
        }
        if recorded && !shard.keep(key, level, now) {
            return Taken { allowed: false, remaining: 0, retry_after_ms: 1_000 };
        }
        taken
    }

    /// How many buckets there are. A metric.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).levels.len()).sum()
    }

    /// Whether there is no bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Level {
    /// A bucket that nobody has taken from.
    fn full(bucket: &Bucket<'_>, replicas: u32, now: u64) -> Self {
        let window_ns = u128::from(bucket.window_ms) * 1_000_000;
        // Per replica, `limit / replicas` tokens come back per window: a token is that many more parts.
        let unit = window_ns * u128::from(replicas);
        // The share of the burst, but never less than the cost at hand, or it could never be paid.
        let capacity = (u128::from(bucket.burst) * window_ns).max(u128::from(bucket.cost.min(bucket.burst)) * unit);
        Self { parts: capacity, unit, capacity, refill: u128::from(bucket.limit), at: now }
    }

    /// This bucket at the time and with the parameters of `fresh`, which may have been edited since.
    fn refilled(&self, fresh: &Self) -> Self {
        let elapsed = u128::from(fresh.at.saturating_sub(self.at));
        let parts = (self.parts + elapsed * self.refill).min(self.capacity);
        // An edited window or number of replicas changes what a part is; tokens are kept.
        let parts = if self.unit == fresh.unit { parts } else { parts * fresh.unit / self.unit };
        Self { parts: parts.min(fresh.capacity), at: fresh.at.max(self.at), ..*fresh }
    }

    fn take(&mut self, cost: u32) -> Taken {
        let price = u128::from(cost) * self.unit;
        let allowed = price <= self.parts;
        if allowed {
            self.parts -= price;
        }
        let missing = if allowed { 0 } else { price - self.parts };
        // A cost over the capacity never fits.
        let wait_ms = if price > self.capacity { u128::MAX } else { missing.div_ceil(self.refill).div_ceil(1_000_000) };
        Taken {
            allowed,
            remaining: u32::try_from(self.parts / self.unit).unwrap_or(u32::MAX),
            retry_after_ms: u32::try_from(wait_ms).unwrap_or(u32::MAX),
        }
    }

    /// Whether it is full again, and so the same as one that does not exist.
    fn is_full(&self, now: u64) -> bool {
        self.parts + u128::from(now.saturating_sub(self.at)) * self.refill >= self.capacity
    }
}

impl Shard {
    /// Keeps a level; false if there is no room for one more bucket. Full buckets make room, because forgetting them
    /// changes nothing; others never do, so filling the table with keys empties nobody's limit.
    fn keep(&mut self, key: (Owner, Lane, Box<str>), level: Level, now: u64) -> bool {
        let owner = (key.0.clone(), key.1);
        if let Entry::Occupied(mut entry) = self.levels.entry(key.clone()) {
            entry.insert(level);
            return true;
        }
        let crowded = |shard: &Self| {
            shard.per_owner.get(&owner).copied().unwrap_or(0) >= limits::BUCKETS_PER_OWNER
                || shard.levels.len() >= limits::BUCKETS / SHARDS
        };
        if crowded(self) {
            self.forget_full(now);
            if crowded(self) {
                return false;
            }
        }
        self.levels.insert(key, level);
        *self.per_owner.entry(owner).or_default() += 1;
        true
    }

    fn forget_full(&mut self, now: u64) {
        self.levels.retain(|_, level| !level.is_full(now));
        self.per_owner.clear();
        for (owner, lane, _) in self.levels.keys() {
            *self.per_owner.entry((owner.clone(), *lane)).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn owner(tenant: &str) -> Owner {
        Owner { tenant: tenant.into(), policy: "p".into() }
    }

    fn bucket(limit: u32, burst: u32) -> Bucket<'static> {
        Bucket { key: "", cost: 1, limit, burst, window_ms: 1000 }
    }

    #[test]
    fn gives_the_burst_and_then_the_rate_to_the_token() {
        let counters = Counters::default();
        let take = |now| counters.take_at(now, &owner("a"), Lane::Enforced, &bucket(3, 5)).allowed;
        assert_eq!((0..10).filter(|_| take(0)).count(), 5);
        // 3 tokens a second: one at 1/3 s, not a nanosecond before.
        assert!(!take(SECOND / 3));
        assert!(take(SECOND / 3 + 1));
        let later: usize = (1..=700).map(|i| usize::from(take(SECOND / 3 + 1 + i * (SECOND / 100)))).sum();
        assert_eq!(later, 21);
    }

    #[test]
    fn says_what_is_left_and_when_to_come_back() {
        let counters = Counters::default();
        let mut costly = bucket(10, 4);
        costly.cost = 3;
        let take = |b: &Bucket<'_>| counters.take_at(7, &owner("a"), Lane::Enforced, b);
        assert_eq!(take(&costly), Taken { allowed: true, remaining: 1, retry_after_ms: 0 });
        assert_eq!(take(&costly), Taken { allowed: false, remaining: 1, retry_after_ms: 200 });
        costly.cost = 5;
        assert_eq!(take(&costly).retry_after_ms, u32::MAX);
    }

    #[test]
    fn tenants_lanes_and_keys_have_their_own() {
        let counters = Counters::default();
        let one = bucket(1, 1);
        let take = |tenant: &str, lane, b: &Bucket<'_>| counters.take_at(0, &owner(tenant), lane, b).allowed;
        assert!(take("a", Lane::Enforced, &one));
        assert!(!take("a", Lane::Enforced, &one));
        assert!(!take("a", Lane::Peek, &one));
        assert!(take("a", Lane::Settled, &one));
        assert!(take("a", Lane::Shadow, &one));
        assert!(take("b", Lane::Peek, &one) && take("b", Lane::Peek, &one));
        assert!(take("b", Lane::Enforced, &one));
        assert!(take("a", Lane::Enforced, &Bucket { key: "other", ..one }));
    }

    #[test]
    fn replicas_divide_the_limit() {
        let counters = Counters::default();
        counters.set_replicas(4);
        let take = |now| counters.take_at(now, &owner("a"), Lane::Enforced, &bucket(8, 8)).allowed;
        assert_eq!((0..10).filter(|_| take(0)).count(), 2);
        assert_eq!((1..=1000).filter(|i| take(i * SECOND / 100)).count(), 20);
    }

    #[test]
    fn an_edited_tier_takes_effect_with_the_next_call() {
        let counters = Counters::default();
        let take = |now, b| counters.take_at(now, &owner("a"), Lane::Enforced, &b);
        assert_eq!(take(0, bucket(10, 10)).remaining, 9);
        assert_eq!(take(0, bucket(10, 3)).remaining, 2);
        assert_eq!(take(0, bucket(10, 100)).remaining, 1);
        assert_eq!(take(SECOND, bucket(10, 100)).remaining, 2 + 10 - 2);
    }

    #[test]
    fn keys_cannot_grow_without_bound_nor_empty_a_limit() {
        let counters = Counters::default();
        let take = |now, key: &str| {
            counters.take_at(now, &owner("a"), Lane::Enforced, &Bucket { key, ..bucket(1, 1) }).allowed
        };
        assert!(take(0, "mine"));
        let made = (0..5_000).filter(|i| take(0, &format!("k{i}"))).count();
        assert_eq!((made, counters.len()), (limits::BUCKETS_PER_OWNER - 1, limits::BUCKETS_PER_OWNER));
        assert!(!take(0, "mine"));
        // Once they are full again they make room.
        assert!(take(2 * SECOND, "new"));
        assert_eq!(counters.len(), 1);
        assert!(!take(0, &"x".repeat(limits::BUCKET_KEY_BYTES + 1)));
    }

    #[test]
    fn no_token_is_given_twice_to_threads() {
        let counters = Counters::default();
        let given: usize = std::thread::scope(|scope| {
            let thread = || {
                (0..1000).filter(|_| counters.take_at(0, &owner("a"), Lane::Enforced, &bucket(1, 777)).allowed).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(thread)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(given, 777);
    }
}
