//! The Deployment of a function. Every field that the API server would fill in is written out, so that what
//! exists can be compared with what is wanted, whoever changed it.

use eventflow_api::image::ImageRef;
use eventflow_api::labels;
use eventflow_api::tier::PodSecurity;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ResourceRequirements, SeccompProfile, SecurityContext, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

use super::{Surroundings, function_labels, function_meta, function_selector, limits::amounts};
use crate::digest;
use crate::validate::ValidFunction;

/// Annotation on the pods: digest of the template they were made from, so that a pod tells its version.
pub const TEMPLATE: &str = "eventflow.io/template";
/// Name of the one container.
pub const CONTAINER: &str = "function";
/// Longest time a pod gets to end by itself, in seconds.
const GRACE_MAX: u32 = 30;
/// The user functions run as, where the image must not choose.
const USER: i64 = 65_532;

/// The Deployment.
#[must_use]
pub fn desired(function: &ValidFunction, surroundings: &Surroundings) -> Deployment {
    let (surge, unavailable) = if function.surge { (1, 0) } else { (0, 1) };
    let mut metadata = function_meta(function);
    let generation = function.generation.to_string();
    metadata.annotations = Some(BTreeMap::from([(labels::GENERATION.to_owned(), generation)]));
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(function.replicas as i32),
            revision_history_limit: Some(2),
            progress_deadline_seconds: Some(surroundings.progress_deadline_seconds),
            selector: LabelSelector { match_labels: Some(function_selector(function)), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            template: template(function),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// The digest that pods of this Deployment carry.
#[must_use]
pub fn template_digest(deployment: &Deployment) -> Option<&str> {
    let annotations = deployment.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?;
    annotations.get(TEMPLATE).map(String::as_str)
}

fn template(function: &ValidFunction) -> PodTemplateSpec {
    let mut metadata = ObjectMeta { labels: Some(function_labels(function)), ..ObjectMeta::default() };
    let spec = pod(function);
    let version = digest::of(&(&metadata, &spec)).to_string();
    metadata.annotations = Some(BTreeMap::from([(TEMPLATE.to_owned(), version)]));
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// The pod of a function.
pub(super) fn pod(function: &ValidFunction) -> PodSpec {
    let non_root = function.pod_security == PodSecurity::Restricted;
    PodSpec {
        containers: vec![container(function)],
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name: Some(labels::FUNCTION_ACCOUNT.to_owned()),
        // The old name of the same field: the API server fills it in.
        service_account: Some(labels::FUNCTION_ACCOUNT.to_owned()),
        termination_grace_period_seconds: Some(i64::from(function.spec.timeout_seconds.min(GRACE_MAX))),
        restart_policy: Some("Always".to_owned()),
        dns_policy: Some("ClusterFirst".to_owned()),
        scheduler_name: Some("default-scheduler".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: non_root.then_some(true),
            run_as_user: non_root.then_some(USER),
            run_as_group: non_root.then_some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

fn container(function: &ValidFunction) -> Container {
    let spec = &function.spec;
    let resources = &spec.resources;
    let port = spec.port.map(i32::from);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(spec.image.to_string()),
        image_pull_policy: Some(pull_policy(&spec.image).to_owned()),
        command: words(&spec.command),
        args: words(&spec.args),
        env: Some(environment(function)),
        ports: port.map(|port| {
            vec![ContainerPort {
                name: Some("http".to_owned()),
                container_port: port,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]
        }),
        readiness_probe: port.map(readiness),
        resources: Some(ResourceRequirements {
            requests: Some(amounts(resources.cpu_request, resources.memory_request)),
            limits: Some(amounts(resources.cpu_limit, resources.memory_limit)),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}

/// A tag that moves is looked up at every start; a fixed one is not.
pub(super) fn pull_policy(image: &ImageRef) -> &'static str {
    let image = image.as_str();
    let name = image.rsplit('/').next().unwrap_or(image);
    let moves = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    if moves { "Always" } else { "IfNotPresent" }
}

/// Ready once the port answers. Asked every second, since that is what a caller waits for.
fn readiness(port: i32) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port), host: None }),
        period_seconds: Some(1),
        timeout_seconds: Some(1),
        success_threshold: Some(1),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

/// The tenant's variables, and what the platform says about itself. `PORT` is the tenant's if the tenant sets it.
fn environment(function: &ValidFunction) -> Vec<EnvVar> {
    let spec = &function.spec;
    let given = spec.env.iter().map(|(name, value)| variable(name.as_str(), verbatim(value)));
    let port = spec.port.filter(|_| !spec.env.contains_key("PORT"));
    let port = port.map(|port| variable("PORT", port.to_string()));
    let own = [
        variable("EVENTFLOW_FUNCTION", function.name.to_string()),
        variable("EVENTFLOW_NAMESPACE", function.tenant.namespace()),
        variable("EVENTFLOW_TENANT", function.tenant.to_string()),
    ];
    given.chain(port).chain(own).collect()
}

fn variable(name: &str, value: String) -> EnvVar {
    // The API server leaves an empty value out.
    EnvVar { name: name.to_owned(), value: (!value.is_empty()).then_some(value), value_from: None }
}

fn words(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.iter().map(|w| verbatim(w)).collect())
}

/// Kubernetes replaces `$(NAME)` in these texts and reads `$$` as one `$`. A tenant's text means what it says,
/// so each `$` is doubled.
pub(super) fn verbatim(text: &str) -> String {
    text.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_moving_tag_is_pulled_each_time() {
        let digest = format!("a@sha256:{}", "0a".repeat(32));
        for (image, policy) in [
            ("a", "Always"),
            ("a:latest", "Always"),
            ("h:5000/a", "Always"),
            ("h:5000/a:1", "IfNotPresent"),
            ("a:1", "IfNotPresent"),
            (digest.as_str(), "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(&image.parse().unwrap()), policy, "{image}");
        }
    }
}
