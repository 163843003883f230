//! What the caches say of a tenant's quota, by the same pure admission that the controller decides with. Decides
//! nothing, writes nothing, costs no call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::admission::{Admission, Holder};
use eventflow_api::condition::{self, ConditionStatus, ConditionType};
use eventflow_api::function::{Function, ValidSpec};
use eventflow_api::invocation::Invocation;
use eventflow_api::labels::{PRIORITY, TENANT_QUOTA};
use eventflow_api::ledger::LEDGER_NAME;
use eventflow_api::names::{FunctionName, TenantId};
use eventflow_api::quantity::{Bytes, MilliCpu};
use eventflow_api::resources::PodResources;
use eventflow_api::tenant::Tenant as TenantObject;
use eventflow_api::tier::{Tier, TierSpec};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::ResourceExt;
use quota::demand::{Demand, RUN_GENERATION};
use quota::ledger::{Claim, Ledger};
use quota::limits::excesses;
use quota::packed;
use quota::queue::{MAX_PASS_DEFAULT, Selection, Waiting, priority, take_while_fits};
use quota::uid::Uid;
use quota::vector::{Shortfall, Vector, VectorError};
use quota::verdict::Verdict;

use super::{Cluster, Inner};

/// Stands for a function that does not exist yet: the last of those made in the same second.
const UNBORN: Uid = Uid::from_bits(u128::MAX);

/// A tenant's quota at one moment.
#[derive(Debug)]
pub struct QuotaView {
    /// The tenant.
    pub tenant: Arc<TenantObject>,
    /// Its tier.
    pub tier: Arc<Tier>,
    /// What its pods are charged, if that was counted.
    pub used: Option<Vector>,
    ledger: Ledger,
    members: Vec<Member>,
    now: Timestamp,
}

/// One function of the tenant or one run of it, as far as its quota is concerned.
#[derive(Debug, Clone)]
struct Member {
    /// The function's.
    name: FunctionName,
    /// It is a run.
    run: bool,
    uid: Uid,
    generation: u64,
    created: i64,
    priority: i32,
    since: Option<Timestamp>,
    demand: Demand,
}

/// How one function stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Its name.
    pub name: FunctionName,
    /// `admitted`, `queued` or `exceeds`.
    pub label: &'static str,
    /// What it asks for.
    pub wanted: Vector,
    /// What it holds.
    pub reserved: Vector,
    /// Its place in the queue and what is missing, if it waits.
    pub queued: Option<(usize, Vec<Shortfall>)>,
    /// Since when it has waited.
    pub since: Option<Timestamp>,
}

impl Member {
    /// None of one that the controller does not consider: it is going, or asks for more than its tier allows.
    fn of(function: &Function, tier: &TierSpec) -> Option<Self> {
        if function.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let spec = function.spec.parse().ok()?;
        if !excesses(&spec, tier).is_empty() {
            return None;
        }
        let conditions = function.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let waits = condition::find(conditions, ConditionType::QuotaReserved);
        let waits = waits.filter(|condition| condition.status == ConditionStatus::False);
        Some(Self {
            name: function.name_any().parse().ok()?,
            run: false,
            uid: function.metadata.uid.as_deref()?.parse().ok()?,
            generation: u64::try_from(function.metadata.generation?).ok()?,
            created: function.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            priority: priority(function.annotations().get(PRIORITY).map(String::as_str)),
            since: waits.and_then(|condition| condition.last_transition_time.parse().ok()),
            demand: Demand::of_function(&spec),
        })
    }

    /// A run of one of these functions that is not over.
    fn of_run(invocation: &Invocation, functions: &[Arc<Function>]) -> Option<Self> {
        let status = invocation.status.as_ref();
        if invocation.metadata.deletion_timestamp.is_some() || status.is_some_and(|status| status.phase.is_final()) {
            return None;
        }
        let function = functions.iter().find(|function| function.name_any() == invocation.spec.function)?;
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let waits = condition::find(conditions, ConditionType::QuotaReserved);
        let waits = waits.filter(|condition| condition.status == ConditionStatus::False);
        Some(Self {
            name: invocation.spec.function.parse().ok()?,
            run: true,
            uid: invocation.metadata.uid.as_deref()?.parse().ok()?,
            generation: RUN_GENERATION,
            created: invocation.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            priority: priority(invocation.annotations().get(PRIORITY).map(String::as_str)),
            since: waits.and_then(|condition| condition.last_transition_time.parse().ok()),
            demand: Demand::of_run(&function.spec.parse().ok()?.resources, 1),
        })
    }

    /// Its wish, unless it holds what it needs.
    fn waiting(&self, ledger: &Ledger, now: Timestamp) -> Option<Waiting> {
        let wants = self.demand.steady().ok()?;
        if ledger.covers(self.uid, self.generation, &wants) {
            return None;
        }
        let waited = self.since.map(|since| now.duration_since(since));
        let waited = waited.and_then(|waited| Duration::try_from(waited).ok()).unwrap_or_default();
        let claim = Claim { uid: self.uid, generation: self.generation, wants };
        Some(Waiting { claim, priority: self.priority, created: self.created, waited })
    }
}

