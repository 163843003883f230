use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use eventflow_api::function::Function;
use eventflow_api::invocation::Invocation;
use gateway::auth::{Tenant, testing};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bed::{Database, cluster, create_namespace, eventually, kube_client};

/// The real program.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Started, and killed at `failpoint` once it gets there.
    async fn start(database: &Database, failpoint: Option<&str>) -> Self {
        // Held together, or both may get the same.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, admin] = free.each_ref().map(|listener| listener.local_addr().unwrap());
        drop(free);
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.args(["serve", "--dev-issuer", "--log-level", "warn"]);
        command.args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()]);
        command.arg("--kubeconfig").arg(cluster().kubeconfig_path());
        command.env("EVENTFLOW_DATABASE_URL", database.url()).stdin(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env("EVENTFLOW_FAILPOINT", failpoint);
        }
        let process = Self { child: command.spawn().unwrap(), address };
        eventually("the gateway is ready", || async {
            (process.call("GET /readyz", "", &[], None)?.0 == 200).then_some(())
        })
        .await;
        process
    }

    /// Method and path in; status and body out; `None` when the connection broke.
    fn call(&self, line: &str, token: &str, headers: &[(&str, &str)], body: Option<Value>) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let mut head = format!("{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        if !token.is_empty() {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += "content-type: application/json\r\n";
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        // A body sent in chunks here is one chunk.
        let body = body.find('{').zip(body.rfind('}')).map_or(body, |(from, to)| &body[from..=to]);
        Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    fn token(&self, user: &str) -> String {
        let (status, body) = self.call("POST /auth/token", "", &[], Some(json!({ "user_id": user }))).unwrap();
        assert_eq!(status, 200, "{body}");
        body["token"].as_str().unwrap().to_owned()
    }

    fn create(&self, token: &str, function: &str, key: &str) -> Option<(u16, Value)> {
        let body = json!({ "name": function, "image": "x:v1" });
        self.call("POST /v1/functions", token, &[("idempotency-key", key)], Some(body))
    }

    fn delete(&self, token: &str, function: &str, key: &str) -> Option<(u16, Value)> {
        self.call(&format!("DELETE /v1/functions/{function}"), token, &[("idempotency-key", key)], None)
    }

    fn actions(&self, token: &str, target: &str) -> Vec<String> {
        let (_, body) = self.call("GET /v1/audit", token, &[], None).unwrap();
        let entries = body["entries"].as_array().unwrap().iter().filter(|entry| entry["target"] == target);
        entries.map(|entry| entry["action"].as_str().unwrap().to_owned()).collect()
    }

    async fn ended(mut self) -> ExitStatus {
        eventually("the process ends", || std::future::ready(self.child.try_wait().unwrap())).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; an error means that it is dead already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A tenant with a namespace and one function, and nothing pending.
struct Ground {
    database: Database,
    tenant: Tenant,
    user: String,
    client: Client,
}

impl Ground {
    async fn new() -> Self {
        let database = Database::new().await;
        let client = kube_client(None).await;
        let user = format!("t{}", &Uuid::new_v4().simple().to_string()[..12]);
        let tenant = testing::tenant(user.parse().unwrap());
        create_namespace(&client, &tenant).await;
        let ground = Self { database, tenant, user, client };
        let process = Process::start(&ground.database, None).await;
        let token = process.token(&ground.user);
        let (status, body) = process.create(&token, "kept", "kept").unwrap();
        assert!(matches!(status, 201 | 202), "{status} {body}");
        ground.settled().await;
        ground
    }

    async fn settled(&self) {
        let store = self.database.store();
        eventually("nothing is pending", || async { (store.backlog().await.ok()?.rows == 0).then_some(()) }).await;
    }

    async fn runs(&self) -> Vec<Invocation> {
        let api: Api<Invocation> = Api::namespaced(self.client.clone(), self.tenant.namespace());
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// Plays the controller.
    async fn end_run(&self, id: &str) {
        let api: Api<Invocation> = Api::namespaced(self.client.clone(), self.tenant.namespace());
        // A record of long ago would be pruned at once.
        let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
        let status = json!({"phase": "Succeeded", "reason": "Completed", "attempts": 1, "exitCode": 0,
            "result": "{\"a\":1}", "finishedAt": now, "observedGeneration": 1, "conditions": []});
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(id, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn object(&self, function: &str) -> Option<Function> {
        let api: Api<Function> = Api::namespaced(self.client.clone(), self.tenant.namespace());
        api.get_opt(function).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_survives_a_kill_at_every_point() {
    let ground = Ground::new().await;
    for point in ["before-commit", "after-commit", "after-apply"] {
        let process = Process::start(&ground.database, Some(point)).await;
        let token = process.token(&ground.user);
        assert_eq!(process.create(&token, point, point), None, "the process dies before it answers");
        assert!(!process.ended().await.success());
        assert_eq!(ground.object(point).await.is_some(), point == "after-apply");

        let process = Process::start(&ground.database, None).await;
        let token = process.token(&ground.user);
        ground.settled().await;
        let path = format!("GET /v1/functions/{point}");
        let (status, found) = process.call(&path, &token, &[], None).unwrap();
        assert_eq!(ground.object(point).await.is_some(), status == 200, "both sides agree");
        assert_eq!(status, if point == "before-commit" { 404 } else { 200 });

        let (status, again) = process.create(&token, point, point).unwrap();
        assert!(matches!(status, 201 | 202), "{point}: {status} {again}");
        if point != "before-commit" {
            assert_eq!(again["id"], found["id"], "the same call, not another one");
        }
        ground.settled().await;
        assert!(ground.object(point).await.is_some());
        assert_eq!(process.actions(&token, point), ["function.create"], "{point}");
    }
    assert!(ground.object("kept").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_survives_a_kill_at_every_point() {
    let ground = Ground::new().await;
    for point in ["before-commit", "after-delete-commit"] {
        let process = Process::start(&ground.database, None).await;
        let token = process.token(&ground.user);
        process.create(&token, point, &format!("make-{point}")).unwrap();
        ground.settled().await;
        drop(process);
        let process = Process::start(&ground.database, Some(point)).await;
        let token = process.token(&ground.user);
        assert_eq!(process.delete(&token, point, point), None, "the process dies before it answers");
        assert!(!process.ended().await.success());
        assert!(ground.object(point).await.is_some());

        let process = Process::start(&ground.database, None).await;
        let token = process.token(&ground.user);
        ground.settled().await;
        assert_eq!(ground.object(point).await.is_some(), point == "before-commit");
        let (status, body) = process.delete(&token, point, point).unwrap();
        assert!((200..300).contains(&status), "{point}: {status} {body}");
        ground.settled().await;
        assert!(ground.object(point).await.is_none());
        assert_eq!(process.actions(&token, point), ["function.delete", "function.create"], "{point}");
    }
    assert!(ground.object("kept").await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_survives_a_kill_at_every_point() {
    let ground = Ground::new().await;
    for point in ["before-invocation-commit", "after-invocation-commit", "after-invocation-apply"] {
        let process = Process::start(&ground.database, Some(point)).await;
        let token = process.token(&ground.user);
        let invoke = |process: &Process, token: &str| {
            let body = Some(json!({"input": point}));
            process.call("POST /v1/functions/kept:invoke", token, &[("idempotency-key", point)], body)
        };
        assert_eq!(invoke(&process, &token), None, "the process dies before it answers");
        assert!(!process.ended().await.success());

        let process = Process::start(&ground.database, None).await;
        let token = process.token(&ground.user);
        let (status, again) = invoke(&process, &token).unwrap();
        assert!(matches!(status, 200 | 202), "{point}: {status} {again}");
        let id = again["invocation_id"].as_str().unwrap().to_owned();
        eventually("the object is there", || async {
            ground.runs().await.iter().any(|run| run.name_any() == id).then_some(())
        })
        .await;
        let of_it: Vec<_> =
            ground.runs().await.into_iter().filter(|run| run.spec.input.as_deref() == Some(point)).collect();
        assert_eq!(of_it.len(), 1, "{point}: the same call, not another one");
        let (_, body) = process.call("GET /v1/audit", &token, &[], None).unwrap();
        let entries = body["entries"].as_array().unwrap().iter();
        assert_eq!(entries.filter(|entry| entry["detail"]["invocation"] == id.as_str()).count(), 1, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_survives_a_kill_at_every_point() {
    let ground = Ground::new().await;
    for point in ["before-invocation-record", "after-invocation-record"] {
        let process = Process::start(&ground.database, Some(point)).await;
        let token = process.token(&ground.user);
        let (_, started) = process.call("POST /v1/functions/kept:invoke", &token, &[], Some(json!({}))).unwrap();
        let id = started["invocation_id"].as_str().unwrap().to_owned();
        eventually("the object is there", || async {
            ground.runs().await.iter().any(|run| run.name_any() == id).then_some(())
        })
        .await;
        ground.end_run(&id).await;
        assert!(!process.ended().await.success());
        assert!(ground.runs().await.iter().any(|run| run.name_any() == id), "{point}: it stays until that is safe");

        let process = Process::start(&ground.database, None).await;
        let token = process.token(&ground.user);
        let read = || process.call(&format!("GET /v1/invocations/{id}"), &token, &[], None).unwrap().1;
        eventually("its record is made", || async { (read()["phase"] == "Succeeded").then_some(()) }).await;
        assert_eq!(read()["result"], json!({"a": 1}), "{point}");
        eventually("the object goes", || async {
            (!ground.runs().await.iter().any(|run| run.name_any() == id)).then_some(())
        })
        .await;
    }
}
