//! What should exist for a tenant and for a function. Pure and infallible: what comes in has been validated,
//! and no module below ever sees a client.

use eventflow_api::image::ImageRef;
use eventflow_api::labels;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

use crate::cidr::Cidr;
use crate::validate::{ValidFunction, ValidTenant};

/// The service account functions run as.
pub mod account;
/// The Deployment of a function.
pub mod deployment;
/// The Job of a run.
pub mod job;
/// Defaults for pods that name no requests or limits.
pub mod limits;
/// The tenant's namespace.
pub mod namespace;
/// Whom functions may talk to, and who may talk to them.
pub mod network_policy;
/// The tenant's quota.
pub mod quota;
/// The Service of a function.
pub mod service;

/// Label on the objects and pods of a function, and of a run: its identity, so that the pods of one that is gone can be
/// told from those of its namesake.
pub const UID: &str = "eventflow.io/function-uid";

/// What the platform's surroundings ask for, the same for every tenant.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Addresses functions must never reach: cloud metadata, database, API server.
    pub protected: Vec<Cidr>,
    /// Addresses a gateway outside of the cluster calls functions from.
    pub gateways: Vec<Cidr>,
    /// Seconds without progress after which a roll-out counts as failed.
    pub progress_deadline_seconds: i32,
    /// The image of `ef-run`, which gives runs their standard input.
    pub runner: Option<ImageRef>,
}

/// Everything a tenant has.
#[derive(Debug, Clone)]
pub struct TenantObjects {
    /// Holds the rest.
    pub namespace: Namespace,
    /// The second wall behind the admission.
    pub quota: ResourceQuota,
    /// Defaults for pods.
    pub limits: LimitRange,
    /// Closed but for the gateway, DNS and what the tier allows.
    pub network_policy: NetworkPolicy,
    /// Without a token.
    pub account: ServiceAccount,
}

/// Everything a function has.
#[derive(Debug, Clone)]
pub struct FunctionObjects {
    /// Runs its pods.
    pub deployment: Deployment,
    /// Finds its pods, if it serves HTTP.
    pub service: Option<Service>,
}

/// What should exist for a tenant.
#[must_use]
pub fn tenant(tenant: &ValidTenant, surroundings: &Surroundings) -> TenantObjects {
    TenantObjects {
        namespace: namespace::desired(tenant),
        quota: quota::desired(tenant),
        limits: limits::desired(tenant),
        network_policy: network_policy::desired(tenant, surroundings),
        account: account::desired(tenant),
    }
}

/// What should exist for a function.
#[must_use]
pub fn function(function: &ValidFunction, surroundings: &Surroundings) -> FunctionObjects {
    FunctionObjects { deployment: deployment::desired(function, surroundings), service: service::desired(function) }
}

/// Metadata of an object in a tenant's namespace that belongs to the tenant as a whole.
fn tenant_meta(tenant: &ValidTenant, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(tenant.id.namespace()),
        labels: Some(tenant_labels(tenant)),
        owner_references: Some(vec![tenant_owner(tenant)]),
        ..ObjectMeta::default()
    }
}

fn tenant_labels(tenant: &ValidTenant) -> BTreeMap<String, String> {
    text_map([(labels::MANAGED_BY, labels::MANAGED_BY_VALUE), (labels::TENANT, tenant.id.as_str())])
}

fn tenant_owner(tenant: &ValidTenant) -> OwnerReference {
    owner("Tenant", tenant.id.as_str(), &tenant.uid)
}

/// Metadata of an object that belongs to a function.
fn function_meta(function: &ValidFunction) -> ObjectMeta {
    ObjectMeta {
        name: Some(function.name.object_name()),
        namespace: Some(function.tenant.namespace()),
        labels: Some(function_labels(function)),
        owner_references: Some(vec![owner("Function", function.name.as_str(), &function.uid)]),
        ..ObjectMeta::default()
    }
}

fn function_labels(function: &ValidFunction) -> BTreeMap<String, String> {
    text_map([
        (labels::APP, labels::APP_VALUE),
        (labels::FUNCTION, function.name.as_str()),
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
        (labels::TENANT, function.tenant.as_str()),
        (UID, &function.uid),
    ])
}

/// What selects a function's pods. It can never change: a Deployment's selector is fixed for its life.
fn function_selector(function: &ValidFunction) -> BTreeMap<String, String> {
    text_map([(labels::APP, labels::APP_VALUE), (labels::FUNCTION, function.name.as_str())])
}

fn owner(kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", labels::GROUP, labels::VERSION),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn text_map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
