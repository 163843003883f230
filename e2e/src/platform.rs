//! The platform's processes: a database of its own, migrated; one gateway with the development issuer; one
//! controller. Started once per test process; `devcluster run` ends what is left when the tests are over.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use devcluster::TestCluster;
use eventflow_api::names::TenantId;
use http::Request;
use http_body_util::Full;

use crate::caller::{Answer, Caller, send};
use crate::eventually::eventually;

/// The gateway and the controller of this test process.
pub struct Platform {
    cluster: TestCluster,
    base: String,
    database_url: String,
    gateway_admin: String,
    controller_admin: String,
    gateway: Child,
    controller: Child,
    /// Where the processes write their logs.
    pub logs: PathBuf,
}

impl Platform {
    /// The platform of this process, started by the first test that asks.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Platform> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a platform on a database of its own.
    pub fn start() -> Self {
        let cluster = TestCluster::attach().expect("a cluster");
        assert!(cluster.has_node(), "needs pods: run under `devcluster run --node`");
        let logs = std::env::temp_dir().join(format!("eventflow-e2e-{}", std::process::id()));
        // Process ids come again: what an earlier run left there is not this one's.
        drop(std::fs::remove_dir_all(&logs));
        std::fs::create_dir_all(&logs).expect("a folder for logs");
        let (gateway_address, gateway_admin, controller_admin) = (free_address(), free_address(), free_address());
        let kubectl = |args: &[&str]| output(Command::new("kubectl").args(args)).expect("kubectl");
        kubectl(&["apply", "--server-side", "-f", &repository("helm/crds")]);
        kubectl(&["apply", "--server-side", "-f", &repository("helm/policies")]);
        kubectl(&["apply", "--server-side", "-f", &repository("helm/tiers.yaml")]);
        let database_url = new_database(&cluster);
        let migrate = output(Command::new(binary("gateway")).args(["migrate", "--database-url", &database_url]));
        migrate.expect("the migration succeeds");
        let gateway = start(
            "gateway",
            &logs,
            &[
                "serve",
                "--listen",
                &gateway_address,
                "--admin-listen",
                &gateway_admin,
                "--database-url",
                &database_url,
                "--dev-issuer",
            ],
        );
        let controller = start_controller(&cluster, &logs, &controller_admin);
        wait_ready(&gateway_admin, &logs);
        wait_ready(&controller_admin, &logs);
        let base = format!("http://{gateway_address}");
        Self { cluster, base, database_url, gateway_admin, controller_admin, gateway, controller, logs }
    }

    /// The gateway's URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Process ids of the gateway and of the controller.
    pub fn pids(&self) -> (u32, u32) {
        (self.gateway.id(), self.controller.id())
    }

    /// URL of the platform's own database, as superuser.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// `host:port` of the admin ports of the gateway and of the controller.
    pub fn admin_addresses(&self) -> (&str, &str) {
        (&self.gateway_admin, &self.controller_admin)
    }

    /// Ends the gateway as a rollout does, and waits for it.
    pub fn stop_gateway(&mut self) {
        terminate(&mut self.gateway);
    }

    /// Ends the controller as a rollout does, and waits for it.
    pub fn stop_controller(&mut self) {
        terminate(&mut self.controller);
    }

    /// Starts the controller again; returns at once, before it is ready.
    pub fn start_controller(&mut self) {
        self.controller = start_controller(&self.cluster, &self.logs, &self.controller_admin);
    }

    /// The cluster it runs on.
    pub fn cluster(&self) -> &TestCluster {
        &self.cluster
    }

    /// A user with a token.
    pub async fn sign_in(&self, user: &str) -> Caller {
        Caller::sign_in(&self.base, user).await
    }

    /// The `eventflow` program, to be run against this gateway with a config file of its own in `folder`.
    pub fn eventflow(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(binary("eventflow"));
        command.args(args).stdin(Stdio::null()).env("EVENTFLOW_CONFIG", folder.join("config.yaml"));
        for inherited in ["EVENTFLOW_URL", "EVENTFLOW_TOKEN", "EVENTFLOW_CONTEXT"] {
            command.env_remove(inherited);
        }
        command
    }

