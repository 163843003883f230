//! The policies in force and how their verdicts become one. A set is immutable and evaluated purely over itself; a
//! change of anything is a new set, published as a whole ([`Published`]), so that a request sees one revision of
//! everything from its first policy to its last.
//!
//! Entries run in their order (then by name). The first refusal ends it. A policy that fails refuses (`closed`) or does
//! not (`open`), as its binding says. A trial beside a binding is judged and only noted (shadow), or takes the
//! binding's place for a share of requests or for named tenants (canary).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::host::LogLine;
use crate::limits;
use crate::module::Sha256Digest;
use crate::run::Failure;
use crate::snapshot::Policy;
use crate::types::{Denial, FailureMode, TenantView, World};

/// One pass over a set, of either world.
mod course;
/// Admission: patches in order, validated and judged again.
mod admission;
/// Requests: changes gathered.
mod request;

pub use admission::{AdmissionOutcome, Admitted};
pub use request::RequestOutcome;

/// Whom a binding is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every tenant.
    Everyone,
    /// Tenants of a tier.
    Tier(String),
    /// One tenant.
    Tenant(String),
}

impl Scope {
    fn covers(&self, tenant: &TenantView) -> bool {
        match self {
            Self::Everyone => true,
            Self::Tier(tier) => *tier == tenant.tier,
            Self::Tenant(id) => *id == tenant.id,
        }
    }
}

/// A policy put in force for someone.
#[derive(Clone)]
pub struct Binding {
    /// The binding's own name.
    pub name: Arc<str>,
    /// Whom it is about.
    pub scope: Scope,
    /// Lower runs earlier.
    pub order: i32,
    /// What becomes of a request whose policy failed.
    pub failure: FailureMode,
    /// The policy that decides; none while a first revision is only tried out.
    pub active: Option<Arc<Policy>>,
    /// A revision that is tried out.
    pub trial: Option<Trial>,
}

/// A revision that is tried out beside, or for some requests instead of, the active one.
#[derive(Clone)]
pub struct Trial {
    /// The revision.
    pub policy: Arc<Policy>,
    /// How.
    pub mode: TrialMode,
}

/// How a revision is tried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrialMode {
    /// Judged on every request and never enforced; differences are noted.
    Shadow,
    /// Decides for a share of requests, chosen by their id, and for named tenants.
    Canary {
        /// Hundredths of a percent of the requests: 10,000 is all.
        basis_points: u16,
        /// Tenants for which it decides always.
        tenants: BTreeSet<String>,
    },
}

/// Several bindings that give one verdict.
#[derive(Clone)]
pub struct Group {
    /// The group's name.
    pub name: Arc<str>,
    /// Lower runs earlier.
    pub order: i32,
    /// How.
    pub kind: GroupKind,
    /// In their own order, which is that of the list.
    pub members: Vec<Binding>,
}

/// How the verdicts of a group become one. Members whose scope does not cover the tenant are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// All must allow; changes of all apply in order.
    All,
    /// One must allow; the first that does decides, with its changes. If none does, the first refusal stands.
    Any,
    /// The first member whose scope covers the tenant decides alone: exceptions before rules.
    FirstMatch,
}

/// A place in a set.
#[derive(Clone)]
pub enum Entry {
    /// A binding of its own.
    One(Binding),
    /// A group.
    Group(Group),
}

impl Entry {
    fn place(&self) -> (i32, &str) {
        match self {
            Self::One(binding) => (binding.order, &binding.name),
            Self::Group(group) => (group.order, &group.name),
        }
    }

    fn bindings(&self) -> &[Binding] {
        match self {
            Self::One(binding) => std::slice::from_ref(binding),
            Self::Group(group) => &group.members,
        }
    }
}

/// A set cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A binding has a policy of the other world.
    #[error("the binding {0} has a policy that is not a {1}")]
    OtherWorld(Arc<str>, &'static str),
    /// More bindings than a set may have.
    #[error("a set has at most {} bindings", limits::BINDINGS)]
    TooMany,
}

