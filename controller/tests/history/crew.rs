//! Controllers as processes of their own, which can be paused and killed.

use std::path::PathBuf;
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
