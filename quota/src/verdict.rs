//! The outcome for one function. Status, events, the HTTP answer and metrics are all told from this one value, so
//! they cannot disagree.

use eventflow_api::admission::{Admission, Holder, Shortfall as ToldShortfall, SmallestChange as ToldChange};
use eventflow_api::condition::Reason;
use eventflow_api::resources::{PodResources, Resources};

use crate::demand::{Demand, SmallestChange};
use crate::ledger::Ledger;
use crate::queue::Selection;
use crate::uid::Uid;
use crate::vector::{Shortfall, Vector};

/// Most holders that are told; the rest hold less than each of these.
pub const HOLDERS_MAX: usize = 10;
/// Most holders that a message names; all that are told are in the answer.
const HOLDERS_NAMED: usize = 3;

/// What of a function runs while its wish is not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// Nothing: it is new.
    Nothing,
    /// Fewer pods of the same size.
    FewerPods,
    /// Pods of another size.
    OtherPods,
}

impl Meanwhile {
    fn of(held: &Vector, demand: &Demand) -> Self {
        let same = Demand { replicas: u32::try_from(held.pods).unwrap_or(u32::MAX), ..*demand };
        match held {
            held if *held == Vector::ZERO => Self::Nothing,
            held if same.steady() == Ok(*held) => Self::FewerPods,
            _ => Self::OtherPods,
        }
    }

    fn told(self) -> &'static str {
        if self == Self::Nothing { "" } else { "; what runs now runs on" }
    }
}

/// The outcome for one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All that it wants is reserved.
    Admitted {
        /// What it holds.
        reserved: Vector,
    },
    /// It will fit when something goes.
    Queued {
        /// Its place in the tenant's queue, from 1.
        position: usize,
        /// What is missing; empty if it only waits for its turn.
        shortfall: Vec<Shortfall>,
        /// Who holds the quota, and how much, largest first in the scarcest dimension; at most [`HOLDERS_MAX`].
        holders: Vec<(Uid, Vector)>,
        /// What goes on meanwhile.
        meanwhile: Meanwhile,
    },
    /// It will never fit this quota.
    Exceeds {
        /// Requested and limit of each dimension that is too small.
        over: Vec<Shortfall>,
        /// What would fit.
        change: SmallestChange,
        /// What it asked for, per pod.
        asked: PodResources,
        /// What goes on meanwhile.
        meanwhile: Meanwhile,
    },
}

impl Verdict {
    /// The verdict on `uid`, which asks for `demand`, after `selection` was made from `ledger`. One that is in no part
    /// of the selection is not waiting: it holds what it wants.
    #[must_use]
    pub fn of(ledger: &Ledger, selection: &Selection, uid: Uid, demand: &Demand) -> Self {
        let held = ledger.held(uid);
        let meanwhile = Meanwhile::of(&held, demand);
        if let Some(e) = selection.exceeding.iter().find(|e| e.uid == uid) {
            let change = demand.smallest_change(ledger.hard());
            return Self::Exceeds { over: e.over.clone(), change, asked: demand.resources, meanwhile };
        }
        if let Some(b) = selection.blocked.iter().find(|b| b.uid == uid) {
            let holders = holders(ledger, uid, &b.shortfall);
            return Self::Queued { position: b.position, shortfall: b.shortfall.clone(), holders, meanwhile };
        }
        let picked = selection.picked.iter().find(|c| c.uid == uid);
        Self::Admitted { reserved: picked.map_or(held, |c| held.max(&c.wants)) }
    }

    /// The bounded metric label: `admitted`, `queued` or `exceeds`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Admitted { .. } => "admitted",
            Self::Queued { .. } => "queued",
            Self::Exceeds { .. } => "exceeds",
        }
    }

    /// The reason of the condition `QuotaReserved`. An update that waits names itself: a larger size, or a new
    /// version; what ran before runs on.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Admitted { .. } => Reason::Reserved,
            Self::Exceeds { .. } => Reason::ExceedsMaxQuota,
            Self::Queued { meanwhile: Meanwhile::Nothing, .. } => Reason::WaitingForQuota,
            Self::Queued { meanwhile: Meanwhile::FewerPods, .. } => Reason::ScaleUpPending,
            Self::Queued { meanwhile: Meanwhile::OtherPods, .. } => Reason::UpdatePending,
        }
    }

    /// What to tell a person, and what they can do. `name` gives a function's name, if it is still known.
    pub fn message(&self, name: impl Fn(Uid) -> Option<String>) -> String {
        match self {
            Self::Admitted { reserved } => format!("reserved {}", list(reserved)),
            Self::Queued { position, shortfall, holders, meanwhile } => {
                let missing: Vec<_> = shortfall.iter().map(missing).collect();
                let missing =
                    if missing.is_empty() { "those before it go first".to_owned() } else { missing.join(", ") };
                let names = holders.iter().take(HOLDERS_NAMED).map(|(uid, _)| name_of(*uid, &name)).collect::<Vec<_>>();
                let holders =
                    if names.is_empty() { String::new() } else { format!("; most is held by {}", names.join(", ")) };
                format!("number {position} in the queue: {missing}{holders}{}", meanwhile.told())
            }
            Self::Exceeds { over, change, asked, meanwhile } => {
                let over: Vec<_> = over.iter().map(limit).collect();
                format!("can never fit the quota: {}; {}{}", over.join(", "), advice(change, asked), meanwhile.told())
            }
        }
    }

    /// The answer of the HTTP API. `name` gives a function's name, if it is still known.
    pub fn answer(&self, name: impl Fn(Uid) -> Option<String>) -> Admission {
        match self {
            Self::Admitted { reserved } => Admission::Admitted { reserved: reserved.amounts() },
            Self::Queued { position, shortfall, holders, .. } => Admission::Queued {
                position: *position,
                shortfall: shortfall.iter().map(told).collect(),
                holders: holders
                    .iter()
                    .map(|(uid, held)| Holder { name: name_of(*uid, &name), reserved: held.amounts() })
                    .collect(),
            },
            Self::Exceeds { over, change, asked, .. } => Admission::Exceeds {
                over: over.iter().map(told).collect(),
                smallest_change: match change {
                    SmallestChange::Replicas(replicas) => ToldChange::Replicas { replicas: *replicas },
                    SmallestChange::Resources(found) => {
                        ToldChange::Resources { replicas: 1, resources: differences(asked, found) }
                    }
                    SmallestChange::Quota => ToldChange::Quota,
                },
            },
        }
    }
}