/// The policies of one world that are in force together.
pub struct PolicySet {
    revision: u64,
    world: World,
    entries: Vec<Entry>,
}

impl PolicySet {
    /// A set of `entries`, put in order. `revision` is the caller's name for it, told with every outcome.
    ///
    /// # Errors
    /// A policy of the other world, or too many bindings.
    pub fn new(revision: u64, world: World, mut entries: Vec<Entry>) -> Result<Self, SetError> {
        entries.sort_by(|a, b| a.place().cmp(&b.place()));
        let bindings = || entries.iter().flat_map(Entry::bindings);
        if bindings().count() > limits::BINDINGS {
            return Err(SetError::TooMany);
        }
        for binding in bindings() {
            let policies = binding.active.iter().chain(binding.trial.as_ref().map(|trial| &trial.policy));
            if policies.into_iter().any(|policy| policy.world() != world) {
                return Err(SetError::OtherWorld(binding.name.clone(), world.as_str()));
            }
        }
        Ok(Self { revision, world, entries })
    }

    /// The caller's name for this set.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The kind of question it answers.
    #[must_use]
    pub fn world(&self) -> World {
        self.world
    }
}

/// The set in force. Publishing is one atomic swap: requests under way end on the set they began with, and going back
/// to an earlier set is publishing it again.
pub struct Published(ArcSwap<PolicySet>);

impl Published {
    /// Starts with `set`.
    #[must_use]
    pub fn new(set: PolicySet) -> Self {
        Self(ArcSwap::from_pointee(set))
    }

    /// The set in force, to be asked once per request.
    #[must_use]
    pub fn current(&self) -> Arc<PolicySet> {
        self.0.load_full()
    }

    /// Puts `set` in force and returns the one that was.
    pub fn publish(&self, set: Arc<PolicySet>) -> Arc<PolicySet> {
        self.0.swap(set)
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A policy said no. The texts are the policy's.
    Denied {
        /// The binding by which it judged.
        binding: Arc<str>,
        /// What it said.
        denial: Denial,
    },
    /// A counter had no room: 429.
    RateLimited {
        /// The binding by which it judged.
        binding: Arc<str>,
        /// The counter.
        rate: RateState,
    },
    /// A policy failed and its binding says closed: 503 naming the policy.
    Failed {
        /// The binding by which it judged.
        binding: Arc<str>,
        /// The policy.
        policy: Arc<str>,
        /// What it did.
        failure: Failure,
    },
    /// A policy would change what others, or it itself, had settled: two policies at odds. 503.
    Unsettled {
        /// The binding whose policy would go on changing the object.
        binding: Arc<str>,
    },
}

/// A counter after a withdrawal, for the `RateLimit` headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateState {
    /// Name of the limit.
    pub name: String,
    /// Tokens per window.
    pub limit: u32,
    /// Milliseconds of a window.
    pub window_ms: u32,
    /// Size of the bucket.
    pub burst: u32,
    /// Tokens left.
    pub remaining: u32,
    /// Milliseconds until it would fit; 0 if it did.
    pub retry_after_ms: u32,
}

/// In which role a policy judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The active revision.
    Active,
    /// A trial that decided.
    Canary,
    /// A trial that was only noted.
    Shadow,
}

/// One policy's part in an outcome, for the trace, the decision log and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The binding.
    pub binding: Arc<str>,
    /// The policy.
    pub policy: Arc<str>,
    /// The revision.
    pub digest: Sha256Digest,
    /// Its role.
    pub role: Role,
    /// `allow`, `change`, `deny`, `rate-limited` or `failed`. A bounded metric label.
    pub verdict: &'static str,
    /// What it did, if it failed.
    pub failure: Option<Failure>,
    /// How its effect differs from the enforced one: what was enforced and what it would have been. Shadow only.
    pub difference: Option<(String, String)>,
    /// How long it took.
    pub elapsed: Duration,
    /// Bytes of its memory.
    pub memory_bytes: usize,
    /// The lines it wrote.
    pub log: Vec<LogLine>,
    /// Lines over the cap.
    pub log_dropped: u32,
}
