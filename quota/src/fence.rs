//! Which write to a function's Deployment may follow which. A compare-and-swap protects the ledger; this protects the
//! Deployments from a controller that was paused between its swap and its next write, and wakes up when another one
//! has long since shrunk or released the reservation. Rules, with what `tests/admission_model.rs` shows of them:
//!
//! 1. A Deployment carries the `Stamp` it was written for (an annotation). It is made with 0 replicas, and every
//!    later write names the resourceVersion it was read at and obeys `Stamp::may_become`.
//! 2. Replicas are set only if a ledger read **after** that resourceVersion says `crate::ledger::Ledger::covers`.
//! 3. Before a reservation is released, or shrunk, the Deployment is written with `Stamp::Releasing` and 0 replicas
//!    (made so, if there is none), or with the newer generation and its fewer replicas; then the pods beyond that
//!    are waited for; then the ledger is swapped; then a released Deployment is deleted.
//! 4. A lost ledger is rebuilt only after every Deployment of the tenant was written (any write moves its
//!    resourceVersion) and from what those writes returned.
//!
//! Why that is enough: whoever sets replicas read the Deployment, then the ledger, then wrote the Deployment
//! unchanged since. Whoever takes a reservation away wrote the Deployment first. If that write came before the read,
//! the stamp forbids the replicas; if after, the resourceVersion does; if after the replicas were set, its pods are
//! seen and waited for.

use std::fmt;
use std::str::FromStr;

/// What a Deployment was last written for. Ordered: what comes later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stamp {
    /// That generation of the function's spec.
    Generation(u64),
    /// Its end: the function is being deleted.
    Releasing,
}

/// Not a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a generation or \"releasing\"")]
pub struct StampError;

impl Stamp {
    /// Whether a Deployment with this stamp may be written with `next`.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        self <= next
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generation(generation) => write!(f, "{generation}"),
            Self::Releasing => f.write_str("releasing"),
        }
    }
}

impl FromStr for Stamp {
    type Err = StampError;
    fn from_str(text: &str) -> Result<Self, StampError> {
        match text {
            "releasing" => Ok(Self::Releasing),
            digits => digits.parse().map(Self::Generation).map_err(|_| StampError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_run_backwards() {
        let order = [Stamp::Generation(1), Stamp::Generation(2), Stamp::Releasing];
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                assert_eq!(a.may_become(*b), i <= j, "{a} -> {b}");
            }
            assert_eq!(a.to_string().parse(), Ok(*a));
        }
        assert_eq!("x".parse::<Stamp>(), Err(StampError));
    }
}
