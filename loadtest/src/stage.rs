//! What is measured: a platform of release builds, just started on a cluster of its own, and the tenants and objects
//! that the measurements need.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use eventflow_api::function::{Function, FunctionSpec};
use eventflow_api::tenant::Tenant;
use eventflow_api::tier::Tier;
use eventflow_e2e::platform::Platform;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::usage::Usage;

/// The tier of the tenants that are measured: nothing is scarce.
pub const ROOMY: &str = "loadtest";
/// Writers at once when objects are posted directly, as in the API server's own figures.
pub const WRITERS: usize = 16;
/// A controller that uses less than this of one core for [`CALM`] has settled.
const IDLE: f64 = 0.05;
/// See [`IDLE`].
const CALM: Duration = Duration::from_secs(2);
/// Our own writes to the cluster.
const MANAGER: &str = "eventflow-loadtest";

/// The platform and ways to reach it.
pub struct Stage {
    /// Its processes.
    pub platform: Platform,
    /// A cluster administrator's client.
    pub client: Client,
}

impl Stage {
    /// Takes the platform into use: makes the tier that the measurements need.
    ///
    /// # Errors
    /// When the cluster cannot be used.
    pub async fn set(platform: Platform) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(platform.cluster().kubeconfig_path())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let stage = Self { platform, client: Client::try_from(config)? };
        stage.tier(ROOMY, &json!({})).await?;
        Ok(stage)
    }

    /// Makes or changes a tier: roomy but for what `scarce` says of its quota.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn tier(&self, name: &str, scarce: &Value) -> Result<()> {
        let mut quota = json!({
            "cpuRequests": "100000", "memoryRequests": "100Ti", "cpuLimits": "100000", "memoryLimits": "100Ti",
            "pods": 100_000, "persistentVolumeClaims": 10, "functions": 100_000,
        });
        eventflow_api::http::merge_patch(&mut quota, scarce.clone());
        let tier = json!({
            "apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Tier", "metadata": {"name": name},
            "spec": {
                "quota": quota, "requestsPerSecond": 1_000_000, "burst": 1_000_000, "concurrentInvocations": 10_000,
                "maxReplicasPerFunction": 100, "maxTimeoutSeconds": 86_400,
            },
        });
        let tiers = Api::<Tier>::all(self.client.clone());
        tiers.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&tier)).await?;
        Ok(())
    }

    /// Signs in a user whose tenant is in the roomy tier, ready for functions.
    ///
    /// # Errors
    /// When that is not so within a minute.
    pub async fn user(&self, name: &str) -> Result<Connection> {
        self.user_of(name, ROOMY).await
    }

    /// Signs in a user whose tenant is in that tier, ready for functions.
    ///
    /// # Errors
    /// When that is not so within a minute.
    pub async fn user_of(&self, name: &str, tier: &str) -> Result<Connection> {
        let connection = Connection::sign_in(self.platform.base(), name).await?;
        // The first write of a tenant makes its object, if signing in could not.
        let dry_run = "/v1/functions?dry_run=true";
        connection.call(Method::POST, dry_run, Some(&idle_function("never-made"))).await?;
        let id = connection.namespace.strip_prefix("tenant-").context("a namespace of another kind")?.to_owned();
        let tenants = Api::<Tenant>::all(self.client.clone());
        let there = || async { Ok(tenants.get_opt(&id).await?.is_some()) };
        eventually(&format!("Tenant {id} exists"), there).await?;
        let tier = json!({"spec": {"tier": tier}});
        tenants.patch(&id, &PatchParams::default(), &Patch::Merge(&tier)).await?;
        self.tenant_ready(&id).await?;
        Ok(connection)
    }

    /// Makes a tenant without the gateway, ready for functions; gives its namespace.
    ///
    /// # Errors
    /// When it is not ready within a minute.
    pub async fn tenant(&self, id: &str, tier: &str) -> Result<String> {
        let tenant = json!({
            "apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": id}, "spec": {"tier": tier},
        });
        let tenants = Api::<Tenant>::all(self.client.clone());
        tenants.create(&PostParams::default(), &serde_json::from_value(tenant)?).await?;
        self.tenant_ready(id).await
    }

    /// Waits until the controller has acted on the newest spec of a tenant; gives its namespace.
    async fn tenant_ready(&self, id: &str) -> Result<String> {
        let tenants = Api::<Tenant>::all(self.client.clone());
        let ready = || async {
            let tenant = tenants.get(id).await?;
            let (Some(status), generation) = (tenant.status, tenant.metadata.generation) else { return Ok(false) };
            let ready = serde_json::to_value(&status.conditions)?;
            let ready =
                ready.as_array().is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
            Ok(ready && Some(status.observed_generation) == generation)
        };
        eventually(&format!("tenant {id} is ready"), ready).await?;
        Ok(format!("tenant-{id}"))
    }

    /// Makes so many tenants without the gateway, named `{prefix}-{number}`; gives their namespaces.
    ///
    /// # Errors
    /// When one is not ready within a minute.
    pub async fn tenants(&self, prefix: &str, count: usize, tier: &str) -> Result<Vec<String>> {
        let ids: Vec<_> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
        stream::iter(&ids).map(|id| self.tenant(id, tier)).buffered(8).try_collect().await
    }

    /// Makes a namespace that is no tenant's, confined like one.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn plain_namespace(&self, name: &str) -> Result<()> {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        });
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
        Ok(())
    }

    /// Posts Function objects `{prefix}-{number}` directly, numbers spread over the namespaces, 16 at a time.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn post_functions(
        &self,
        namespaces: &[String],
        prefix: &str,
        numbers: std::ops::Range<usize>,
    ) -> Result<()> {
        let spec: FunctionSpec = serde_json::from_value(idle_spec())?;
        let posts = stream::iter(numbers).map(|number| {
            let functions = Api::<Function>::namespaced(self.client.clone(), &namespaces[number % namespaces.len()]);
            let function = Function::new(&format!("{prefix}-{number}"), spec.clone());
            async move { functions.create(&PostParams::default(), &function).await }
        });
        posts.buffer_unordered(WRITERS).try_for_each(|_| async { Ok(()) }).await?;
        Ok(())
    }

    /// What the gateway and the controller have used.
    ///
    /// # Errors
    /// When one of them does not run.
    pub fn usage(&self) -> Result<(Usage, Usage)> {
        let (gateway, controller) = self.platform.pids();
        Ok((Usage::of(gateway).context("the gateway")?, Usage::of(controller).context("the controller")?))
    }

    /// What the controller has used.
    ///
    /// # Errors
    /// When it does not run.
    pub fn controller_usage(&self) -> Result<Usage> {
        Usage::of(self.platform.pids().1).context("the controller")
    }

    /// Waits until the controller does hardly anything, at most for `patience`; gives when that began.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn settled(&self, patience: Duration) -> Result<Instant> {
        let start = Instant::now();
        loop {
            let (before, since) = (self.controller_usage()?, Instant::now());
            tokio::time::sleep(CALM).await;
            let share = self.controller_usage()?.share_of_core(before, CALM);
            if share < IDLE || start.elapsed() > patience {
                return Ok(since);
            }
        }
    }

    /// Gets and lists that the gateway has asked the API server for since it started. The API server's own count would
    /// hold those of others: Kubernetes' garbage collector gets each owner whose dependant it saw first.
    ///
    /// # Errors
    /// When the gateway does not give its metrics.
    pub async fn gateway_reads(&self) -> Result<u64> {
        let admin = Connection::anonymous(format!("http://{}", self.platform.admin_addresses().0));
        let (_, metrics) = admin.call(Method::GET, "/metrics", None).await?;
        let name = r#"eventflow_cluster_requests_total{kind="read"} "#;
        let count = std::str::from_utf8(&metrics)?.lines().find_map(|line| line.strip_prefix(name));
        count.and_then(|count| count.parse().ok()).context("the gateway counts no reads of the API server")
    }
}

/// The spec of a function without pods: everything of the platform works for it, and the node does nothing.
#[must_use]
pub fn idle_spec() -> Value {
    json!({"image": "127.0.0.1:5000/hello:v1", "replicas": 0})
}

/// The body that creates such a function.
#[must_use]
pub fn idle_function(name: &str) -> Value {
    let mut function = idle_spec();
    function["name"] = name.into();
    function
}

/// Asks again and again until it is so.
///
/// # Errors
/// When it is not within a minute.
pub async fn eventually<C>(what: &str, mut so: impl FnMut() -> C) -> Result<()>
where
    C: Future<Output = Result<bool>>,
{
    let start = Instant::now();
    let mut last = Ok(false);
    while start.elapsed() < Duration::from_secs(60) {
        last = so().await;
        if let Ok(true) = last {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    match last {
        Err(error) => Err(error.context(format!("not within 60 s: {what}"))),
        Ok(_) => bail!("not within 60 s: {what}"),
    }
}
