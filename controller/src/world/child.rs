//! The kinds that the controller makes, and what is read of them.

use std::fmt::Debug;

use eventflow_api::labels;
use eventflow_api::quantity::{Bytes, MilliCpu};
use eventflow_api::resources::PodResources;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, PodSpec, ResourceQuota, ResourceRequirements, Service, ServiceAccount, ServiceSpec,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::table::Seen;
use super::{Key, Name, views};
use crate::apply::fenced::MARK;
use crate::desired::UID;
use crate::desired::deployment::template_digest;
use crate::desired::namespace::POD_SECURITY;
use crate::digest::{self, Digest};

/// A kind that the controller makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChildKind {
    /// Of a tenant.
    Namespace,
    /// Of a tenant.
    ResourceQuota,
    /// Of a tenant.
    LimitRange,
    /// Of a tenant.
    NetworkPolicy,
    /// Of a tenant.
    ServiceAccount,
    /// Of a function.
    Deployment,
    /// Of a function.
    Service,
}

impl ChildKind {
    /// Every kind, in the order of its value.
    pub const ALL: [Self; 7] = [
        Self::Namespace,
        Self::ResourceQuota,
        Self::LimitRange,
        Self::NetworkPolicy,
        Self::ServiceAccount,
        Self::Deployment,
        Self::Service,
    ];
}

/// What is read of an object that the controller makes.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildView {
    /// The object that controls it.
    pub owner: Option<Owner>,
    /// Digest of everything that the controller decides about it.
    pub digest: Digest,
    /// It is being deleted.
    pub deleting: bool,
    /// How far a Deployment has come.
    pub rollout: Option<Rollout>,
}

impl ChildView {
    /// Whether the object of that identity controls it.
    #[must_use]
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.uid == uid)
    }
}

/// The object that controls another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// API version and kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
}

/// How far a Deployment has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The Deployment's controller has seen its newest spec.
    pub observed: bool,
    /// Pods that exist, of every version.
    pub replicas: i32,
    /// Pods that exist, of the newest version.
    pub updated: i32,
    /// Pods asked for, and what each charges; nothing if that cannot be told.
    pub size: Option<(u32, PodResources)>,
    /// A roll-out may run one pod more.
    pub surge: bool,
    /// The generation of the function that it was written for.
    pub generation: Option<u64>,
    /// Another one with every write of a controller.
    pub mark: Option<String>,
    /// The template it was written with.
    pub template: Option<String>,
    /// Why pods cannot be made.
    pub failure: Option<String>,
    /// It made no progress for too long.
    pub timed_out: bool,
}

/// A kind that the controller makes.
pub trait Child:
    kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Which one.
    const KIND: ChildKind;

    /// Everything that the controller decides about it besides labels and owner, in a form in which equal
    /// meaning is equal value.
    fn essence(&self) -> Value;

    /// Access to its kind within `namespace`, which is empty for a kind without.
    fn api(client: Client, namespace: &str) -> Api<Self>;

    /// How far it has come, if it is a Deployment.
    fn rollout(&self) -> Option<Rollout> {
        None
    }
}

/// Reads an object.
pub fn see<K: Child>(object: &K) -> (Name, Seen<ChildView>) {
    let meta = object.meta();
    let name = Name::of(meta);
    let group = match K::KIND {
        ChildKind::Namespace => views::tenant_group(&name.name),
        ChildKind::Deployment | ChildKind::Service => {
            views::function_group(&name.namespace, meta).unwrap_or(Key::Tenant(String::new()))
        }
        _ => views::tenant_group(&name.namespace),
    };
    let view = ChildView {
        owner: controller(meta).map(|o| Owner {
            kind: format!("{}/{}", o.api_version, o.kind),
            name: o.name.clone(),
            uid: o.uid.clone(),
        }),
        digest: digest_of(object),
        deleting: meta.deletion_timestamp.is_some(),
        rollout: object.rollout(),
    };
    views::seen(name, meta, group, view)
}

