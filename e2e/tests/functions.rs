//! A function's life with real pods, over HTTP and with kubectl beside it.

use eventflow_api::condition::{self, ConditionType, Reason};
use eventflow_api::function::Phase;
use eventflow_api::http::Function;
use eventflow_e2e::eventually::eventually;
use eventflow_e2e::platform::Platform;
use http::{Method, StatusCode};
use serde_json::{Value, json};

fn ready_reason(function: &Function) -> Option<Reason> {
    condition::find(&function.status.conditions, ConditionType::Ready).map(|c| c.reason)
}

fn running(function: &Function) -> bool {
    function.status.phase == Phase::Running && function.status.observed_generation > 0
}

fn small(image: &str) -> Value {
    json!({"image": image, "resources": {"cpuRequest": "20m", "memoryRequest": "16Mi", "cpuLimit": "500m", "memoryLimit": "64Mi"}})
}

fn named(name: &str, image: &str, more: Value) -> Value {
    let mut body = small(image);
    body["name"] = json!(name);
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn an_image_becomes_an_answering_function() {
    let platform = Platform::shared();
    let alice = platform.sign_in("life-alice").await;
    let created = alice
        .create(named(
            "hello",
            &platform.image("hello:v1"),
            json!({"port": 8080, "env": {"GREETING": "hi"}, "replicas": 2}),
        ))
        .await;
    assert_eq!(created.json["name"], "hello");
    let function = alice.function("hello", 90, "runs", running).await;
    assert_eq!((function.status.ready_replicas, function.status.available_replicas), (2, 2));
    assert_eq!(ready_reason(&function), Some(Reason::AllReady));

    let echo = platform.call_pod(&alice.tenant, "hello", 8080, "/some/path?x=1").await;
    assert_eq!(echo.status, StatusCode::OK);
    assert_eq!((&echo.json["path"], &echo.json["query"]), (&json!("/some/path"), &json!("x=1")));
    assert_eq!(echo.json["environment"]["EVENTFLOW_TENANT"], "life-alice");
    assert_eq!(echo.json["environment"]["EVENTFLOW_FUNCTION"], "hello");
    assert_eq!(echo.json["environment"]["GREETING"], "hi");

    // Through the Service, by way of kube-proxy.
    let service = platform.kubectl(&[
        "get",
        "service",
        "fn-hello",
        "-n",
        &alice.tenant.namespace(),
        "-o",
        "jsonpath={.spec.clusterIP}",
    ]);
    let echo =
        eventually(20, "the service answers", || platform.get_url(format!("http://{service}/via-service"))).await;
    assert_eq!(echo.json["path"], "/via-service");
}

#[tokio::test]
async fn pods_are_confined() {
    let platform = Platform::shared();
    let alice = platform.sign_in("confined").await;
    alice.create(named("box", &platform.image("hello:v1"), json!({"port": 8080}))).await;
    alice.function("box", 90, "runs", running).await;
    let pods = platform.kubectl(&["get", "pods", "-n", &alice.tenant.namespace(), "-l", "function=box", "-o", "json"]);
    let pods: Value = serde_json::from_str(&pods).expect("JSON of kubectl");
    let spec = &pods["items"][0]["spec"];
    let container = &spec["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["securityContext"]["runAsUser"], 65532);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let namespace = platform.kubectl(&["get", "namespace", &alice.tenant.namespace(), "-o", "json"]);
    let namespace: Value = serde_json::from_str(&namespace).expect("JSON of kubectl");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}

#[tokio::test]
async fn every_change_rolls_out() {
    let platform = Platform::shared();
    let alice = platform.sign_in("rollout").await;
    alice.create(named("app", &platform.image("hello:v1"), json!({"port": 8080, "env": {"GREETING": "one"}}))).await;
    alice.function("app", 90, "runs", running).await;

    alice.patch("app", json!({"env": {"GREETING": "two"}})).await;
    eventually(60, "the new environment answers", || async {
        let echo = platform.call_pod(&alice.tenant, "app", 8080, "/").await;
        if echo.json["environment"]["GREETING"] == "two" { Ok(()) } else { Err(echo) }
    })
    .await;
    alice.patch("app", json!({"image": platform.image("hello:v2")})).await;
    eventually(60, "the new image answers", || async {
        let echo = platform.call_pod(&alice.tenant, "app", 8080, "/").await;
        if echo.json["environment"]["VERSION"] == "v2" { Ok(()) } else { Err(echo) }
    })
    .await;
    alice.patch("app", json!({"replicas": 3, "resources": {"memoryLimit": "96Mi"}})).await;
    alice
        .function("app", 60, "runs three pods", |f| {
            running(f) && f.status.ready_replicas == 3 && f.status.replicas == 3
        })
        .await;
    let limit = "jsonpath={.items[*].spec.containers[0].resources.limits.memory}";
    eventually(30, "all pods have the new limit", || async {
        let limits =
            platform.kubectl(&["get", "pods", "-n", &alice.tenant.namespace(), "-l", "function=app", "-o", limit]);
        if limits == "96Mi 96Mi 96Mi" { Ok(()) } else { Err(limits) }
    })
    .await;
    alice.patch("app", json!({"suspend": true})).await;
    alice.function("app", 60, "is suspended", |f| f.status.phase == Phase::Suspended && f.status.replicas == 0).await;
    alice.patch("app", json!({"suspend": false, "replicas": 1})).await;
    alice.function("app", 60, "runs again", |f| running(f) && f.status.ready_replicas == 1).await;
}

#[tokio::test]
async fn kubectl_and_the_api_see_one_another() {
    let platform = Platform::shared();
    let alice = platform.sign_in("kubectl").await;
    let namespace = alice.tenant.namespace();
    alice.create(named("edited", &platform.image("hello:v1"), json!({"port": 8080}))).await;
    alice.function("edited", 90, "runs", running).await;
    platform.kubectl(&[
        "patch",
        "function.eventflow.eventflow.io",
        "edited",
        "-n",
        &namespace,
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":2}}"#,
    ]);
    let edited = alice.function("edited", 30, "shows the edit", |f| f.spec.replicas == 2).await;
    assert_eq!(edited.generation, 2);
    alice.function("edited", 60, "runs both pods", |f| running(f) && f.status.ready_replicas == 2).await;
    platform.kubectl(&["scale", "fn/edited", "-n", &namespace, "--replicas=1"]);
    alice.function("edited", 30, "shows the scaling", |f| f.spec.replicas == 1).await;

    let made = json!({
        "apiVersion": "eventflow.eventflow.io/v1alpha1", "kind": "Function",
        "metadata": {"name": "made", "namespace": namespace}, "spec": small(&platform.image("hello:v1")),
    });
    platform.kubectl_apply(&made);
    alice.function("made", 60, "was adopted and runs", running).await;
    let audit = alice.call(Method::GET, "/v1/audit", None).await;
    let actors: Vec<_> =
        audit.json["entries"].as_array().expect("entries").iter().map(|e| e["actor"].clone()).collect();
    assert!(actors.iter().any(|a| a.as_str().is_some_and(|a| a.contains("kubectl"))), "{actors:?}");

    platform.kubectl(&["delete", "fn/made", "-n", &namespace]);
    eventually(30, "the deletion shows", || async {
        let answer = alice.call(Method::GET, "/v1/functions/made", None).await;
        if answer.status == StatusCode::NOT_FOUND { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn a_deleted_name_can_be_used_again() {
    let platform = Platform::shared();
    let alice = platform.sign_in("again").await;
    let first = alice.create(named("app", &platform.image("hello:v1"), json!({"port": 8080}))).await;
    alice.function("app", 90, "runs", running).await;
    alice.delete("app").await;
    assert_eq!(alice.call(Method::GET, "/v1/functions/app", None).await.status, StatusCode::NOT_FOUND);
    let second = alice.create(named("app", &platform.image("hello:v2"), json!({"port": 8080}))).await;
    assert_ne!(first.json["id"], second.json["id"]);
    alice.function("app", 90, "runs again", running).await;
    let echo = platform.call_pod(&alice.tenant, "app", 8080, "/").await;
    assert_eq!(echo.json["environment"]["VERSION"], "v2");
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let platform = Platform::shared();
    let alice = platform.sign_in("failing").await;
    alice.create(named("crash", &platform.image("crash:v1"), json!({"env": {"EXIT_CODE": "7"}}))).await;
    alice.create(named("oom", &platform.image("oom:v1"), json!({}))).await;
    alice.create(named("absent", &platform.image("no-such-image:v1"), json!({}))).await;
    alice
        .create(named("huge", &platform.image("hello:v1"), json!({"resources": {"cpuRequest": "9", "cpuLimit": "9"}})))
        .await;
    alice.create(named("silent", &platform.image("hello:v1"), json!({"port": 9090, "env": {"PORT": "8080"}}))).await;
    alice.create(named("missing", &platform.image("hello:v1"), json!({"command": ["/no/such/program"]}))).await;

    let failed =
        |reason: Reason| move |f: &Function| f.status.phase == Phase::Failed && ready_reason(f) == Some(reason);
    let crash = alice.function("crash", 90, "is crash-looping", failed(Reason::CrashLooping)).await;
    let message = &condition::find(&crash.status.conditions, ConditionType::Ready).expect("a condition").message;
    assert!(message.contains("exit code 7"), "{message}");
    alice.function("oom", 90, "is out of memory", failed(Reason::OutOfMemory)).await;
    let absent = alice.function("absent", 90, "cannot be pulled", failed(Reason::ImagePullFailed)).await;
    let message = &condition::find(&absent.status.conditions, ConditionType::Ready).expect("a condition").message;
    assert!(message.contains("no-such-image:v1"), "{message}");
    alice.function("huge", 60, "is unschedulable", |f| ready_reason(f) == Some(Reason::Unschedulable)).await;
    alice.function("silent", 60, "does not answer", |f| ready_reason(f) == Some(Reason::NotAnswering)).await;
    alice.function("missing", 60, "cannot be started", |f| ready_reason(f) == Some(Reason::ContainerFailed)).await;

    // Mended, it runs.
    alice.patch("crash", json!({"image": platform.image("hello:v1"), "port": 8080})).await;
    alice.function("crash", 90, "runs once mended", running).await;
}

#[tokio::test]
async fn tenants_see_nothing_of_one_another() {
    let platform = Platform::shared();
    let (alice, bob) = (platform.sign_in("near-alice").await, platform.sign_in("near-bob").await);
    alice.create(named("secret", &platform.image("hello:v1"), json!({"env": {"TOKEN": "planted"}}))).await;
    let list = bob.call(Method::GET, "/v1/functions", None).await;
    assert_eq!(list.json["functions"], json!([]));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(bob.call(method, "/v1/functions/secret", None).await.status, StatusCode::NOT_FOUND);
    }
    let patched = bob.call(Method::PATCH, "/v1/functions/secret", Some(json!({"replicas": 0}))).await;
    assert_eq!(patched.status, StatusCode::NOT_FOUND);
    assert!(!bob.call(Method::GET, "/v1/audit", None).await.json.to_string().contains("secret"));
}

#[tokio::test]
async fn what_is_broken_by_hand_is_put_back() {
    let platform = Platform::shared();
    let alice = platform.sign_in("repair").await;
    let namespace = alice.tenant.namespace();
    alice.create(named("app", &platform.image("hello:v1"), json!({"port": 8080}))).await;
    alice.function("app", 90, "runs", running).await;
    platform.kubectl(&["delete", "deployment", "fn-app", "-n", &namespace]);
    platform.kubectl(&["delete", "service", "fn-app", "-n", &namespace]);
    platform.kubectl(&["delete", "resourcequota", "tenant-quota", "-n", &namespace]);
    platform.kubectl(&[
        "patch",
        "networkpolicy",
        "tenant-default",
        "-n",
        &namespace,
        "--type=merge",
        "-p",
        r#"{"spec":{"egress":[{}]}}"#,
    ]);
    for object in ["deployment/fn-app", "service/fn-app", "resourcequota/tenant-quota"] {
        eventually(30, &format!("{object} is back"), || async {
            platform.try_kubectl(&["get", object, "-n", &namespace])
        })
        .await;
    }
    eventually(30, "the network policy is mended", || async {
        let egress = platform.try_kubectl(&[
            "get",
            "networkpolicy/tenant-default",
            "-n",
            &namespace,
            "-o",
            "jsonpath={.spec.egress}",
        ])?;
        if egress.contains("[{}]") { Err(egress) } else { Ok(()) }
    })
    .await;
    platform.kubectl(&["scale", "deployment/fn-app", "-n", &namespace, "--replicas=4"]);
    eventually(30, "the deployment is scaled back", || async {
        let replicas =
            platform.try_kubectl(&["get", "deployment/fn-app", "-n", &namespace, "-o", "jsonpath={.spec.replicas}"])?;
        if replicas == "1" { Ok(()) } else { Err(replicas) }
    })
    .await;
    alice.function("app", 60, "runs again", running).await;
}
