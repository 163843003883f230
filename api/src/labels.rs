//! Labels, annotations, finalizers and field managers that the parts agree on.

/// API group of every custom resource.
pub const GROUP: &str = "eventflow.eventflow.io";
/// Version of every custom resource.
pub const VERSION: &str = "v1alpha1";

/// On everything the platform makes: `app.kubernetes.io/managed-by=eventflow`.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "eventflow";
/// On a tenant's namespace and everything in it: the tenant's id.
pub const TENANT: &str = "eventflow.io/tenant";
/// On a function's objects and pods: `app=eventflow-function`.
pub const APP: &str = "app";
/// Value of [`APP`].
pub const APP_VALUE: &str = "eventflow-function";
/// On a function's objects and pods: the function's name.
pub const FUNCTION: &str = "function";
/// Value of [`APP`] on the Job and the pods of a run: another one, since a function's Service must not find them.
pub const APP_RUN: &str = "eventflow-invocation";
/// On the Job, the input and the pods of a run: the name of the Invocation.
pub const INVOCATION: &str = "eventflow.io/invocation";
/// On the namespace the platform itself runs in; pods there may reach functions.
pub const PLATFORM: &str = "eventflow.io/platform";

/// Annotation on a Function: the store's generation that the object was written from, a decimal number.
pub const GENERATION: &str = "eventflow.io/generation";
/// Annotation on a Function: the store's id of the function, a UUID.
pub const FUNCTION_ID: &str = "eventflow.io/function-id";
/// Annotation on an Invocation: the store's id of the run, a UUID.
pub const INVOCATION_ID: &str = "eventflow.io/invocation-id";
/// Annotation on a Function: its place among those of its tenant that wait for quota, from -[`PRIORITY_MAX`] to
/// [`PRIORITY_MAX`]; higher goes first. Absent or malformed: 0.
pub const PRIORITY: &str = "eventflow.io/priority";
/// The largest priority.
pub const PRIORITY_MAX: i32 = 1000;
/// Annotation on a Function: W3C `traceparent` of the call that wrote it.
pub const TRACEPARENT: &str = "eventflow.io/traceparent";
/// Annotation on a Tenant or Tier: the audit entry of the operator's change that was written last.
pub const AUDIT: &str = "eventflow.io/audit";

/// Field manager of the gateway's writes.
pub const GATEWAY_MANAGER: &str = "eventflow-gateway";
/// Field manager of the controller's writes to the objects it makes.
pub const CONTROLLER_MANAGER: &str = "eventflow-controller";
/// Field manager of the controller's writes to status.
pub const STATUS_MANAGER: &str = "eventflow-status";

/// Name of the ResourceQuota, LimitRange, NetworkPolicy and ServiceAccount in a tenant's namespace.
pub const TENANT_QUOTA: &str = "tenant-quota";
/// Name of the LimitRange in a tenant's namespace.
pub const TENANT_LIMITS: &str = "tenant-limits";
/// Name of the NetworkPolicy in a tenant's namespace.
pub const TENANT_NETWORK: &str = "tenant-default";
/// Name of the service account that functions run as; its token is never mounted.
pub const FUNCTION_ACCOUNT: &str = "function";
