//! What should exist, against files a person can read. `UPDATE_GOLDEN=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use controller::desired::{self, Surroundings};
use controller::validate::{Egress, ValidFunction, ValidRun, ValidTenant};
use eventflow_api::condition::Reason;
use eventflow_api::function::FunctionSpec;
use eventflow_api::invocation::InvocationSpec;
use eventflow_api::tier::{PodSecurity, Quota};
use quota::vector::Vector;
use serde::Serialize;
use serde_json::json;

fn surroundings() -> Surroundings {
    Surroundings {
        protected: ["169.254.0.0/16", "10.96.0.1/32"].map(|c| c.parse().unwrap()).to_vec(),
        gateways: vec!["10.88.0.1/32".parse().unwrap()],
        progress_deadline_seconds: 120,
        runner: Some("registry.example/ef-run:v1".parse().unwrap()),
    }
}

fn tenant() -> ValidTenant {
    let quota = Quota {
        cpu_requests: "2".into(),
        memory_requests: "4Gi".into(),
        cpu_limits: "4".into(),
        memory_limits: "8Gi".into(),
        pods: 10,
        persistent_volume_claims: 2,
        functions: 5,
    };
    ValidTenant {
        id: "alice".parse().unwrap(),
        uid: "00000000-0000-0000-0000-00000000000a".into(),
        hard: Vector::hard(&quota, None).unwrap(),
        pod_security: PodSecurity::Restricted,
        egress: vec![Egress { cidr: "0.0.0.0/0".parse().unwrap(), except: vec!["192.168.0.0/16".parse().unwrap()] }],
    }
}

fn function(spec: serde_json::Value) -> ValidFunction {
    let spec: FunctionSpec = serde_json::from_value(spec).unwrap();
    let spec = spec.parse().unwrap();
    ValidFunction {
        name: "hello".parse().unwrap(),
        uid: "00000000-0000-0000-0000-00000000000f".into(),
        generation: 3,
        tenant: "alice".parse().unwrap(),
        replicas: spec.wanted_replicas(),
        spec: Arc::new(spec),
        suspension: None,
        pod_security: PodSecurity::Restricted,
        surge: true,
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no flags")]
fn check(name: &str, objects: &[&dyn erased::Yaml]) {
    let found = objects.iter().map(|o| o.yaml()).collect::<Vec<_>>().join("---\n");
    let path = format!("{}/tests/golden/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = expected.lines().zip(found.lines()).enumerate().find(|(_, (e, f))| e != f);
    assert!(expected == found, "{path} differs, first at {difference:?}; UPDATE_GOLDEN=1 writes it anew");
}

mod erased {
    use super::Serialize;

    /// Anything that can be written as YAML.
    pub trait Yaml {
        fn yaml(&self) -> String;
    }
    impl<T: Serialize> Yaml for T {
        fn yaml(&self) -> String {
            serde_saphyr::to_string(self).unwrap()
        }
    }
}

#[test]
fn a_tenant() {
    let o = desired::tenant(&tenant(), &surroundings());
    check("tenant", &[&o.namespace, &o.quota, &o.limits, &o.network_policy, &o.account]);
}

#[test]
fn a_tenant_of_a_baseline_tier() {
    let tenant = ValidTenant { pod_security: PodSecurity::Baseline, egress: Vec::new(), ..tenant() };
    let o = desired::tenant(&tenant, &Surroundings::default());
    check("tenant-baseline", &[&o.namespace, &o.network_policy]);
}

#[test]
fn the_least_function() {
    let o = desired::function(&function(json!({"image": "hello:v1"})), &surroundings());
    assert!(o.service.is_none());
    check("function-least", &[&o.deployment]);
}

#[test]
fn a_function_with_everything() {
    let spec = json!({
        "image": "registry.example/team/app", "command": ["/bin/app", "--price=$5"], "args": ["$(HOME)"],
        "env": {"B": "$$", "A": "1", "PORT": "9"}, "replicas": 3, "port": 8080, "timeoutSeconds": 5,
        "resources": {"cpuRequest": "250m", "memoryRequest": "64Mi", "cpuLimit": "1500m", "memoryLimit": "1Gi"}
    });
    let o = desired::function(&function(spec), &surroundings());
    check("function-full", &[&o.deployment, o.service.as_ref().unwrap()]);
}

#[test]
fn a_suspended_function_of_a_baseline_tier_without_surge() {
    let function = function(json!({"image": "hello:v1", "replicas": 3, "suspend": true}));
    let function = ValidFunction {
        suspension: Some(Reason::Suspended),
        pod_security: PodSecurity::Baseline,
        surge: false,
        ..function
    };
    let o = desired::function(&function, &surroundings());
    check("function-suspended-baseline", &[&o.deployment]);
}

fn run(spec: serde_json::Value, function: ValidFunction) -> ValidRun {
    let spec: InvocationSpec = serde_json::from_value(spec).unwrap();
    ValidRun {
        name: "0197a6f2-0000-7000-8000-000000000001".into(),
        uid: "00000000-0000-0000-0000-00000000001a".into(),
        function,
        has_input: spec.input.is_some(),
        spec: spec.parse().unwrap(),
        traceparent: None,
        barred: None,
    }
}

#[test]
fn the_least_run() {
    let run = run(json!({"function": "hello"}), function(json!({"image": "hello:v1", "port": 8080})));
    check("run-least", &[&desired::job::desired(&run, &surroundings())]);
}

#[test]
fn a_run_with_everything() {
    let of = function(json!({
        "image": "registry.example/team/app:1", "command": ["/bin/app"], "args": ["of the function"],
        "env": {"A": "1", "B": "1"}, "timeoutSeconds": 5,
        "resources": {"cpuRequest": "250m", "memoryRequest": "64Mi", "cpuLimit": "1500m", "memoryLimit": "1Gi"}
    }));
    let spec = json!({"function": "hello", "input": "{}", "args": ["$(HOME)"], "env": {"B": "2"}, "timeoutSeconds": 60, "retries": 2});
    let run = ValidRun {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        ..run(spec, of)
    };
    check("run-full", &[&desired::job::input(&run, "{}".into()), &desired::job::desired(&run, &surroundings())]);
}
