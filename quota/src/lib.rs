//! Quota admission, the pure part: what a function needs, whether that fits, who is next, and what the ledger says
//! afterwards. Never does I/O, never reads a clock; every transition gives a new ledger or says why not.
//!
//! A crate of its own because two programs must come to the very same verdict: the controller, which decides, and the
//! gateway, which tells it in an HTTP answer and in a dry run.
//!
//! The controller reads the ledger, calls `queue::take_while_fits` and `ledger::Ledger::admit`, and writes the
//! result back by compare-and-swap. `tests/admission_model.rs` checks the whole protocol, built from these very
//! functions, in every order of steps, crashes and lost answers that small sizes allow.

/// The identity of a Function or Invocation, small.
pub mod uid;
/// Amounts in every dimension of a quota, added and compared without overflow.
pub mod vector;
/// What a function needs, and the least that must change for it to fit.
pub mod demand;
/// What a tier allows one function whatever room there is.
pub mod limits;
/// Who waits, in order, and how many of them fit now.
pub mod queue;
/// Who holds what: the ledger and its transitions.
pub mod ledger;
/// The ledger as one compact line of text.
pub mod packed;
/// Which write to a function's Deployment may follow which: keeps a stale controller from growing it.
pub mod fence;
/// The outcome for one function, as status, HTTP answer and metrics tell it.
pub mod verdict;
