//! Which write to a function's Deployment may follow which. A compare-and-swap protects the ledger; this protects the
//! Deployments from a controller that was paused between its swap and its next write, and wakes up when another one
//! has long since shrunk or released the reservation. Rules, with what `tests/admission_model.rs` shows of them:
//!
//! 1. A Deployment carries the generation it was written for and a mark; every write of a controller sets another
//!    mark. It is made with 0 replicas. Every later write is bound to the mark it was read with, and `may_follow`.
//! 2. Replicas are set only if a ledger read **after** that mark, of the writer's own epoch, says
//!    `crate::ledger::Ledger::covers`.
//! 3. A reservation is shrunk only for the generation that its Deployment says, with its fewer replicas, and once the
//!    pods beyond these are gone.
//! 4. A reservation is released in two swaps: `crate::ledger::Ledger::end`, from which on it covers nothing; then the
//!    Deployment and its pods are seen to be gone; then `crate::ledger::Ledger::release`.
//! 5. A lost ledger is rebuilt only after every Deployment of the tenant got another mark, and from what those writes
//!    returned.
//!
//! Why that is enough: whoever sets replicas read the Deployment, then the ledger, then wrote the Deployment
//! unchanged since. Whoever takes a reservation away first makes the ledger say less (a newer generation, or the end),
//! then has the Deployment written for that or gone, then looks for pods. If the other read the ledger after the
//! first of these, it is told no; if before, its write finds another mark, or none, or came early enough for its pods
//! to be seen. The end is marked in the ledger and not by a Deployment without replicas, as one could think: what is
//! gone costs no write that way, and its name need not be known.

/// Whether a Deployment written for the generation `found` may be written for the generation `next`: time does not
/// run backwards.
#[must_use]
pub fn may_follow(found: u64, next: u64) -> bool {
    found <= next
}
