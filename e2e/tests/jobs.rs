//! Runs of functions as Jobs, with real pods: input, result, exit codes, and every way to fail.

use eventflow_e2e::caller::Caller;
use eventflow_e2e::eventually::eventually;
use eventflow_e2e::platform::Platform;
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// A function without pods of its own.
fn function(name: &str, image: &str, more: Value) -> Value {
    let mut body = json!({"name": name, "image": image, "replicas": 0, "resources":
        {"cpuRequest": "20m", "memoryRequest": "16Mi", "cpuLimit": "500m", "memoryLimit": "64Mi"}});
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

async fn invoke(caller: &Caller, name: &str, body: Value) -> String {
    let answer = caller.call(Method::POST, &format!("/v1/functions/{name}:invoke"), Some(body)).await;
    assert!(matches!(answer.status, StatusCode::OK | StatusCode::ACCEPTED), "{answer:?}");
    answer.json["invocation_id"].as_str().expect("an id").to_owned()
}

async fn read(caller: &Caller, id: &str) -> Value {
    caller.call(Method::GET, &format!("/v1/invocations/{id}"), None).await.json
}

/// Waits until the run looks so.
async fn until(caller: &Caller, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(120, &format!("the run {what}"), || async {
        let run = read(caller, id).await;
        if is(&run) { Ok(run) } else { Err(run) }
    })
    .await
}

async fn over(caller: &Caller, id: &str) -> Value {
    until(caller, id, "is over", |run| run["finishedAt"].is_string()).await
}

/// Waits until no pod is reserved any more: that follows what is gone after a moment.
async fn given_back(caller: &Caller) {
    eventually(60, "all that was held is given back", || async {
        let quota = caller.call(Method::GET, "/v1/quota", None).await.json;
        if quota["reserved"]["pods"] == "0" { Ok(()) } else { Err(quota) }
    })
    .await;
}

#[tokio::test]
async fn input_reaches_the_program_and_its_result_comes_back() {
    let platform = Platform::shared();
    let alice = platform.sign_in("jobs-alice").await;
    alice
        .create(function(
            "job",
            &platform.image("job:v1"),
            json!({"env": {"GREETING": "1", "VERSION": "1"}, "args": ["default"]}),
        ))
        .await;
    let body = json!({"input": {"hello": "job"}, "args": ["x", "y"], "env": {"VERSION": "2"}});
    let id = invoke(&alice, "job", body).await;
    let run = over(&alice, &id).await;
    assert_eq!(
        (&run["phase"], &run["exitCode"], &run["attempts"]),
        (&json!("Succeeded"), &json!(0), &json!(1)),
        "{run}"
    );
    let result = &run["result"];
    assert_eq!((&result["input"], &result["args"]), (&json!({"hello": "job"}), &json!(["x", "y"])), "{run}");
    assert_eq!(result["input_bytes"], json!(r#"{"hello":"job"}"#.len()));
    let environment = &result["environment"];
    assert_eq!((&environment["GREETING"], &environment["VERSION"]), (&json!("1"), &json!("2")), "{environment}");
    assert_eq!(environment["EVENTFLOW_INVOCATION"], json!(id), "{environment}");
    assert!(run["logTail"].as_str().expect("a log").contains("job: read 15 bytes"), "{run}");
    for part in ["queuedSeconds", "startingSeconds", "runningSeconds"] {
        assert!(run["timing"][part].is_i64(), "{run}");
    }
    // The most that may be given, and nothing at all.
    let id = invoke(&alice, "job", json!({"input": "x".repeat(256 * 1024)})).await;
    assert_eq!(over(&alice, &id).await["logTail"].as_str().map(str::trim), Some("job: read 262144 bytes"));
    let id = invoke(&alice, "job", json!({})).await;
    assert_eq!(over(&alice, &id).await["result"]["input_bytes"], 0);
    let namespace = alice.tenant.namespace();
    eventually(60, "nothing is left in the cluster", || async {
        let left = platform.kubectl(&[
            "get",
            "inv,jobs,pods,configmaps",
            "-n",
            &namespace,
            "-o",
            "name",
            "-l",
            "app.kubernetes.io/managed-by=eventflow",
        ]);
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    given_back(&alice).await;
}

#[tokio::test]
async fn input_is_standard_input_too_where_the_command_is_named() {
    let platform = Platform::shared();
    let erin = platform.sign_in("jobs-erin").await;
    let more = json!({"command": ["/job"], "args": ["$(HOME)"], "env": {"READ": "stdin"}});
    erin.create(function("job", &platform.image("job:v1"), more)).await;
    let id = invoke(&erin, "job", json!({"input": {"by": "stdin", "exit": 4}})).await;
    let run = over(&erin, &id).await;
    assert_eq!((&run["reason"], &run["exitCode"]), (&json!("ExitCode"), &json!(4)), "{run}");
    let result = &run["result"];
    assert_eq!((&result["input"]["by"], &result["args"]), (&json!("stdin"), &json!(["$(HOME)"])), "{run}");
    let id = invoke(&erin, "job", json!({"input": "x".repeat(256 * 1024)})).await;
    assert_eq!(over(&erin, &id).await["logTail"].as_str().map(str::trim), Some("job: read 262144 bytes"));
}

#[tokio::test]
async fn waiting_for_a_result_gives_it_inline() {
    let platform = Platform::shared();
    let bob = platform.sign_in("jobs-bob").await;
    bob.create(function("job", &platform.image("job:v1"), json!({}))).await;
    // The test's own client waits 15 s.
    let answer = bob.call(Method::POST, "/v1/functions/job:invoke?wait=14s", Some(json!({"input": {"exit": 7}}))).await;
    assert_eq!((answer.status, &answer.json["message"]), (StatusCode::OK, &json!("Invocation Started")), "{answer:?}");
    let id = answer.json["invocation_id"].as_str().expect("an id").to_owned();
    let run = over(&bob, &id).await;
    assert_eq!((&run["phase"], &run["reason"], &run["exitCode"]), (&json!("Failed"), &json!("ExitCode"), &json!(7)));
    assert_eq!(run["result"]["exit"], 7, "what a program says on failure is told too");
    let again = bob.call(Method::POST, &format!("/v1/invocations/{id}:retry"), None).await;
    assert_eq!((again.status, &again.json["invocation"]["retryOf"]), (StatusCode::OK, &json!(id)), "{again:?}");
    let id = again.json["invocation_id"].as_str().expect("an id").to_owned();
    assert_eq!(over(&bob, &id).await["result"]["input"], json!({"exit": 7}), "with the same input");
}

#[tokio::test]
async fn every_way_to_fail_is_told() {
    let platform = Platform::shared();
    let carol = platform.sign_in("jobs-carol").await;
    for (name, image, more) in [
        ("crash", "crash:v1", json!({"env": {"EXIT_CODE": "5"}})),
        ("oom", "oom:v1", json!({})),
        ("slow", "job:v1", json!({})),
        ("nobody", "nobody:v1", json!({})),
        ("wrong", "job:v1", json!({"command": ["/no/such/program"]})),
    ] {
        carol.create(function(name, &platform.image(image), more)).await;
    }
    let crash = invoke(&carol, "crash", json!({"retries": 1})).await;
    let oom = invoke(&carol, "oom", json!({})).await;
    let slow = invoke(&carol, "slow", json!({"input": {"sleep_ms": 600_000}, "timeout_seconds": 3})).await;
    let nobody = invoke(&carol, "nobody", json!({})).await;
    let wrong = invoke(&carol, "wrong", json!({})).await;
    let told = async |id: &str| {
        let run = over(&carol, id).await;
        assert_eq!(run["phase"], "Failed", "{run}");
        run
    };
    let run = told(&crash).await;
    assert_eq!(
        (&run["reason"], &run["exitCode"], &run["attempts"]),
        (&json!("ExitCode"), &json!(5), &json!(2)),
        "{run}"
    );
    let run = told(&oom).await;
    assert_eq!((&run["reason"], &run["exitCode"]), (&json!("OutOfMemory"), &json!(137)), "{run}");
    let run = told(&slow).await;
    assert_eq!((&run["reason"], &run["attempts"]), (&json!("TimedOut"), &json!(1)), "{run}");
    assert!(run["message"].as_str().expect("a message").contains("longer than 3 s"), "{run}");
    assert!(run["logTail"].as_str().expect("the log of what was cut off").contains("job: read"), "{run}");
    let run = told(&nobody).await;
    assert_eq!((&run["reason"], &run["startedAt"]), (&json!("ImagePullFailed"), &Value::Null), "{run}");
    assert_eq!(told(&wrong).await["reason"], "ContainerFailed");
    given_back(&carol).await;
}

#[tokio::test]
async fn a_run_is_cancelled_while_it_runs() {
    let platform = Platform::shared();
    let dave = platform.sign_in("jobs-dave").await;
    dave.create(function("job", &platform.image("job:v1"), json!({}))).await;
    let id = invoke(&dave, "job", json!({"input": {"sleep_ms": 600_000}, "timeout_seconds": 300})).await;
    until(&dave, &id, "runs", |run| run["phase"] == "Running").await;
    let answer = dave.call(Method::POST, &format!("/v1/invocations/{id}:cancel"), None).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
    let run = over(&dave, &id).await;
    assert_eq!((&run["phase"], &run["reason"]), (&json!("Cancelled"), &json!("Cancelled")), "{run}");
    let answer = dave.call(Method::POST, &format!("/v1/invocations/{id}:cancel"), None).await;
    assert_eq!((answer.status, &answer.json["code"]), (StatusCode::CONFLICT, &json!("invocation-finished")));
}