    /// The full name of one of the example images.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.cluster.registry().expect("a registry"))
    }

    /// Runs kubectl; must succeed. Gives its standard output.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).expect("kubectl succeeds")
    }

    /// Runs kubectl; gives its standard output, or what it said on failure.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        output(Command::new("kubectl").arg("--kubeconfig").arg(self.cluster.kubeconfig_path()).args(args))
    }

    /// Applies an object with kubectl.
    pub fn kubectl_apply(&self, object: &serde_json::Value) {
        let file = self.logs.join(format!("{}.json", object["metadata"]["name"].as_str().expect("a name")));
        std::fs::write(&file, object.to_string()).expect("a file for kubectl");
        self.kubectl(&["apply", "-f", file.to_str().expect("a path in UTF-8")]);
    }

    /// GETs a URL.
    pub async fn get_url(&self, url: String) -> Result<Answer, String> {
        send(Request::get(url).body(Full::new(Bytes::new())).expect("a well-formed request")).await
    }

    /// GETs `path` from the newest ready pod of a function.
    pub async fn call_pod(&self, tenant: &TenantId, function: &str, port: u16, path: &str) -> Answer {
        let selector = format!("function={function}");
        let query = "jsonpath={range .items[*]}{.metadata.creationTimestamp} {.status.podIP} {.status.containerStatuses[0].ready}{\"\\n\"}{end}";
        eventually(30, "a ready pod answers", || async {
            let pods = self.try_kubectl(&["get", "pods", "-n", &tenant.namespace(), "-l", &selector, "-o", query])?;
            let mut ready: Vec<_> = pods.lines().filter(|l| l.ends_with("true")).collect();
            ready.sort_unstable();
            let address = ready.last().and_then(|l| l.split(' ').nth(1)).ok_or("no ready pod")?;
            self.get_url(format!("http://{address}:{port}{path}")).await
        })
        .await
    }
}

/// A loopback address nobody listens on now.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

/// A path of the repository.
fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).to_str().expect("a path in UTF-8").to_owned()
}

/// A program of the workspace: built beside this test, whatever the profile.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    let folder = test.ancestors().find(|folder| folder.join(name).is_file());
    folder.unwrap_or_else(|| panic!("{name} is not built: `cargo build -p eventflow-{name}` first")).join(name)
}

/// A new, empty database; its URL.
fn new_database(cluster: &TestCluster) -> String {
    let name = format!("e2e_{}", std::process::id());
    let mut psql = Command::new("psql");
    psql.args([cluster.database_url(), "-v", "ON_ERROR_STOP=1", "-c", &format!("CREATE DATABASE {name}")]);
    output(&mut psql).expect("a new database");
    let (server, _) = cluster.database_url().rsplit_once('/').expect("the URL names a database");
    format!("{server}/{name}")
}

fn start_controller(cluster: &TestCluster, logs: &Path, admin: &str) -> Child {
    let runner = format!("{}/ef-run:v1", cluster.registry().expect("a registry"));
    start("controller", logs, &["--admin-listen", admin, "--runner-image", &runner])
}

fn start(name: &str, logs: &Path, args: &[&str]) -> Child {
    let log = File::options().create(true).append(true).open(logs.join(format!("{name}.log"))).expect("a log file");
    let errors = log.try_clone().expect("the log file again");
    Command::new(binary(name)).args(args).stdout(log).stderr(errors).stdin(Stdio::null()).spawn().expect("starts")
}

fn terminate(child: &mut Child) {
    output(Command::new("kill").args(["-TERM", &child.id().to_string()])).expect("it runs");
    child.wait().expect("it ends");
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Waits for `/readyz` by hand: this runs before any test's runtime may be used.
fn wait_ready(address: &str, logs: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if ready(address).is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{address} is not ready within 60 s; see {}", logs.display());
}

fn ready(address: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