/// Everyone but `uid`, the largest in the scarcest dimension first (the one that misses the greatest part of its
/// limit), then by pods.
fn holders(ledger: &Ledger, uid: Uid, shortfall: &[Shortfall]) -> Vec<(Uid, Vector)> {
    let part = |s: &Shortfall| u128::from(s.missing) * 1_000_000 / u128::from(ledger.hard().get(s.dimension).max(1));
    let scarcest = shortfall.iter().max_by_key(|s| part(s)).map(|s| s.dimension);
    let size = |v: &Vector| (scarcest.map_or(0, |d| v.get(d)), v.pods);
    let others = ledger.reservations().iter().filter(|(other, _)| **other != uid);
    let mut holders: Vec<_> = others.map(|(other, r)| (*other, r.vector)).filter(|(_, v)| size(v) > (0, 0)).collect();
    holders.sort_by(|a, b| size(&b.1).cmp(&size(&a.1)).then(a.0.cmp(&b.0)));
    holders.truncate(HOLDERS_MAX);
    holders
}

fn name_of(uid: Uid, name: &impl Fn(Uid) -> Option<String>) -> String {
    name(uid).unwrap_or_else(|| uid.to_string())
}

fn list(vector: &Vector) -> String {
    let amounts = vector.amounts();
    let texts: Vec<_> = amounts.iter().map(|(dimension, amount)| format!("{dimension} {amount}")).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

fn missing(s: &Shortfall) -> String {
    let d = s.dimension;
    format!("{d} {} requested, {} free, {} missing", d.amount(s.requested), d.amount(s.available), d.amount(s.missing))
}

fn limit(s: &Shortfall) -> String {
    format!(
        "{} {} requested, the limit is {}",
        s.dimension,
        s.dimension.amount(s.requested),
        s.dimension.amount(s.available)
    )
}

fn told(s: &Shortfall) -> ToldShortfall {
    ToldShortfall {
        dimension: s.dimension,
        requested: s.dimension.amount(s.requested),
        available: s.dimension.amount(s.available),
        missing: s.dimension.amount(s.missing),
    }
}

/// Those of `found` that are less than what was asked.
fn differences(asked: &PodResources, found: &PodResources) -> Resources {
    Resources {
        cpu_request: (found.cpu_request < asked.cpu_request).then(|| found.cpu_request.to_string()),
        memory_request: (found.memory_request < asked.memory_request).then(|| found.memory_request.to_string()),
        cpu_limit: (found.cpu_limit < asked.cpu_limit).then(|| found.cpu_limit.to_string()),
        memory_limit: (found.memory_limit < asked.memory_limit).then(|| found.memory_limit.to_string()),
    }
}

fn advice(change: &SmallestChange, asked: &PodResources) -> String {
    match change {
        SmallestChange::Replicas(replicas) => format!("{replicas} replicas would fit"),
        SmallestChange::Quota => "no size of it would fit, the quota must be raised".to_owned(),
        SmallestChange::Resources(found) => {
            let Resources { cpu_request, memory_request, cpu_limit, memory_limit } = differences(asked, found);
            let named = [
                ("cpuRequest", cpu_request),
                ("memoryRequest", memory_request),
                ("cpuLimit", cpu_limit),
                ("memoryLimit", memory_limit),
            ];
            let texts: Vec<_> = named.into_iter().filter_map(|(n, t)| t.map(|t| format!("{n} {t}"))).collect();
            format!("1 replica with at most {} would fit", texts.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::tests::resources;
    use crate::ledger::Claim;
    use crate::queue::{MAX_PASS_DEFAULT, Waiting, take_while_fits};
    use eventflow_api::admission::Dimension;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    fn demand(replicas: u32, cpu: u64) -> Demand {
        let fixed = Vector { functions: 1, ..Vector::ZERO };
        Demand { replicas, resources: resources([cpu, cpu], [128 * MIB, 128 * MIB]), fixed }
    }

    fn hard() -> Vector {
        Vector {
            cpu_requests: 1000,
            cpu_limits: 1000,
            memory_requests: 4096 * MIB,
            memory_limits: 4096 * MIB,
            pods: 10,
            pvcs: 0,
            functions: 5,
        }
    }

    fn ledger(held: &[(u128, Demand)]) -> Ledger {
        let claims: Vec<_> = held.iter().map(|(n, d)| claim(*n, 1, d)).collect();
        Ledger::new(hard(), 1).admit(1, &claims).unwrap()
    }

    fn claim(n: u128, generation: u64, demand: &Demand) -> Claim {
        Claim { uid: Uid::from_bits(n), generation, wants: demand.steady().unwrap() }
    }

    fn judge(ledger: &Ledger, n: u128, demand: &Demand) -> Verdict {
        let waiting = Waiting { claim: claim(n, 2, demand), priority: 0, created: 0, waited: Duration::ZERO };
        Verdict::of(ledger, &take_while_fits(ledger, &[waiting], MAX_PASS_DEFAULT), Uid::from_bits(n), demand)
    }

    fn name(uid: Uid) -> Option<String> {
        (uid.bits() < 100).then(|| format!("f{}", uid.bits()))
    }

    #[test]
    fn five_times_400m_in_one_cpu_can_never_fit() {
        let verdict = judge(&ledger(&[]), 1, &demand(5, 400));
        assert_eq!((verdict.label(), verdict.reason()), ("exceeds", Reason::ExceedsMaxQuota));
        assert_eq!(
            verdict.message(name),
            "can never fit the quota: cpuRequests 2 requested, the limit is 1, cpuLimits 2 requested, the limit is 1; 2 replicas would fit"
        );
        let large = judge(&ledger(&[]), 1, &demand(3, 1500));
        assert!(
            large.message(name).ends_with("; 1 replica with at most cpuRequest 1, cpuLimit 1 would fit"),
            "{}",
            large.message(name)
        );
        let Admission::Exceeds { over, smallest_change, .. } = large.answer(name) else { panic!() };
        assert_eq!((over[0].requested.as_str(), over[0].available.as_str()), ("4500m", "1"));
        let text = Some("1".to_owned());
        let resources = Resources { cpu_request: text.clone(), cpu_limit: text, ..Resources::default() };
        assert_eq!(smallest_change, ToldChange::Resources { replicas: 1, resources });
    }

    #[test]
    fn who_waits_is_told_what_is_missing_and_who_holds_it() {
        let ledger = ledger(&[(1, demand(1, 100)), (2, demand(2, 300)), (200, demand(3, 50))]);
        let verdict = judge(&ledger, 4, &demand(2, 250));
        assert_eq!((verdict.label(), verdict.reason()), ("queued", Reason::WaitingForQuota));
        assert_eq!(
            verdict.message(name),
            "number 1 in the queue: cpuRequests 500m requested, 150m free, 350m missing, cpuLimits 500m requested, 150m free, 350m missing; \
             most is held by f2, 00000000-0000-0000-0000-0000000000c8, f1"
        );
        let Admission::Queued { holders, shortfall, position } = verdict.answer(name) else { panic!() };
        assert_eq!((position, shortfall.len(), holders[0].name.as_str()), (1, 2, "f2"));
        assert_eq!(holders[0].reserved[&Dimension::CpuRequests], "600m");
        assert!(!holders[0].reserved.contains_key(&Dimension::PersistentVolumeClaims));
    }

    #[test]
    fn an_update_that_waits_says_that_the_old_one_runs_on() {
        let ledger = ledger(&[(1, demand(2, 300)), (2, demand(1, 300))]);
        let larger = judge(&ledger, 1, &demand(3, 300));
        assert_eq!(larger.reason(), Reason::ScaleUpPending);
        assert!(
            larger.message(name).ends_with("; most is held by f2; what runs now runs on"),
            "{}",
            larger.message(name)
        );
        assert_eq!(judge(&ledger, 1, &demand(2, 401)).reason(), Reason::UpdatePending);
        assert_eq!(
            judge(&ledger, 1, &demand(2, 300)),
            Verdict::Admitted { reserved: demand(2, 300).steady().unwrap() }
        );
    }

    #[test]
    fn what_fits_is_admitted_with_the_amounts() {
        let verdict = judge(&ledger(&[]), 1, &demand(2, 250));
        assert_eq!((verdict.label(), verdict.reason()), ("admitted", Reason::Reserved));
        assert_eq!(
            verdict.message(name),
            "reserved cpuRequests 500m, memoryRequests 256Mi, cpuLimits 500m, memoryLimits 256Mi, pods 2, functions 1"
        );
    }
}
