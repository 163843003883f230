//! The Job of a run, and the object that carries its input. The pod is the function's own, but for what a run changes of
//! it: it ends, its result file is what Kubernetes keeps of a program's last words, and its input is a file and, where that
//! can be, its standard input.

use std::collections::BTreeMap;
use std::sync::Arc;

use eventflow_api::image::ImageRef;
use eventflow_api::invocation::{INPUT_FILE, RESULT_FILE};
use eventflow_api::labels;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, KeyToPath, PodSpec, PodTemplateSpec,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Surroundings, UID, deployment, owner, text_map};
use crate::validate::{ValidFunction, ValidRun};

/// Prefix of the objects of a run.
const PREFIX: &str = "run-";
/// Name of the input's volume, and of its one entry.
const INPUT: &str = "input";
/// Name of the volume that holds `ef-run`.
const TOOLS: &str = "tools";
/// Where it is.
const TOOLS_FOLDER: &str = "/eventflow/tools";
/// The program itself.
const RUNNER: &str = "/eventflow/tools/ef-run";
/// Seconds that all attempts together may take to start, besides what each may run: for scheduling and for images.
const START_ALLOWANCE: u64 = 600;
/// Longest wait between two attempts: the Job controller's.
const BACKOFF_MAX: u64 = 360;

/// Name of the Job and of the input of the run of that name.
#[must_use]
pub fn name(run: &str) -> String {
    format!("{PREFIX}{run}")
}

