//! Controllers as processes of their own, which can be paused and killed, and an API server that can be restarted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use devcluster::TestCluster;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use crate::common::eventually;

const LEASE: &str = "history-tests";

/// The controllers of one test.
pub struct Crew {
    client: Client,
    controllers: Vec<(String, Child)>,
    logs: PathBuf,
}

impl Crew {
    /// Starts so many controllers and waits until one leads.
    pub async fn start(client: &Client, size: usize) -> Self {
        let logs = std::env::temp_dir().join(format!("eventflow-history-{}", std::process::id()));
        std::fs::create_dir_all(&logs).unwrap();
        let mut crew = Self { client: client.clone(), controllers: Vec::new(), logs };
        for _ in 0..size {
            crew.add();
        }
        crew.leader(None).await;
        crew
    }

    /// Starts one more.
    pub fn add(&mut self) {
        let identity = crate::common::unique("controller");
        let cluster = TestCluster::attach().unwrap();
        let log = std::fs::File::create(self.logs.join(format!("{identity}.log"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_controller"));
        command.env("KUBECONFIG", cluster.kubeconfig_path()).env("NO_COLOR", "1");
        command.args(["--admin-listen", "127.0.0.1:0", "--lease-name", LEASE, "--identity", &identity]);
        command.args(["--lease-duration", "4s", "--lease-renew-deadline", "3s", "--lease-retry-period", "500ms"]);
        command.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        self.controllers.push((identity, command.spawn().unwrap()));
    }

    /// Starts one if none is left, as a Deployment would: on a machine that stands still a lease runs out.
    pub fn revive(&mut self) {
        if self.controllers.iter_mut().all(|(_, child)| child.try_wait().unwrap().is_some()) {
            println!("no controller is left; another one is started");
            self.add();
        }
    }

    /// The one that leads, other than `not`.
    pub async fn leader(&self, not: Option<&str>) -> String {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-system");
        eventually("one of the controllers leads", async || {
            let lease = leases.get_opt(LEASE).await.ok()??;
            let holder = lease.spec?.holder_identity?;
            let ours = self.controllers.iter().any(|(identity, _)| *identity == holder);
            (ours && Some(holder.as_str()) != not).then_some(holder)
        })
        .await
    }

    /// Sends a signal to one of them.
    pub fn signal(&self, identity: &str, signal: &str) {
        let (_, child) = self.controllers.iter().find(|(name, _)| name == identity).unwrap();
        let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill -{signal}");
    }

    /// Kills one of them, in the middle of whatever it does.
    pub fn kill(&mut self, identity: &str) {
        let at = self.controllers.iter().position(|(name, _)| name == identity).unwrap();
        let (_, mut child) = self.controllers.remove(at);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for (_, child) in &mut self.controllers {
            drop(child.kill());
            drop(child.wait());
        }
        if !std::thread::panicking() {
            drop(std::fs::remove_dir_all(&self.logs));
        }
    }
}

/// Kills the API server of the cluster this runs in and starts it again, without its watch cache: a new one knows
/// nothing of what was before, and would make every watch list anew and miss what happened meanwhile; the store behind
/// it gives whoever recorded the rest, version by version. It stays for the tests that follow, and ends with the
/// namespaces of `devcluster run`.
pub async fn restart_api_server() {
    let address = TestCluster::attach().unwrap().api_server_address().unwrap();
    let (pid, arguments) = api_server(&address);
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    let serves = || std::net::TcpStream::connect(&address).is_ok();
    eventually("the API server is gone", async || (!serves()).then_some(())).await;
    let log = std::fs::File::create(std::env::temp_dir().join("eventflow-history-api-server.log")).unwrap();
    let mut command = Command::new(&arguments[0]);
    command
        .args(&arguments[1..])
        .arg("--watch-cache=false")
        .stdin(Stdio::null())
        .stderr(log.try_clone().unwrap())
        .stdout(log);
    let mut started: Option<Child> = None;
    eventually("the API server serves again", async || {
        // Its port is free only once the last thread of the old one is gone.
        if started.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
            started = Some(command.spawn().unwrap());
        }
        serves().then_some(())
    })
    .await;
}

/// The process that serves the cluster of this test, as it was started: visible within the run that started it.
fn api_server(address: &str) -> (u32, Vec<String>) {
    let flag = format!("--secure-port={}", address.rsplit(':').next().unwrap());
    let processes = std::fs::read_dir(Path::new("/proc")).unwrap().flatten();
    let arguments = |entry: &std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        text.split('\0').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut found = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, arguments(&entry))));
    let ours = |(_, arguments): &(u32, Vec<String>)| {
        arguments.first().is_some_and(|program| program.ends_with("kube-apiserver")) && arguments.contains(&flag)
    };
    found.find(ours).expect("this runs in the process namespace of its own cluster")
}
