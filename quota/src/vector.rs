//! Amounts in every dimension of a quota: integers, no floating point, overflow refused. The largest amount is
//! `i64::MAX`, so that every amount can be written as a Kubernetes quantity.

use eventflow_api::admission::{Amounts, Dimension};
use eventflow_api::quantity::{Bytes, MilliCpu, QuantityError};
use eventflow_api::resources::PodResources;
use eventflow_api::tier::{Quota, QuotaOverride};
use serde::{Deserialize, Serialize};

/// The largest amount of any dimension.
pub const AMOUNT_MAX: u64 = i64::MAX as u64;

/// Why an amount cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// Over [`AMOUNT_MAX`].
    #[error("{0} is too large")]
    TooLarge(Dimension),
    /// Below zero.
    #[error("{0} would be negative")]
    Negative(Dimension),
}

/// Whose limit is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardSource {
    /// The Tier's `quota`.
    Tier,
    /// The Tenant's `quota`.
    Tenant,
}

/// One limit that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quota.{dimension} of the {} {error}", match .of { HardSource::Tier => "tier", HardSource::Tenant => "tenant" })]
pub struct HardError {
    /// Whose limit.
    pub of: HardSource,
    /// Which one.
    pub dimension: Dimension,
    /// What is wrong with it.
    pub error: QuantityError,
}

/// What is missing in one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shortfall {
    /// Which.
    pub dimension: Dimension,
    /// What was asked for.
    pub requested: u64,
    /// What can be had.
    pub available: u64,
    /// How much must become free for the request to fit; more than the difference if the quota is overdrawn.
    pub missing: u64,
}

/// An amount in each dimension: milli-CPU, bytes, or a count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Vector {
    /// CPU requests, in thousandths of a core.
    pub cpu_requests: u64,
    /// Memory requests, in bytes.
    pub memory_requests: u64,
    /// CPU limits, in thousandths of a core.
    pub cpu_limits: u64,
    /// Memory limits, in bytes.
    pub memory_limits: u64,
    /// Pods.
    pub pods: u64,
    /// Persistent volume claims.
    pub pvcs: u64,
    /// Functions.
    pub functions: u64,
}

impl Vector {
    /// Nothing.
    pub const ZERO: Self =
        Self { cpu_requests: 0, memory_requests: 0, cpu_limits: 0, memory_limits: 0, pods: 0, pvcs: 0, functions: 0 };

    /// One pod.
    #[must_use]
    pub fn of_pod(resources: &PodResources) -> Self {
        Self {
            cpu_requests: resources.cpu_request.millis(),
            memory_requests: resources.memory_request.bytes(),
            cpu_limits: resources.cpu_limit.millis(),
            memory_limits: resources.memory_limit.bytes(),
            pods: 1,
            ..Self::ZERO
        }
    }

    /// The hard limits of a tenant: its tier's, each replaced by the tenant's own where there is one. Lists every
    /// limit that cannot be read; one of the tier that the tenant replaces is not read at all.
    pub fn hard(tier: &Quota, tenant: Option<&QuotaOverride>) -> Result<Self, Vec<HardError>> {
        let tenant = tenant.cloned().unwrap_or_default();
        let mut errors = Vec::new();
        let mut read = |dimension, own: &Option<String>, tiers: &String, parse: Parse| {
            let (text, of) = own.as_ref().map_or((tiers, HardSource::Tier), |own| (own, HardSource::Tenant));
            parse(text).unwrap_or_else(|error| {
                errors.push(HardError { of, dimension, error });
                0
            })
        };
        let hard = Self {
            cpu_requests: read(Dimension::CpuRequests, &tenant.cpu_requests, &tier.cpu_requests, millis),
            memory_requests: read(Dimension::MemoryRequests, &tenant.memory_requests, &tier.memory_requests, bytes),
            cpu_limits: read(Dimension::CpuLimits, &tenant.cpu_limits, &tier.cpu_limits, millis),
            memory_limits: read(Dimension::MemoryLimits, &tenant.memory_limits, &tier.memory_limits, bytes),
            pods: tenant.pods.unwrap_or(tier.pods).into(),
            pvcs: tenant.persistent_volume_claims.unwrap_or(tier.persistent_volume_claims).into(),
            functions: tenant.functions.unwrap_or(tier.functions).into(),
        };
        if errors.is_empty() { Ok(hard) } else { Err(errors) }
    }

