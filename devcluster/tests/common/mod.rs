//! A machine that a cluster may take over: a network namespace of the test's own, beside whatever else runs here.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it, and what cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

pub const DEVCLUSTER: &str = env!("CARGO_BIN_EXE_devcluster");
const DEADLINE: Duration = Duration::from_secs(120);

/// A network namespace that lives as long as this, and a folder for one cluster's data.
pub struct Machine {
    holder: Child,
    pub data: PathBuf,
}

impl Machine {
    pub fn new(name: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "needs root: run this through `make test`");
        let holder = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().unwrap();
        let machine =
            Self { data: std::env::temp_dir().join(format!("eventflow-{name}-{}", std::process::id())), holder };
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        wait_until("the network namespace is there", || {
            network(&machine.holder.id().to_string()).is_some_and(|there| Some(there) != network("self"))
        });
        machine.must("ip", &["link", "set", "lo", "up"]);
        machine
    }

    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id())).arg("--net").arg("--").arg(program).args(arguments);
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    pub fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    pub fn devcluster(&self, arguments: &[&str]) -> String {
        let data = format!("--data={}", self.data.display());
        self.must(DEVCLUSTER, &[arguments, &[data.as_str()]].concat())
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let kubeconfig = format!("--kubeconfig={}", self.data.join("kubeconfig").display());
        let tools = self.must(DEVCLUSTER, &["tools"]);
        self.must(&format!("{}/kubectl", tools.trim()), &[&[kubeconfig.as_str()], arguments].concat())
    }

    /// Component and process id, as `status` shows them; all must be up.
    pub fn components(&self) -> BTreeMap<String, String> {
        let status = self.devcluster(&["status"]);
        let lines = status.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let up = lines.filter(|fields| fields.get(1) == Some(&"up"));
        up.map(|fields| (fields[0].to_owned(), fields[2].to_owned())).collect()
    }

    /// All that a cluster could leave outside its data folder.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let links = self.must("ip", &["-oneline", "link"]);
        traces.extend(links.lines().map(|line| line.split(": ").nth(1).unwrap().to_owned()));
        traces.extend(self.must("nft", &["list", "tables"]).lines().map(str::to_owned));
        for setting in ["net.ipv4.ip_forward", "net.ipv4.conf.all.accept_redirects", "vm.overcommit_memory"] {
            let path = format!("/proc/sys/{}", setting.replace('.', "/"));
            traces.push(format!("{setting}={}", self.must("cat", &[&path]).trim()));
        }
        traces.extend(["/var/lib/kubelet", "/var/lib/cni", "/var/log/containers"].map(|folder| {
            let entries = fs::read_dir(folder).map_or(0, Iterator::count);
            format!("{folder} holds {entries}")
        }));
        let data = self.data.to_string_lossy().into_owned();
        traces.extend(
            fs::read_to_string("/proc/mounts").unwrap().lines().filter(|l| l.contains(&data)).map(str::to_owned),
        );
        traces.extend(cgroups(self.data.file_name().unwrap().to_str().unwrap()));
        traces.extend(processes(&data).into_values());
        traces
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.data.exists() {
            let data = format!("--data={}", self.data.display());
            drop(self.run(DEVCLUSTER, &["clean", &data]));
        }
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Command lines, by process id, that hold `needle`, but for commands of this test.
pub fn processes(needle: &str) -> BTreeMap<u32, String> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let lines = ids.filter_map(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        Some((id, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(_, line)| line.contains(needle)).collect()
}

/// Cgroups of this name, in all hierarchies.
pub fn cgroups(name: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" cgroup")).filter_map(|line| line.split(' ').nth(1));
    let paths = mounts.map(|mount| Path::new(mount).join(name)).filter(|path| path.exists());
    paths.map(|path| path.display().to_string()).collect()
}
