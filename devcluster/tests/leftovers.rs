//! What clusters leave on the machine: nothing, whatever ended them. Needs root; `make test` runs it with the node tests.
//! Everything happens in a network namespace of the test's own, beside whatever else runs on this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const DEVCLUSTER: &str = env!("CARGO_BIN_EXE_devcluster");
const DEADLINE: Duration = Duration::from_secs(120);

/// A network namespace that lives as long as this, and a folder for one cluster's data.
struct Machine {
    holder: Child,
    data: PathBuf,
}

impl Machine {
    fn new(name: &str) -> Self {
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

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id())).arg("--net").arg("--").arg(program).args(arguments);
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program, arguments).output().unwrap()
    }

    fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    fn devcluster(&self, arguments: &[&str]) -> String {
        let data = format!("--data={}", self.data.display());
        self.must(DEVCLUSTER, &[arguments, &[data.as_str()]].concat())
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let kubeconfig = format!("--kubeconfig={}", self.data.join("kubeconfig").display());
        let tools = self.must(DEVCLUSTER, &["tools"]);
        self.must(&format!("{}/kubectl", tools.trim()), &[&[kubeconfig.as_str()], arguments].concat())
    }

    /// Component and process id, as `status` shows them; all must be up.
    fn components(&self) -> BTreeMap<String, String> {
        let status = self.devcluster(&["status"]);
        let lines = status.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let up = lines.filter(|fields| fields.get(1) == Some(&"up"));
        up.map(|fields| (fields[0].to_owned(), fields[2].to_owned())).collect()
    }

    /// All that a cluster could leave outside its data folder.
    fn traces(&self) -> Vec<String> {
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

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Command lines, by process id, that hold `needle`, but for commands of this test.
fn processes(needle: &str) -> BTreeMap<u32, String> {
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let lines = ids.filter_map(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        Some((id, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.filter(|(_, line)| line.contains(needle)).collect()
}

/// Cgroups of this name, in all hierarchies.
fn cgroups(name: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" cgroup")).filter_map(|line| line.split(' ').nth(1));
    let paths = mounts.map(|mount| Path::new(mount).join(name)).filter(|path| path.exists());
    paths.map(|path| path.display().to_string()).collect()
}

#[test]
fn a_cluster_survives_a_kill_and_leaves_nothing_when_it_goes() {
    let machine = Machine::new("leftovers");
    let before = machine.traces();

    machine.devcluster(&["up", "--cluster-only"]);
    let components = machine.components();
    assert!(components.contains_key("kubelet") && components.contains_key("postgres"), "{components:?}");
    machine.kubectl(&["create", "deployment", "hello", "--image=127.0.0.1:5000/hello:v1", "--replicas=2"]);
    machine.kubectl(&["wait", "deployment/hello", "--for=condition=Available", "--timeout=120s"]);
    assert!(machine.traces().len() > before.len() + 5, "the traces of a running cluster are not seen");

    machine.devcluster(&["up", "--cluster-only"]);
    assert_eq!(machine.components(), components, "a second `up` changes nothing");

    let supervisor = format!("supervise --data={}", machine.data.display());
    let killed: Vec<String> = processes(&supervisor).into_keys().map(|id| id.to_string()).collect();
    assert!(!killed.is_empty());
    machine.run(
        "kill",
        &[&["-KILL".to_owned()], killed.as_slice()].concat().iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let data = machine.data.to_string_lossy().into_owned();
    wait_until("nothing runs after the kill", || processes(&data).is_empty());

    machine.devcluster(&["up", "--cluster-only"]);
    let pods = ["get", "pods", "--output", "jsonpath={.items[*].status.containerStatuses[0].ready}"];
    wait_until("the pods run again", || machine.kubectl(&pods) == "true true");

    machine.devcluster(&["down"]);
    assert_eq!(machine.traces(), before, "`down` leaves the machine as it was");
    assert_eq!(machine.run(DEVCLUSTER, &["status", &format!("--data={data}")]).status.code(), Some(3));

    machine.devcluster(&["clean"]);
    assert!(!machine.data.exists());
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let machine = Machine::new("port");
    let before = machine.traces();
    let listen =
        "import socket,time; s=socket.create_server(('127.0.0.1', 54329)); print('up', flush=True); time.sleep(600)";
    let mut listener = machine.command("python3", &["-c", listen]).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("somebody listens", || machine.must("ss", &["-ltn"]).contains(":54329"));
    let output = machine.run(DEVCLUSTER, &["up", "--cluster-only", &format!("--data={}", machine.data.display())]);
    listener.kill().unwrap();
    listener.wait().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("54329") && said.contains("PostgreSQL"), "{said}");
    assert_eq!(machine.traces(), before);
}

#[test]
fn a_run_passes_the_exit_code_on_and_leaves_nothing() {
    let machine = Machine::new("run");
    let output = machine.run(DEVCLUSTER, &["run", "--", "sh", "-c", "kubectl get namespaces && pwd && exit 7"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(7), "{said}");
    let here = std::env::current_dir().unwrap();
    assert!(said.contains("kube-system") && said.contains(here.to_str().unwrap()), "{said}");
}

#[test]
fn a_killed_run_takes_its_processes_along() {
    let machine = Machine::new("killed");
    let script = format!("echo started > {0}; sleep 1000 # {0}", machine.data.display());
    let mut run = machine.command(DEVCLUSTER, &["run", "--node", "--", "sh", "-c", &script]).spawn().unwrap();
    wait_until("the command runs", || machine.data.exists());
    let cluster = format!("eventflow-test-{}", run.id());
    assert!(processes(&cluster).len() > 5 && !cgroups(&cluster).is_empty());
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until("its processes are gone", || processes(&cluster).is_empty());
    fs::remove_file(&machine.data).unwrap();

    let output = machine.run(DEVCLUSTER, &["run", "--node", "--", "true"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cgroups(&cluster), Vec::<String>::new(), "the next run removes the cgroups of a killed one");
    assert!(!std::env::temp_dir().join(&cluster).exists(), "and its folder");
}
