//! Quota in figures, by tier: how many wait and since when, what is reserved and what could be. Computed from the
//! tables when asked. Bounded by the number of tiers; never by tenant.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;

use eventflow_api::admission::Dimension;
use eventflow_api::condition::{ConditionStatus, ConditionType, Reason, find};
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quota::vector::Vector;

use crate::world::views::FunctionView;
use crate::world::{Key, Tables};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTier {
    tier: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDimension {
    tier: String,
    dimension: String,
}

type Amounts = Family<OfDimension, Gauge<f64, AtomicU64>>;

/// The gauges.
#[derive(Debug, Default)]
pub struct QuotaGauges {
    length: Family<OfTier, Gauge>,
    age: Family<OfTier, Gauge>,
    reserved: Amounts,
    hard: Amounts,
}

/// What the tenants of a tier have together.
#[derive(Debug, Default)]
struct Sums {
    queued: i64,
    oldest: i64,
    reserved: Vector,
    hard: Vector,
}

impl QuotaGauges {
    /// Makes them known.
    pub fn register(&self, r: &mut Registry) {
        r.register("eventflow_admission_queue_length", "Functions that wait for quota, by tier", self.length.clone());
        let age = "Longest wait for quota of those that wait now, in seconds, by tier";
        r.register("eventflow_admission_queue_age_seconds", age, self.age.clone());
        let reserved = "Reserved by all tenants of a tier: cores, bytes or a count";
        r.register("eventflow_quota_reserved", reserved, self.reserved.clone());
        r.register("eventflow_quota_hard", "The quotas of all tenants of a tier together", self.hard.clone());
    }

    /// Sets them to what the tables say.
    pub fn observe(&self, tables: &Tables, now: Timestamp) {
        let sums = sums(tables, now);
        self.length.clear();
        self.age.clear();
        self.reserved.clear();
        self.hard.clear();
        for (tier, sums) in sums {
            let of_tier = OfTier { tier: tier.clone() };
            self.length.get_or_create(&of_tier).set(sums.queued);
            self.age.get_or_create(&of_tier).set(sums.oldest);
            for dimension in Dimension::ALL {
                let label = OfDimension { tier: tier.clone(), dimension: dimension.to_string() };
                self.reserved.get_or_create(&label).set(amount(dimension, &sums.reserved));
                self.hard.get_or_create(&label).set(amount(dimension, &sums.hard));
            }
        }
    }
}

fn sums(tables: &Tables, now: Timestamp) -> BTreeMap<String, Sums> {
    let tenants = tables.tenants.find(|_| true);
    let tier_of: HashMap<&str, &str> = tenants
        .iter()
        .filter_map(|(name, seen)| Some((name.name.as_str(), seen.view.spec.as_ref().ok()?.tier.as_str())))
        .collect();
    let tier = |group: &Key| match group {
        Key::Tenant(id) => tier_of.get(id.as_str()).map(|tier| (*tier).to_owned()),
        Key::Function(_) | Key::Invocation(_) | Key::Admission(_) => None,
    };
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    for (_, seen) in tables.ledgers.find(|_| true) {
        let (Some(tier), Ok(ledger)) = (tier(&seen.group), &seen.view.ledger) else { continue };
        let of_tier = sums.entry(tier).or_default();
        of_tier.queued = of_tier.queued.saturating_add(seen.view.queued);
        of_tier.reserved = of_tier.reserved.checked_add(ledger.sum()).unwrap_or(of_tier.reserved);
        of_tier.hard = of_tier.hard.checked_add(ledger.hard()).unwrap_or(of_tier.hard);
    }
    for (_, seen) in tables.functions.find(|seen| waiting_since(&seen.view).is_some()) {
        let (Some(tier), Some(since)) = (tier(&seen.group), waiting_since(&seen.view)) else { continue };
        let of_tier = sums.entry(tier).or_default();
        of_tier.oldest = of_tier.oldest.max(now.duration_since(since).as_secs());
    }
    sums
}

/// Since when a function has waited for quota; nothing if it does not.
fn waiting_since(function: &FunctionView) -> Option<Timestamp> {
    let reserved = find(&function.status.conditions, ConditionType::QuotaReserved)?;
    let waits = matches!(reserved.reason, Reason::WaitingForQuota | Reason::ScaleUpPending | Reason::UpdatePending);
    let since = reserved.last_transition_time.parse().ok()?;
    (waits && reserved.status == ConditionStatus::False).then_some(since)
}

/// CPU in cores, memory in bytes, the rest counted.
#[expect(clippy::cast_precision_loss, reason = "a figure for a graph")]
fn amount(dimension: Dimension, vector: &Vector) -> f64 {
    let amount = vector.get(dimension) as f64;
    match dimension {
        Dimension::CpuRequests | Dimension::CpuLimits => amount / 1_000.0,
        _ => amount,
    }
}