/// The Job.
#[must_use]
pub fn desired(run: &ValidRun, surroundings: &Surroundings) -> Job {
    let timeout = u64::from(timeout(run));
    let attempts = u64::from(run.spec.retries) + 1;
    let most = attempts * (timeout + BACKOFF_MAX) + START_ALLOWANCE;
    let labels = labels_of(run);
    Job {
        metadata: meta(run),
        spec: Some(JobSpec {
            // It is given leave to start by a second write.
            suspend: Some(false),
            parallelism: Some(1),
            completions: Some(1),
            backoff_limit: Some(i32::try_from(run.spec.retries).unwrap_or(i32::MAX)),
            // The end of what never starts. Each attempt has a deadline of its own, which keeps its pod and its log.
            active_deadline_seconds: Some(i64::try_from(most).unwrap_or(i64::MAX)),
            // Never two pods at once: one is what was reserved.
            pod_replacement_policy: Some("Failed".to_owned()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
                spec: Some(pod(run, surroundings)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The object that carries the input.
#[must_use]
pub fn input(run: &ValidRun, text: String) -> ConfigMap {
    ConfigMap {
        metadata: meta(run),
        data: Some(BTreeMap::from([(INPUT.to_owned(), text)])),
        immutable: Some(true),
        binary_data: None,
    }
}

fn meta(run: &ValidRun) -> ObjectMeta {
    ObjectMeta {
        name: Some(name(&run.name)),
        namespace: Some(run.function.tenant.namespace()),
        labels: Some(labels_of(run)),
        owner_references: Some(vec![owner("Invocation", &run.name, &run.uid)]),
        ..ObjectMeta::default()
    }
}

fn labels_of(run: &ValidRun) -> BTreeMap<String, String> {
    text_map([
        (labels::APP, labels::APP_RUN),
        (labels::FUNCTION, run.function.name.as_str()),
        (labels::INVOCATION, &run.name),
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
        (labels::TENANT, run.function.tenant.as_str()),
        (UID, &run.uid),
    ])
}

/// Longest time of one attempt, in seconds.
#[must_use]
pub fn timeout(run: &ValidRun) -> u32 {
    run.spec.timeout_seconds.unwrap_or(run.function.spec.timeout_seconds)
}

fn pod(run: &ValidRun, surroundings: &Surroundings) -> PodSpec {
    let mut pod = deployment::pod(&as_function(run));
    pod.restart_policy = Some("Never".to_owned());
    pod.active_deadline_seconds = Some(i64::from(timeout(run)));
    for container in &mut pod.containers {
        container.env.get_or_insert_default().extend(variables(run));
        container.termination_message_path = Some(RESULT_FILE.to_owned());
        container.volume_mounts = run.has_input.then(|| vec![mount()]);
    }
    pod.volumes = run.has_input.then(|| vec![volume(run)]);
    // What an image starts by itself is known to the image alone: only a command that is named can be started by another.
    if let Some(image) = surroundings.runner.as_ref().filter(|_| run.has_input && !run.function.spec.command.is_empty())
    {
        let init = pod.containers.iter().map(|container| installer(container, image)).collect();
        pod.init_containers = Some(init);
        pod.containers.iter_mut().for_each(through_runner);
        pod.volumes.get_or_insert_default().push(tools());
    }
    pod
}

/// Puts `ef-run` where the program's container finds it, and ends. It asks for no more than that container, so that the
/// pod is charged for one of them.
fn installer(beside: &Container, image: &ImageRef) -> Container {
    Container {
        name: "runner".to_owned(),
        image: Some(image.to_string()),
        image_pull_policy: Some(deployment::pull_policy(image).to_owned()),
        args: Some(vec!["--install".to_owned(), RUNNER.to_owned()]),
        command: Some(vec!["/ef-run".to_owned()]),
        env: None,
        ports: None,
        readiness_probe: None,
        volume_mounts: Some(vec![tools_mount(false)]),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        ..beside.clone()
    }
}

/// The container's command, started by `ef-run` with the input as its standard input.
fn through_runner(container: &mut Container) {
    let words = [RUNNER.to_owned(), INPUT_FILE.to_owned()].into_iter();
    container.command = Some(words.chain(container.command.take().unwrap_or_default()).collect());
    container.volume_mounts.get_or_insert_default().push(tools_mount(true));
}

fn tools() -> Volume {
    let limit = EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity("16Mi".to_owned())) };
    Volume { name: TOOLS.to_owned(), empty_dir: Some(limit), ..Volume::default() }
}

fn tools_mount(read_only: bool) -> VolumeMount {
    VolumeMount {
        name: TOOLS.to_owned(),
        mount_path: TOOLS_FOLDER.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// The function as this run has it.
fn as_function(run: &ValidRun) -> ValidFunction {
    let mut spec = (*run.function.spec).clone();
    spec.port = None;
    spec.timeout_seconds = timeout(run);
    spec.env.extend(run.spec.env.clone());
    if let Some(args) = &run.spec.args {
        spec.args.clone_from(args);
    }
    ValidFunction { spec: Arc::new(spec), ..run.function.clone() }
}

/// What the platform says to a run besides what it says to a function.
fn variables(run: &ValidRun) -> Vec<EnvVar> {
    let variable =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    let mut variables =
        vec![variable("EVENTFLOW_INVOCATION", &run.name), variable("EVENTFLOW_RESULT_FILE", RESULT_FILE)];
    if run.has_input {
        variables.push(variable("EVENTFLOW_INPUT_FILE", INPUT_FILE));
    }
    let given = |name: &str| run.spec.env.contains_key(name) || run.function.spec.env.contains_key(name);
    if let Some(traceparent) = run.traceparent.as_ref().filter(|_| !given("TRACEPARENT")) {
        variables.push(variable("TRACEPARENT", &traceparent.replace('$', "$$")));
    }
    variables
}

fn volume(run: &ValidRun) -> Volume {
    let item = KeyToPath { key: INPUT.to_owned(), path: INPUT.to_owned(), mode: None };
    Volume {
        name: INPUT.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name(&run.name),
            items: Some(vec![item]),
            default_mode: Some(0o444),
            optional: None,
        }),
        ..Volume::default()
    }
}

fn mount() -> VolumeMount {
    VolumeMount {
        name: INPUT.to_owned(),
        mount_path: INPUT_FILE.to_owned(),
        sub_path: Some(INPUT.to_owned()),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}