    /// The amount in one dimension.
    #[must_use]
    pub fn get(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::CpuRequests => self.cpu_requests,
            Dimension::MemoryRequests => self.memory_requests,
            Dimension::CpuLimits => self.cpu_limits,
            Dimension::MemoryLimits => self.memory_limits,
            Dimension::Pods => self.pods,
            Dimension::PersistentVolumeClaims => self.pvcs,
            Dimension::Functions => self.functions,
        }
    }

    /// The vector whose amount in each dimension is what `amount` says.
    pub fn from_fn(mut amount: impl FnMut(Dimension) -> u64) -> Self {
        Self {
            cpu_requests: amount(Dimension::CpuRequests),
            memory_requests: amount(Dimension::MemoryRequests),
            cpu_limits: amount(Dimension::CpuLimits),
            memory_limits: amount(Dimension::MemoryLimits),
            pods: amount(Dimension::Pods),
            pvcs: amount(Dimension::PersistentVolumeClaims),
            functions: amount(Dimension::Functions),
        }
    }

    /// Both together, or the first dimension in which that is too large.
    pub fn checked_add(&self, other: &Self) -> Result<Self, VectorError> {
        Self::combine(|d| self.get(d).checked_add(other.get(d)).ok_or(VectorError::TooLarge(d)))
    }

    /// What is left without `other`, or the first dimension in which `other` is more.
    pub fn checked_sub(&self, other: &Self) -> Result<Self, VectorError> {
        Self::combine(|d| self.get(d).checked_sub(other.get(d)).ok_or(VectorError::Negative(d)))
    }

    /// That many times this, or the first dimension in which that is too large.
    pub fn checked_mul(&self, times: u64) -> Result<Self, VectorError> {
        Self::combine(|d| self.get(d).checked_mul(times).ok_or(VectorError::TooLarge(d)))
    }

    /// What is left without `other`, nothing where `other` is more.
    #[must_use]
    pub fn saturating_sub(&self, other: &Self) -> Self {
        Self::from_fn(|d| self.get(d).saturating_sub(other.get(d)))
    }

    /// The larger amount of each dimension.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        Self::from_fn(|d| self.get(d).max(other.get(d)))
    }

    /// Whether no dimension is over that of `hard`.
    #[must_use]
    pub fn fits_within(&self, hard: &Self) -> bool {
        Dimension::ALL.iter().all(|d| self.get(*d) <= hard.get(*d))
    }

    /// What is missing, in each dimension where something is, for this to fit within `hard` beside `others`.
    #[must_use]
    pub fn shortfall(&self, others: &Self, hard: &Self) -> Vec<Shortfall> {
        let one = |dimension: Dimension| {
            let (requested, others, hard) = (self.get(dimension), others.get(dimension), hard.get(dimension));
            // Amounts are at most i64::MAX, so the sum of two cannot wrap.
            let missing = requested.saturating_add(others).saturating_sub(hard);
            let available = hard.saturating_sub(others);
            (missing > 0).then_some(Shortfall { dimension, requested, available, missing })
        };
        Dimension::ALL.into_iter().filter_map(one).collect()
    }

    /// Every dimension that is not zero, as people write amounts.
    #[must_use]
    pub fn amounts(&self) -> Amounts {
        let some = Dimension::ALL.into_iter().filter(|d| self.get(*d) > 0);
        some.map(|d| (d, d.amount(self.get(d)))).collect()
    }

    fn combine(amount: impl Fn(Dimension) -> Result<u64, VectorError>) -> Result<Self, VectorError> {
        let mut fault = None;
        let vector = Self::from_fn(|d| match amount(d) {
            Ok(amount) if amount <= AMOUNT_MAX => amount,
            other => {
                fault = fault.or(Some(other.err().unwrap_or(VectorError::TooLarge(d))));
                0
            }
        });
        fault.map_or(Ok(vector), Err)
    }
}

type Parse = fn(&str) -> Result<u64, QuantityError>;

fn millis(text: &str) -> Result<u64, QuantityError> {
    text.parse().map(MilliCpu::millis)
}

