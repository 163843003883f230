//! What a cluster needs of the machine outside its own folder and namespaces, and how that is put back.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    layout::{BRIDGE, Layout, POD_NETWORK, write},
    process::{run, run_quietly},
};

/// A cgroup of its own for a cluster's pods, in every hierarchy there is: it outlives the processes in it, so it must
/// be removed by whoever outlives the cluster.
#[derive(Debug, Clone)]
pub struct Cgroup {
    name: String,
}

impl Cgroup {
    /// The cgroup of the cluster with this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    /// Makes it where it does not exist.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(&self) -> Result<()> {
        for hierarchy in hierarchies() {
            let path = hierarchy.join(&self.name);
            pass_controllers_on(&hierarchy)?;
            fs::create_dir_all(&path).map_err(Error::io(format!("make the cgroup {}", path.display())))?;
            // The old kind of cpuset cgroup starts without any CPU, and then takes no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                inherit(&hierarchy.join(file), &path.join(file))?;
            }
        }
        Ok(())
    }

    /// Removes it with all below it. What still has processes stays.
    pub fn remove(&self) {
        for hierarchy in hierarchies() {
            remove_tree(&hierarchy.join(&self.name));
        }
    }

    /// Where it exists now.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        hierarchies().into_iter().map(|hierarchy| hierarchy.join(&self.name)).filter(|path| path.exists()).collect()
    }
}

/// The mount points of all cgroup hierarchies, version 1 and 2.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut hierarchies: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| PathBuf::from(path))
        })
        .collect();
    hierarchies.sort();
    hierarchies.dedup();
    hierarchies
}

/// What the kubelet wants to find in its cgroup of version 2, as far as the machine has it.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];

/// In a hierarchy of version 2 a cgroup has the controllers that its parent passes on. systemd passes on those it uses
/// itself, which may be too few. What was switched on stays on: it harms nobody, and somebody else may rely on it.
fn pass_controllers_on(hierarchy: &Path) -> Result<()> {
    let file = hierarchy.join("cgroup.subtree_control");
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let (here, passed_on) = (read(&hierarchy.join("cgroup.controllers")), read(&file));
    let has = |words: &str, wanted: &str| words.split_whitespace().any(|word| word == wanted);
    let missing = CONTROLLERS.into_iter().filter(|wanted| has(&here, wanted) && !has(&passed_on, wanted));
    let missing: Vec<String> = missing.map(|controller| format!("+{controller}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    fs::write(&file, missing.join(" ")).map_err(Error::io(format!("write {} to {}", missing.join(" "), file.display())))
}

fn inherit(from: &Path, to: &Path) -> Result<()> {
    let read = |path: &Path| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(|text| Some(text.trim().to_owned())),
    };
    let (Ok(Some(value)), Ok(Some(present))) = (read(from), read(to)) else { return Ok(()) };
    if present.is_empty() && !value.is_empty() {
        fs::write(to, value).map_err(Error::io(format!("write {}", to.display())))?;
    }
    Ok(())
}

/// A cgroup folder goes by `rmdir`, children first.
fn remove_tree(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    drop(fs::remove_dir(path));
}

/// Settings of the network that a node changes.
const NETWORK_SETTINGS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"];
/// The tables of kube-proxy, and ours, by which pods reach the outside.
const TABLES: [[&str; 2]; 3] = [["ip", "kube-proxy"], ["ip6", "kube-proxy"], ["ip", "eventflow"]];

/// Writes down what the machine is like before a node starts, so that [`restore`] can put it back whatever ends the
/// node; then makes what the node needs: its cgroup, and a way for pods to the outside.
///
/// # Errors
/// When another kube-proxy is at work, or the system refuses.
pub fn take(layout: &Layout) -> Result<()> {
    let tables = run(Command::new("nft").args(["list", "tables"]))?;
    if tables.lines().any(|table| table.ends_with(" kube-proxy")) {
        return Err(Error::Precondition(
            "another kube-proxy works on this machine (`nft list tables` shows its tables): stop that Kubernetes, or \
             set KUBECONFIG to use it"
                .to_owned(),
        ));
    }
    let settings = NETWORK_SETTINGS.iter().filter_map(|name| {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
        Some(((*name).to_owned(), Value::from(value.trim())))
    });
    let settings: serde_json::Map<String, Value> = settings.collect();
    write(&record(&layout.data), Value::from(settings).to_string())?;
    Cgroup::new(&layout.name).create()?;
    let rules = format!(
        "table ip eventflow {{ chain outside {{ type nat hook postrouting priority srcnat; \
         ip saddr {POD_NETWORK} ip daddr != {POD_NETWORK} oifname != \"{BRIDGE}\" masquerade; }}; }}"
    );
    run(Command::new("nft").arg(rules)).map(drop)
}

/// Puts the machine back as [`take`] found it. Does nothing if it has been done already.
///
/// # Errors
/// When something cannot be put back.
pub fn restore(layout: &Layout) -> Result<()> {
    let record = record(&layout.data);
    let Ok(text) = fs::read_to_string(&record) else { return Ok(()) };
    let settings: Value = serde_json::from_str(&text).unwrap_or_default();
    for [family, table] in TABLES {
        run_quietly("nft", &["delete", "table", family, table]);
    }
    // The kernel removes the pods' ends of their wires a moment after the pods.
    let started = Instant::now();
    while wires_left() && started.elapsed() < WIRES_GONE_WITHIN {
        thread::sleep(Duration::from_millis(100));
    }
    run_quietly("ip", &["link", "delete", "dev", BRIDGE]);
    let cgroup = Cgroup::new(&layout.name);
    while !cgroup.paths().is_empty() && started.elapsed() < WIRES_GONE_WITHIN {
        cgroup.remove();
        thread::sleep(Duration::from_millis(50));
    }
    for (name, value) in settings.as_object().into_iter().flatten() {
        let path = Path::new("/proc/sys").join(name);
        let value = value.as_str().unwrap_or_default();
        let now = fs::read_to_string(&path).unwrap_or_default();
        if now.trim() != value {
            fs::write(&path, value).map_err(Error::io(format!("set {} back to {value}", path.display())))?;
        }
    }
    fs::remove_file(&record).map_err(Error::io(format!("remove {}", record.display())))
}

/// How long the kernel may take to remove the network of ended pods.
const WIRES_GONE_WITHIN: Duration = Duration::from_secs(15);

fn wires_left() -> bool {
    let links = run(Command::new("ip").args(["-oneline", "link", "show", "master", BRIDGE]));
    links.is_ok_and(|links| !links.trim().is_empty())
}

fn record(data: &Path) -> PathBuf {
    data.join("machine-before.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_passed_on_where_there_are_any() {
        let hierarchy = std::env::temp_dir().join(format!("devcluster-cgroup-{}", std::process::id()));
        fs::create_dir_all(&hierarchy).unwrap();
        let control = hierarchy.join("cgroup.subtree_control");
        let read = || fs::read_to_string(&control).ok();
        pass_controllers_on(&hierarchy).unwrap();
        assert_eq!(read(), None, "version 1 has no such file");
        fs::write(hierarchy.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        fs::write(&control, "memory pids\n").unwrap();
        pass_controllers_on(&hierarchy).unwrap();
        assert_eq!(read().as_deref(), Some("+cpu +cpuset"));
        fs::write(&control, "cpu cpuset memory pids\n").unwrap();
        pass_controllers_on(&hierarchy).unwrap();
        assert_eq!(read().as_deref(), Some("cpu cpuset memory pids\n"), "nothing is missing, nothing is written");
        fs::remove_dir_all(&hierarchy).unwrap();
    }
}
