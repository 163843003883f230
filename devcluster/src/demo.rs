//! Shows that the platform works: alice signs in, deploys the example function, and its pod answers.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    images,
    layout::loopback,
    plan::{Plan, PlatformPlan},
    platform, probe,
};

/// How long the function may take to run.
const RUNS_WITHIN: Duration = Duration::from_secs(120);
/// How often it is asked for.
const POLL: Duration = Duration::from_millis(200);
/// The port the example listens on.
const PORT: u16 = 8080;

/// What the demo found.
#[derive(Debug)]
pub struct Shown {
    /// A token of the demo tenant.
    pub token: String,
    /// Its namespace.
    pub namespace: String,
    /// What the function's pod answered; none if there are no pods of ours.
    pub answer: Option<String>,
}

/// Signs in as alice and, if the cluster is ours, deploys the function `hello` and calls its pod.
///
/// # Errors
/// When a step does not come to its end: what was answered instead.
pub fn show(plan: &Plan, platform: &PlatformPlan) -> Result<Shown> {
    let gateway = loopback(platform.port);
    let alice = json!({"user_id": "alice", "username": "alice", "email": "alice@example.com", "roles": ["developer"]});
    let session = expect(call(gateway, "POST", "/auth/token", None, Some(&alice))?, &[200])?;
    let text = |name: &str| session[name].as_str().unwrap_or_default().to_owned();
    let (token, namespace) = (text("token"), text("namespace"));
    let mut shown = Shown { token, namespace, answer: None };
    if plan.images.is_some() {
        deploy(plan, gateway, &shown.token)?;
        let pod = wait_until_running(plan, gateway, &shown)?;
        shown.answer = Some(pod);
    }
    Ok(shown)
}

fn deploy(plan: &Plan, gateway: SocketAddr, token: &str) -> Result<()> {
    let image = images::reference(&plan.layout(), "hello", "v1");
    let hello = json!({"name": "hello", "image": image, "port": PORT, "env": {"GREETING": "hello from EventFlow"}});
    // 409: it is there from the last time, maybe changed since, and that is fine.
    expect(call(gateway, "POST", "/v1/functions", Some(token), Some(&hello))?, &[201, 202, 409]).map(drop)
}

/// Waits until the function runs and returns what its pod answers.
fn wait_until_running(plan: &Plan, gateway: SocketAddr, shown: &Shown) -> Result<String> {
    let started = Instant::now();
    loop {
        let function = expect(call(gateway, "GET", "/v1/functions/hello", Some(&shown.token), None)?, &[200])?;
        let last = if function["status"]["phase"] == "Running" {
            match call_pod(plan, &shown.namespace) {
                Ok(answer) => return Ok(answer),
                Err(reason) => reason,
            }
        } else {
            function["status"].to_string()
        };
        if started.elapsed() > RUNS_WITHIN {
            return Err(Error::Precondition(format!(
                "the function hello did not run within {} s: `make logs` shows why; last seen: {last}",
                RUNS_WITHIN.as_secs()
            )));
        }
        thread::sleep(POLL);
    }
}

fn call_pod(plan: &Plan, namespace: &str) -> Result<String, String> {
    let query = "jsonpath={.items[?(@.status.phase==\"Running\")].status.podIP}";
    let arguments = ["get", "pods", "--namespace", namespace, "--selector", "function=hello", "--output", query];
    let addresses = platform::kubectl(plan, &arguments).map_err(|error| error.to_string())?;
    let address = addresses.split_whitespace().next().ok_or("the function has no running pod")?;
    let address = format!("{address}:{PORT}").parse().map_err(|_| format!("`{address}` is no address"))?;
    probe::http(address, "/")
}

/// Calls the API.
fn call(
    gateway: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<(u16, Value)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, body) = probe::exchange(gateway, &request)
        .map_err(|reason| Error::Precondition(format!("{method} {path} got no answer: {reason}")))?;
    Ok((status, serde_json::from_str(&body).unwrap_or(Value::String(body))))
}

fn expect((status, body): (u16, Value), wanted: &[u16]) -> Result<Value> {
    if wanted.contains(&status) {
        return Ok(body);
    }
    Err(Error::Precondition(format!("the gateway answers {status}: {body}; `make logs` may say why")))
}