fn bytes(text: &str) -> Result<u64, QuantityError> {
    text.parse().map(Bytes::bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Any vector with amounts up to `max`.
    pub(crate) fn vectors(max: u64) -> impl Strategy<Value = Vector> {
        prop::array::uniform7(0..=max).prop_map(|a| {
            let mut next = a.into_iter();
            Vector::from_fn(|_| next.next().unwrap())
        })
    }

    fn free() -> Quota {
        Quota {
            cpu_requests: "2".into(),
            memory_requests: "4Gi".into(),
            cpu_limits: "4".into(),
            memory_limits: "8Gi".into(),
            pods: 10,
            persistent_volume_claims: 2,
            functions: 5,
        }
    }

    #[test]
    fn the_tenants_own_limits_replace_the_tiers() {
        let own = QuotaOverride { cpu_limits: Some("6500m".into()), pods: Some(0), ..QuotaOverride::default() };
        let hard = Vector::hard(&free(), Some(&own)).unwrap();
        let expected = Vector {
            cpu_requests: 2000,
            memory_requests: 4 << 30,
            cpu_limits: 6500,
            memory_limits: 8 << 30,
            pods: 0,
            pvcs: 2,
            functions: 5,
        };
        assert_eq!(hard, expected);
        assert_eq!(Vector::hard(&free(), None).unwrap(), Vector { cpu_limits: 4000, pods: 10, ..expected });
    }

    #[test]
    fn every_limit_that_cannot_be_read_is_listed() {
        let tier = Quota { cpu_requests: "x".into(), memory_limits: "-1".into(), cpu_limits: "y".into(), ..free() };
        let own = QuotaOverride {
            cpu_limits: Some("1".into()),
            memory_requests: Some("1e99".into()),
            ..QuotaOverride::default()
        };
        let errors = Vector::hard(&tier, Some(&own)).unwrap_err();
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "quota.cpuRequests of the tier must be a number with an optional suffix, such as 100m, 0.5, 128Mi or 1G",
                "quota.memoryRequests of the tenant is too large",
                "quota.memoryLimits of the tier must not be negative",
            ]
        );
    }

    #[test]
    fn overflow_is_refused_and_named() {
        let most = Vector { memory_limits: AMOUNT_MAX, ..Vector::ZERO };
        let one = Vector { memory_limits: 1, ..Vector::ZERO };
        assert_eq!(most.checked_add(&one), Err(VectorError::TooLarge(Dimension::MemoryLimits)));
        assert_eq!(most.checked_mul(2), Err(VectorError::TooLarge(Dimension::MemoryLimits)));
        assert_eq!(most.checked_mul(u64::MAX), Err(VectorError::TooLarge(Dimension::MemoryLimits)));
        assert_eq!(one.checked_sub(&most), Err(VectorError::Negative(Dimension::MemoryLimits)));
        assert_eq!(most.checked_add(&Vector::ZERO), Ok(most));
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_wide_integers(a in vectors(AMOUNT_MAX), b in vectors(AMOUNT_MAX), n in 0..1000u64) {
            let fits = |f: &dyn Fn(Dimension) -> i128| Dimension::ALL.iter().all(|d| (0..=i128::from(AMOUNT_MAX)).contains(&f(*d)));
            let wide = |v: &Vector, d| i128::from(v.get(d));
            let check = |got: Result<Vector, VectorError>, want: &dyn Fn(Dimension) -> i128| match got {
                Ok(v) => Dimension::ALL.iter().all(|d| wide(&v, *d) == want(*d)),
                Err(_) => !fits(want),
            };
            prop_assert!(check(a.checked_add(&b), &|d| wide(&a, d) + wide(&b, d)));
            prop_assert!(check(a.checked_sub(&b), &|d| wide(&a, d) - wide(&b, d)));
            prop_assert!(check(a.checked_mul(n), &|d| wide(&a, d) * i128::from(n)));
        }

        #[test]
        fn a_shortfall_is_exactly_what_is_missing(a in vectors(50), others in vectors(50), hard in vectors(50)) {
            let short = a.shortfall(&others, &hard);
            let sum = a.checked_add(&others).unwrap();
            prop_assert_eq!(short.is_empty(), sum.fits_within(&hard));
            let more = Vector::from_fn(|d| hard.get(d) + short.iter().find(|s| s.dimension == d).map_or(0, |s| s.missing));
            prop_assert!(sum.fits_within(&more));
            for s in &short {
                let less = Vector::from_fn(|d| more.get(d) - u64::from(d == s.dimension));
                prop_assert!(!sum.fits_within(&less));
            }
        }
    }
}
