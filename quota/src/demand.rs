//! What a function needs of its tenant's quota, and the least that must change for it to fit.

use eventflow_api::function::ValidSpec;
use eventflow_api::quantity::{Bytes, MilliCpu};
use eventflow_api::resources::{MEMORY_LIMIT_MIN, PodResources};

use crate::vector::{Vector, VectorError};

/// The generation that a run's reservation is made for: nothing that matters of a run ever changes.
pub const RUN_GENERATION: u64 = 1;

/// What a function, or one run of it, needs: a number of equal pods, and what it needs besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Pods that run when nothing is being replaced.
    pub replicas: u32,
    /// CPU and memory of each.
    pub resources: PodResources,
    /// What is needed however many pods there are.
    pub fixed: Vector,
}

/// The least that must change for a demand to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallestChange {
    /// That many replicas fit as they are, one more does not.
    Replicas(u32),
    /// Not even one replica fits as it is; one of these resources does, and none of them can be more.
    Resources(PodResources),
    /// No size fits: the quota itself must grow.
    Quota,
}

impl Demand {
    /// What a function needs: its pods, none while suspended, and one place among the tenant's functions.
    #[must_use]
    pub fn of_function(spec: &ValidSpec) -> Self {
        let fixed = Vector { functions: 1, ..Vector::ZERO };
        Self { replicas: spec.wanted_replicas(), resources: spec.resources, fixed }
    }

    /// What one run of a function needs: `parallelism` pods at once and no place among the functions.
    #[must_use]
    pub fn of_run(resources: &PodResources, parallelism: u32) -> Self {
        Self { replicas: parallelism, resources: *resources, fixed: Vector::ZERO }
    }

    /// What it needs while nothing is being replaced, or replaced in place.
    pub fn steady(&self) -> Result<Vector, VectorError> {
        self.of_pods(self.replicas.into())
    }

    /// What it needs while a roll-out may run one pod more; no more than [`Demand::steady`] if there are no pods.
    pub fn with_surge(&self) -> Result<Vector, VectorError> {
        self.of_pods(u64::from(self.replicas) + u64::from(self.replicas > 0))
    }

    fn of_pods(&self, pods: u64) -> Result<Vector, VectorError> {
        Vector::of_pod(&self.resources).checked_mul(pods)?.checked_add(&self.fixed)
    }

    /// The next size to give a Deployment that runs as `running`, on the way to this one.
    ///
    /// A Deployment whose size and template change in one write resizes its **old** pods first, so it may for a
    /// while charge more than both its old and its new size (from 1 x 4 CPU to 4 x 1 CPU: 16). In two writes, fewer
    /// pods first or the new template first, it never charges more than the larger of the two in any dimension.
    #[must_use]
    pub fn next_from(&self, running: &Self) -> Self {
        if self.resources == running.resources || self.replicas == running.replicas {
            return *self;
        }
        if self.replicas < running.replicas {
            Self { resources: running.resources, ..*self }
        } else {
            Self { replicas: running.replicas, ..*self }
        }
    }

    /// The least that must change for this to fit in `room`.
    #[must_use]
    pub fn smallest_change(&self, room: &Vector) -> SmallestChange {
        let Ok(left) = room.checked_sub(&self.fixed) else { return SmallestChange::Quota };
        let pod = Vector::of_pod(&self.resources);
        let times = |need: u64, have: u64| have.checked_div(need).unwrap_or(u64::MAX);
        let [cpu_request, memory_request] =
            [times(pod.cpu_requests, left.cpu_requests), times(pod.memory_requests, left.memory_requests)];
        let [cpu_limit, memory_limit] =
            [times(pod.cpu_limits, left.cpu_limits), times(pod.memory_limits, left.memory_limits)];
        let most = cpu_request.min(memory_request).min(cpu_limit).min(memory_limit).min(left.pods);
        match u32::try_from(most).unwrap_or(u32::MAX).min(self.replicas) {
            0 if left.pods > 0 => self.shrunk_to(&left),
            0 => SmallestChange::Quota,
            replicas => SmallestChange::Replicas(replicas),
        }
    }