impl QuotaView {
    /// What the caches say, or why they cannot say.
    fn of(inner: &Inner, id: &TenantId) -> Result<Self, String> {
        let tenant = inner.tenants.get("", id.as_str()).ok_or("the tenant is being set up")?;
        let (tier, hard) = limits(inner, &tenant)?;
        let namespace = id.namespace();
        let ledger = match inner.ledgers.get(&namespace, LEDGER_NAME) {
            Some(object) => packed::decode(&object.spec.packed).map_err(|error| format!("the ledger is {error}"))?,
            None => Ledger::new(hard, 0),
        };
        // The limits may be newer than the ledger; the controller follows them before it decides anything.
        let ledger = ledger.with_hard(ledger.epoch(), hard).map_err(|error| error.to_string())?;
        let functions = inner.functions.all(&namespace);
        let runs = inner.runs.all(&namespace);
        let runs = runs.iter().filter_map(|run| Member::of_run(run, &functions));
        let members = functions.iter().filter_map(|function| Member::of(function, &tier.spec)).chain(runs).collect();
        let used = inner.quotas.get(&namespace, TENANT_QUOTA).and_then(|quota| used(&quota, functions.len()));
        Ok(Self { tenant, tier, used, ledger, members, now: Timestamp::now() })
    }

    /// The hard limits.
    #[must_use]
    pub fn hard(&self) -> &Vector {
        self.ledger.hard()
    }

    /// What is reserved in all.
    #[must_use]
    pub fn reserved(&self) -> &Vector {
        self.ledger.sum()
    }

    /// Whether more is reserved than the limits allow.
    #[must_use]
    pub fn is_over_quota(&self) -> bool {
        self.ledger.is_over_quota()
    }

    /// What becomes of those that wait.
    fn selection(&self, members: &[Member]) -> Selection {
        let waiting: Vec<_> = members.iter().filter_map(|member| member.waiting(&self.ledger, self.now)).collect();
        take_while_fits(&self.ledger, &waiting, MAX_PASS_DEFAULT)
    }

    /// The verdict on a function as it is now.
    #[must_use]
    pub fn verdict(&self, name: &FunctionName) -> Option<Verdict> {
        let member = self.members.iter().find(|member| !member.run && member.name == *name)?;
        Some(Verdict::of(&self.ledger, &self.selection(&self.members), member.uid, &member.demand))
    }

    /// The verdict on a run as it is now.
    #[must_use]
    pub fn verdict_of_run(&self, uid: Uid) -> Option<Verdict> {
        let member = self.members.iter().find(|member| member.run && member.uid == uid)?;
        Some(Verdict::of(&self.ledger, &self.selection(&self.members), member.uid, &member.demand))
    }

    /// The verdict on a run of a function of that name and of these resources if it were asked for now.
    ///
    /// # Errors
    /// When the amounts are too large to be added up.
    pub fn foresee_run(&self, name: &FunctionName, resources: &PodResources) -> Result<Verdict, VectorError> {
        let demand = Demand::of_run(resources, 1);
        demand.steady()?;
        let (name, created) = (name.clone(), self.now.as_second());
        let unborn = Member { name, run: true, uid: UNBORN, generation: 1, created, priority: 0, since: None, demand };
        let members: Vec<_> = self.members.iter().cloned().chain([unborn]).collect();
        Ok(Verdict::of(&self.ledger, &self.selection(&members), UNBORN, &demand))
    }

    /// The verdict on a function of that name if it were created, or changed, to be so.
    ///
    /// # Errors
    /// When the amounts are too large to be added up.
    pub fn foresee(&self, name: &FunctionName, spec: &ValidSpec) -> Result<Verdict, VectorError> {
        let demand = Demand::of_function(spec);
        demand.steady()?;
        let mut members = self.members.clone();
        let uid = match members.iter_mut().find(|member| !member.run && member.name == *name) {
            Some(member) => {
                (member.demand, member.generation) = (demand, member.generation + 1);
                member.uid
            }
            None => {
                let (name, created) = (name.clone(), self.now.as_second());
                let run = false;
                members.push(Member {
                    name,
                    run,
                    uid: UNBORN,
                    generation: 1,
                    created,
                    priority: 0,
                    since: None,
                    demand,
                });
                UNBORN
            }
        };
        Ok(Verdict::of(&self.ledger, &self.selection(&members), uid, &demand))
    }