/// Digest of everything that the controller decides about an object.
pub fn digest_of<K: Child>(object: &K) -> Digest {
    let meta = object.meta();
    let ours = [labels::MANAGED_BY, labels::TENANT, labels::APP, labels::FUNCTION, UID].into_iter().chain(POD_SECURITY);
    let own_labels: Vec<_> = ours.map(|key| (key, meta.labels.as_ref().and_then(|l| l.get(key)))).collect();
    let owner = controller(meta).map(|o| (&o.api_version, &o.kind, &o.name, &o.uid, o.block_owner_deletion));
    // The generation of the function, on Deployments; others carry none.
    let generation = meta.annotations.as_ref().and_then(|annotations| annotations.get(labels::GENERATION));
    digest::of(&(own_labels, owner, generation, object.essence()))
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

impl Child for Namespace {
    const KIND: ChildKind = ChildKind::Namespace;
    fn api(client: Client, _namespace: &str) -> Api<Self> {
        Api::all(client)
    }
    fn essence(&self) -> Value {
        Value::Null
    }
}

impl Child for ResourceQuota {
    const KIND: ChildKind = ChildKind::ResourceQuota;
    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
    fn essence(&self) -> Value {
        let mut spec = json!(self.spec);
        if let Some(hard) = spec.get_mut("hard") {
            normal_amounts(hard);
        }
        spec
    }
}

impl Child for LimitRange {
    const KIND: ChildKind = ChildKind::LimitRange;
    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
    fn essence(&self) -> Value {
        let mut spec = json!(self.spec);
        let items = spec.get_mut("limits").and_then(Value::as_array_mut);
        for amounts in items.into_iter().flatten().filter_map(Value::as_object_mut).flat_map(|i| i.values_mut()) {
            normal_amounts(amounts);
        }
        spec
    }
}

impl Child for NetworkPolicy {
    const KIND: ChildKind = ChildKind::NetworkPolicy;
    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
    fn essence(&self) -> Value {
        json!(self.spec)
    }
}

impl Child for ServiceAccount {
    const KIND: ChildKind = ChildKind::ServiceAccount;
    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
    fn essence(&self) -> Value {
        json!(self.automount_service_account_token)
    }
}

impl Child for Service {
    const KIND: ChildKind = ChildKind::Service;
    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
    fn essence(&self) -> Value {
        // The addresses are the API server's to choose.
        let decided = self.spec.clone().map(|spec| ServiceSpec {
            cluster_ip: None,
            cluster_ips: None,
            ip_families: None,
            ip_family_policy: None,
            ..spec
        });
        json!(decided)
    }
}

impl Child for Deployment {
    const KIND: ChildKind = ChildKind::Deployment;
    fn api(client: Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client, namespace)
    }
    fn essence(&self) -> Value {
        let mut spec = self.spec.clone();
        for container in spec.iter_mut().flat_map(containers) {
            if let Some(resources) = &mut container.resources {
                normal_resources(resources);
            }
        }
        json!(spec)
    }

    fn rollout(&self) -> Option<Rollout> {
        let status = self.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let condition = |type_: &str| conditions.iter().find(|c| c.type_ == type_);
        let failure = condition("ReplicaFailure").filter(|c| c.status == "True");
        Some(Rollout {
            observed: status.observed_generation >= self.metadata.generation,
            replicas: status.replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
            size: self.spec.as_ref().and_then(size),
            surge: self.spec.as_ref().is_none_or(may_surge),
            generation: self.annotations().get(labels::GENERATION).and_then(|text| text.parse().ok()),
            mark: self.annotations().get(MARK).cloned(),
            template: template_digest(self).map(str::to_owned),
            failure: failure.map(|c| c.message.clone().unwrap_or_default()),
            timed_out: condition("Progressing")
                .is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some("ProgressDeadlineExceeded")),
        })
    }
}

/// Pods asked for, and what each charges.
fn size(spec: &DeploymentSpec) -> Option<(u32, PodResources)> {
    Some((u32::try_from(spec.replicas?).ok()?, pod_resources(spec.template.spec.as_ref()?)?))
}

/// What a pod charges.
#[must_use]
pub fn pod_resources(spec: &PodSpec) -> Option<PodResources> {
    let [container] = spec.containers.as_slice() else { return None };
    let resources = container.resources.as_ref()?;
    let (requests, limits) = (resources.requests.as_ref()?, resources.limits.as_ref()?);
    Some(PodResources {
        cpu_request: requests.get("cpu")?.0.parse().ok()?,
        memory_request: requests.get("memory")?.0.parse().ok()?,
        cpu_limit: limits.get("cpu")?.0.parse().ok()?,
        memory_limit: limits.get("memory")?.0.parse().ok()?,
    })
}

/// Whether a roll-out may run more pods than are asked for.
fn may_surge(spec: &DeploymentSpec) -> bool {
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    rolling.and_then(|rolling| rolling.max_surge.as_ref()) != Some(&IntOrString::Int(0))
}

fn containers(spec: &mut DeploymentSpec) -> impl Iterator<Item = &mut k8s_openapi::api::core::v1::Container> {
    spec.template.spec.iter_mut().flat_map(|pod| pod.containers.iter_mut())
}

fn normal_resources(resources: &mut ResourceRequirements) {
    for amounts in [&mut resources.requests, &mut resources.limits].into_iter().flatten() {
        for (name, amount) in amounts {
            amount.0 = normal(name, &amount.0);
        }
    }
}

/// Writes each amount of a map the one way, since `1Gi` and `1024Mi` mean the same.
fn normal_amounts(amounts: &mut Value) {
    for (name, amount) in amounts.as_object_mut().into_iter().flatten() {
        if let Some(text) = amount.as_str() {
            *amount = normal(name, text).into();
        }
    }
}

fn normal(name: &str, amount: &str) -> String {
    if name.ends_with("cpu") {
        amount.parse::<MilliCpu>().map_or_else(|_| amount.to_owned(), |cpu| cpu.to_string())
    } else {
        amount.parse::<Bytes>().map_or_else(|_| amount.to_owned(), |bytes| bytes.to_string())
    }
}