    /// One pod with as much of its resources as `left` holds; a request never over its limit.
    fn shrunk_to(&self, left: &Vector) -> SmallestChange {
        let asked = self.resources;
        let cpu_limit = asked.cpu_limit.min(MilliCpu::from_millis(left.cpu_limits));
        let memory_limit = asked.memory_limit.min(Bytes::from_bytes(left.memory_limits));
        if cpu_limit == MilliCpu::default() || memory_limit < MEMORY_LIMIT_MIN {
            return SmallestChange::Quota;
        }
        SmallestChange::Resources(PodResources {
            cpu_request: asked.cpu_request.min(MilliCpu::from_millis(left.cpu_requests)).min(cpu_limit),
            memory_request: asked.memory_request.min(Bytes::from_bytes(left.memory_requests)).min(memory_limit),
            cpu_limit,
            memory_limit,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use eventflow_api::function::{CallerAuth, FunctionSpec};
    use eventflow_api::resources::Resources;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    pub(crate) fn resources(cpu: [u64; 2], memory: [u64; 2]) -> PodResources {
        PodResources {
            cpu_request: MilliCpu::from_millis(cpu[0]),
            memory_request: Bytes::from_bytes(memory[0]),
            cpu_limit: MilliCpu::from_millis(cpu[1]),
            memory_limit: Bytes::from_bytes(memory[1]),
        }
    }

    fn function(cpu_request: &str, replicas: i32, suspend: bool) -> Demand {
        let spec = FunctionSpec {
            image: "hello:1".into(),
            command: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            replicas,
            port: None,
            auth: CallerAuth::default(),
            resources: Resources { cpu_request: Some(cpu_request.to_owned()), ..Resources::default() },
            timeout_seconds: 1,
            suspend,
        };
        Demand::of_function(&spec.parse().unwrap())
    }

    #[test]
    fn five_times_400m() {
        let demand = function("400m", 5, false);
        let steady = demand.steady().unwrap();
        assert_eq!((steady.cpu_requests, steady.cpu_limits, steady.pods, steady.functions), (2000, 2500, 5, 1));
        let surge = demand.with_surge().unwrap();
        assert_eq!(
            (surge.cpu_requests, surge.memory_requests, surge.pods, surge.functions),
            (2400, (6 * 128) << 20, 6, 1)
        );
        let room = Vector { cpu_requests: 1000, ..Vector::from_fn(|_| 1 << 40) };
        assert_eq!(demand.smallest_change(&room), SmallestChange::Replicas(2));
        let less = Vector { cpu_requests: 399, ..room };
        let SmallestChange::Resources(fits) = demand.smallest_change(&less) else { panic!() };
        assert_eq!((fits.cpu_request.millis(), fits.cpu_limit), (399, demand.resources.cpu_limit));
        assert_eq!(demand.smallest_change(&Vector { functions: 0, ..room }), SmallestChange::Quota);
        assert_eq!(demand.smallest_change(&Vector { pods: 0, ..room }), SmallestChange::Quota);
        assert_eq!(demand.smallest_change(&Vector { memory_limits: 1 << 20, ..room }), SmallestChange::Quota);
    }

    #[test]
    fn what_is_suspended_needs_only_its_place() {
        let demand = function("400m", 5, true);
        let place = Vector { functions: 1, ..Vector::ZERO };
        assert_eq!((demand.steady().unwrap(), demand.with_surge().unwrap()), (place, place));
    }

    #[test]
    fn overflow_is_refused() {
        let demand = Demand { resources: resources([0, i64::MAX as u64 / 2], [1, 1 << 30]), ..function("1", 3, false) };
        assert!(demand.steady().is_err());
        let two = Demand { replicas: 2, ..demand };
        assert!(two.steady().is_ok() && two.with_surge().is_err());
    }

    fn demands() -> impl Strategy<Value = Demand> {
        let pair = |max: u64, least: u64| (0..=max, least..=max).prop_map(|(a, b)| [a.min(b), b]);
        let mib = |[a, b]: [u64; 2]| [a << 20, b << 20];
        (0..=6u32, pair(6, 1), pair(20, 8), any::<bool>()).prop_map(move |(replicas, cpu, memory, run)| Demand {
            replicas,
            resources: resources(cpu, mib(memory)),
            fixed: Vector { functions: u64::from(!run), ..Vector::ZERO },
        })
    }

    fn rooms() -> impl Strategy<Value = Vector> {
        (crate::vector::tests::vectors(30), 0..=100u64).prop_map(|(v, m)| Vector {
            memory_requests: v.memory_requests << 20,
            memory_limits: (v.memory_limits + m) << 20,
            ..v
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn the_smallest_change_fits_and_less_does_not(demand in demands(), room in rooms()) {
            let fits = |d: &Demand| d.steady().unwrap().fits_within(&room);
            let one = |resources| Demand { replicas: 1, resources, ..demand };
            prop_assume!(!fits(&demand));
            match demand.smallest_change(&room) {
                SmallestChange::Replicas(n) => {
                    let with = |replicas| Demand { replicas, ..demand };
                    prop_assert!(n >= 1 && n < demand.replicas && fits(&with(n)) && !fits(&with(n + 1)));
                }
                SmallestChange::Resources(found) => {
                    prop_assert!(!fits(&one(demand.resources)));
                    prop_assert!(fits(&one(found)));
                    let valid = |r: &PodResources| r.cpu_request <= r.cpu_limit && r.memory_request <= r.memory_limit;
                    prop_assert!(valid(&found));
                    let asked = demand.resources;
                    let (c, b) = (|q: MilliCpu| MilliCpu::from_millis(q.millis() + 1), |q: Bytes| Bytes::from_bytes(q.bytes() + 1));
                    for (shrunk, more) in [
                        (found.cpu_request < asked.cpu_request, PodResources { cpu_request: c(found.cpu_request), ..found }),
                        (found.cpu_limit < asked.cpu_limit, PodResources { cpu_limit: c(found.cpu_limit), ..found }),
                        (found.memory_request < asked.memory_request, PodResources { memory_request: b(found.memory_request), ..found }),
                        (found.memory_limit < asked.memory_limit, PodResources { memory_limit: b(found.memory_limit), ..found }),
                    ] {
                        prop_assert!(!shrunk || !valid(&more) || !fits(&one(more)));
                    }
                }
                SmallestChange::Quota => {
                    let least = resources([0, 1], [0, MEMORY_LIMIT_MIN.bytes()]);
                    prop_assert!(demand.replicas == 0 || !fits(&one(least)));
                }
            }
        }

        #[test]
        fn steps_lead_there_and_never_need_more_than_the_larger_end(from in demands(), to in demands()) {
            let to = Demand { fixed: from.fixed, ..to };
            let bound = from.steady().unwrap().max(&to.steady().unwrap());
            let mut at = from;
            for _ in 0..2 {
                let next = to.next_from(&at);
                // While one write is carried out there are at most so many pods, each of the old or the new kind.
                let pods = at.replicas.max(next.replicas).into();
                let both = Vector::of_pod(&at.resources).max(&Vector::of_pod(&next.resources));
                let worst = both.checked_mul(pods).unwrap().checked_add(&at.fixed).unwrap();
                prop_assert!(worst.fits_within(&bound), "{at:?} -> {next:?} needs {worst:?}, more than {bound:?}");
                at = next;
            }
            prop_assert_eq!(at, to);
        }
    }
}
