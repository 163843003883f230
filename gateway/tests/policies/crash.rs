use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use devcluster::TestCluster;
use http::{Request, StatusCode};
use http_body_util::Full;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::bed::{Operator, component};
use crate::common::{Reply, TestApp, eventually};

/// Another replica: the real program, which kills itself at `failpoint`.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    async fn start(app: &TestApp, failpoint: &str) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, admin) = (free(), free());
        let cluster = TestCluster::attach().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.args(["serve", "--dev-issuer", "--log-level", "warn"]);
        command.args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()]);
        command.arg("--kubeconfig").arg(cluster.kubeconfig_path());
        command.env("EVENTFLOW_DATABASE_URL", app.database.expose_secret()).env("EVENTFLOW_FAILPOINT", failpoint);
        let process = Self { child: command.stdin(Stdio::null()).spawn().unwrap(), address };
        eventually("the process listens", async || std::net::TcpStream::connect(address).is_ok()).await;
        eventually("the process is ready", async || {
            app.send(Request::get(process.uri("/readyz")).body(Full::default()).unwrap()).await.status == StatusCode::OK
        })
        .await;
        process
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn post(&self, app: &TestApp, token: &str, (path, body): (&str, Value)) -> Reply {
        let request = Request::post(self.uri(path)).header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {token}"));
        app.send(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activation_is_whole_or_not_at_all() {
    for (failpoint, replicas_allowed) in [("policy-before-commit", 3), ("policy-after-commit", 9)] {
        let app = TestApp::start().await;
        let operator = Operator::of(&app).await;
        operator.enforce("replica-limit", json!({"max": 3})).await;
        assert!(operator.upload(component("replica-limit")).await.status.is_success());
        let mut process = Process::start(&app, failpoint).await;
        let token = process.post(&app, "", ("/auth/token", json!({"user_id": "olga", "roles": ["operator"]}))).await;
        let token = token.json()["token"].as_str().unwrap().to_owned();
        let wish = ("/v1/policies/replica-limit:activate", json!({"settings": {"max": 9}}));
        // The connection breaks with the process.
        let dying = async {
            let request = Request::post(process.uri(wish.0)).header("content-type", "application/json");
            let request = request.header("authorization", format!("Bearer {token}"));
            app.try_send(request.body(Full::new(Bytes::from(wish.1.to_string()))).unwrap()).await
        };
        assert!(dying.await.is_none(), "no answer came");
        eventually("the process is dead", async || process.child.try_wait().unwrap().is_some()).await;
        operator.settled().await;
        let tenant = app.tenant().await;
        for (replicas, status) in
            [(replicas_allowed, StatusCode::CREATED), (replicas_allowed + 1, StatusCode::FORBIDDEN)]
        {
            let body = json!({"name": format!("f{replicas}"), "image": "i:1", "replicas": replicas});
            assert_eq!(app.post(&tenant, "/v1/functions", body).await.status, status, "{failpoint} {replicas}");
        }
    }
}