    /// How each function stands, by name.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let selection = self.selection(&self.members);
        let functions = self.members.iter().filter(|member| !member.run);
        let mut standings: Vec<_> = functions.map(|member| self.standing(member, &selection)).collect();
        standings.sort_by(|a, b| a.name.cmp(&b.name));
        standings
    }

    fn standing(&self, member: &Member, selection: &Selection) -> Standing {
        let blocked = selection.blocked.iter().find(|blocked| blocked.uid == member.uid);
        let exceeds = selection.exceeding.iter().any(|exceeding| exceeding.uid == member.uid);
        Standing {
            name: member.name.clone(),
            label: match (blocked, exceeds) {
                (Some(_), _) => "queued",
                (_, true) => "exceeds",
                _ => "admitted",
            },
            wanted: member.demand.steady().unwrap_or(Vector::ZERO),
            reserved: self.ledger.held(member.uid),
            queued: blocked.map(|blocked| (blocked.position, blocked.shortfall.clone())),
            since: member.since,
        }
    }

    /// What is held by functions that are gone, or going: most first.
    #[must_use]
    pub fn leaving(&self) -> Vec<Holder> {
        let lives = |uid: Uid| self.members.iter().any(|member| member.uid == uid);
        let held = self.ledger.reservations().iter().filter(|(uid, _)| !lives(**uid));
        let mut held: Vec<_> = held.map(|(uid, reservation)| (uid, reservation.vector)).collect();
        held.sort_by_key(|(uid, vector)| (std::cmp::Reverse((vector.pods, vector.cpu_requests)), **uid));
        held.into_iter().map(|(uid, vector)| Holder { name: uid.to_string(), reserved: vector.amounts() }).collect()
    }

    /// A verdict in the words of the API.
    #[must_use]
    pub fn tell(&self, verdict: &Verdict) -> Admission {
        verdict.answer(|uid| self.name(uid))
    }

    /// A verdict as a sentence.
    #[must_use]
    pub fn sentence(&self, verdict: &Verdict) -> String {
        verdict.message(|uid| self.name(uid))
    }

    fn name(&self, uid: Uid) -> Option<String> {
        let member = self.members.iter().find(|member| member.uid == uid)?;
        Some(if member.run { format!("a run of {}", member.name) } else { member.name.to_string() })
    }
}

/// The tenant's tier and hard limits.
fn limits(inner: &Inner, tenant: &TenantObject) -> Result<(Arc<Tier>, Vector), String> {
    let name = &tenant.spec.tier;
    let tier = inner.tiers.get("", name).ok_or_else(|| format!("the tier {name} does not exist"))?;
    let hard = Vector::hard(&tier.spec.quota, tenant.spec.quota.as_ref()).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join("; ")
    })?;
    Ok((tier, hard))
}

/// What the API server charged, once it has counted. It does not count functions: that would cost a swap of the quota
/// for each.
fn used(quota: &ResourceQuota, functions: usize) -> Option<Vector> {
    let used = quota.status.as_ref()?.used.as_ref()?;
    let text = |name: &str| used.get(name).map_or("0", |quantity| quantity.0.as_str());
    let millis = |name| text(name).parse().map(MilliCpu::millis).ok();
    let bytes = |name| text(name).parse().map(Bytes::bytes).ok();
    Some(Vector {
        cpu_requests: millis("requests.cpu")?,
        memory_requests: bytes("requests.memory")?,
        cpu_limits: millis("limits.cpu")?,
        memory_limits: bytes("limits.memory")?,
        pods: text("pods").parse().ok()?,
        pvcs: text("persistentvolumeclaims").parse().ok()?,
        functions: functions as u64,
    })
}

/// Sums over the tenants of one tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// The hard limits.
    pub hard: Vector,
    /// What is reserved.
    pub reserved: Vector,
    /// What the pods that are there are charged.
    pub used: Vector,
}

impl Totals {
    fn add(&mut self, inner: &Inner, id: &TenantId, hard: &Vector) {
        let namespace = id.namespace();
        let ledger = inner.ledgers.get(&namespace, LEDGER_NAME);
        let ledger = ledger.and_then(|object| packed::decode(&object.spec.packed).ok());
        let used = inner.quotas.get(&namespace, TENANT_QUOTA).and_then(|quota| used(&quota, 0));
        // A sum over what can be counted says nothing any more; the last that could be is kept.
        let add = |sum: &mut Vector, more: &Vector| *sum = sum.checked_add(more).unwrap_or(*sum);
        add(&mut self.hard, hard);
        add(&mut self.reserved, ledger.as_ref().map_or(&Vector::ZERO, Ledger::sum));
        add(&mut self.used, &used.unwrap_or(Vector::ZERO));
    }
}

impl Cluster {
    /// Sums over the tenants of each tier that exists, by its name.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<String, Totals> {
        let tiers = self.inner.tiers.all("");
        let mut totals: BTreeMap<_, _> = tiers.iter().map(|tier| (tier.name_any(), Totals::default())).collect();
        for tenant in self.inner.tenants.all("") {
            let id = tenant.name_any().parse::<TenantId>();
            if let (Ok(id), Ok((tier, hard))) = (id, limits(&self.inner, &tenant))
                && let Some(totals) = totals.get_mut(&tier.name_any())
            {
                totals.add(&self.inner, &id, &hard);
            }
        }
        totals
    }

    /// The tenant's quota at this moment, or why nothing can be said of it.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn quota(&self, id: &TenantId) -> Result<QuotaView, String> {
        QuotaView::of(&self.inner, id)
    }

    /// The limits of a tenant's tier and its hard quota, or why nothing can be said of them.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn limits(&self, tenant: &TenantObject) -> Result<(Arc<Tier>, Vector), String> {
        limits(&self.inner, tenant)
    }
}
