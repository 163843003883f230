//! `devcluster run`: a fresh private cluster for the time of one command, and nothing left of it afterwards.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rustix::fs::{FlockOperation, flock};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{
    attach::{ENV_DATABASE_URL, ENV_KUBECONFIG, ENV_NODE, ENV_REGISTRY, STAND_IN},
    cluster::Cluster,
    contained::{self, exit_code},
    error::{Error, Result},
    host::Cgroup,
    images,
    layout::{Layout, Ports, create_folder, root},
    process::{run, run_quietly},
};

/// Names a run's cluster, before the id of its outermost process.
const PREFIX: &str = "eventflow-test-";
/// Where runs have their folders: always the same place, so that each finds what killed ones left.
const RUNS: &str = "/tmp";

/// Runs `command` with a cluster around it and returns its exit code. `logs` keeps the components' logs.
///
/// # Errors
/// When the cluster cannot be started.
pub fn around(command: &[String], tools: &Path, node: bool, logs: Option<&Path>) -> Result<u8> {
    let name = format!("{PREFIX}{}", std::process::id());
    let data = Path::new(RUNS).join(&name);
    if let Some(logs) = logs {
        create_folder(logs, 0o755)?;
    }
    if rustix::process::geteuid().is_root() {
        let images = if node { Some(images::build(root())?) } else { None };
        let (tools, logs) = (tools.to_owned(), logs.map(Path::to_owned));
        contained_run(command, &Run { name, data, tools, images, logs })
    } else {
        check_rights(node)?;
        let _alive = claim(&data)?;
        let ports = Ports::free().map_err(Error::io("find free ports"))?;
        let layout = layout(Run { name, data: data.clone(), tools: tools.to_owned(), images: None, logs: None }, ports);
        let code = with_cluster(command, &layout);
        keep_logs(&layout, logs);
        drop(fs::remove_dir_all(&data));
        code
    }
}

/// Whether we may start what was asked for.
///
/// # Errors
/// When a node is asked for and we are not root.
pub fn check_rights(node: bool) -> Result<()> {
    if node && !rustix::process::geteuid().is_root() {
        let sentence = "a node needs root: run this with sudo, or without --node for a control plane";
        return Err(Error::Precondition(sentence.to_owned()));
    }
    Ok(())
}

/// What the outer process hands to the inner one.
#[derive(Debug, Clone)]
pub struct Run {
    /// Names the cluster.
    pub name: String,
    /// An empty folder to mount the cluster's memory file system on.
    pub data: PathBuf,
    /// The folder of the built tools.
    pub tools: PathBuf,
    /// The folder of the programs to make images of, if pods shall run.
    pub images: Option<PathBuf>,
    /// Where to keep the logs.
    pub logs: Option<PathBuf>,
}

fn contained_run(command: &[String], plan: &Run) -> Result<u8> {
    remove_abandoned();
    let _alive = claim(&plan.data)?;
    let cgroup = Cgroup::new(&plan.name);
    if plan.images.is_some() {
        cgroup.create()?;
    }
    let mut arguments = vec!["run-inside".to_owned(), format!("--name={}", plan.name)];
    arguments.push(format!("--data={}", plan.data.display()));
    arguments.push(format!("--tools={}", plan.tools.display()));
    arguments.extend(plan.logs.iter().map(|logs| format!("--logs={}", logs.display())));
    arguments.extend(plan.images.iter().map(|images| format!("--images={}", images.display())));
    arguments.push("--".to_owned());
    arguments.extend(command.iter().cloned());
    let result = wait_or_kill(contained::command(true, &arguments)?);
    if plan.images.is_some() {
        cgroup.remove();
    }
    drop(fs::remove_dir(&plan.data));
    result
}

/// Makes the folder of a run and locks it, so that others can tell that the run is alive, from whatever namespace.
fn claim(folder: &Path) -> Result<File> {
    loop {
        create_folder(folder, 0o711)?;
        let lock = lock(folder)?;
        // Somebody may have found the folder abandoned and removed it before we had locked it.
        if let (Some(lock), true) = (lock, folder.exists()) {
            return Ok(lock);
        }
    }
}

/// The lock on a run's folder; none if somebody else holds it.
fn lock(folder: &Path) -> Result<Option<File>> {
    let file = match File::open(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io(format!("open {}", folder.display())))?,
    };
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).ok().map(|()| file))
}

/// Removes what killed runs left: their cgroups, and their folders, which are empty, for the files were in memory.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(RUNS) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && matches!(lock(&entry.path()), Ok(Some(_))) {
            Cgroup::new(&name).remove();
            drop(fs::remove_dir(entry.path()));
        }
    }
}

/// Waits for the namespaces to end; a signal to us ends them at once, and then we still clean up.
fn wait_or_kill(mut command: Command) -> Result<u8> {
    // If we are killed ourselves there is nobody to pass that on: the kernel does.
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    std::mem::swap(&mut command, &mut tied);
    let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(Error::io("listen for signals"))?;
    let mut child = command.spawn().map_err(Error::io("start `unshare`"))?;
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let handle = signals.handle();
    let listener = thread::spawn(move || {
        let mut signals = signals;
        let received = signals.forever().next();
        if let (Some(_), Some(pid)) = (received, pid) {
            let _gone_already = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        received
    });
    let status = child.wait().map_err(Error::io("wait for the cluster"))?;
    handle.close();
    match listener.join() {
        Ok(Some(signal)) => Ok(u8::try_from(128 + signal).unwrap_or(1)),
        _ => Ok(exit_code(status)),
    }
}

/// The part that runs in the namespaces.
///
/// # Errors
/// When the cluster cannot be started.
pub fn inside(command: &[String], plan: Run) -> Result<u8> {
    // In memory: nothing to remove, whatever ends us, and quick for databases.
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=711", "eventflow"]).arg(&plan.data))?;
    // What is mounted here hides the folder that was locked before.
    let _alive = claim(&plan.data)?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    run(Command::new("ip").args(["address", "add", &format!("{STAND_IN}/32"), "dev", "lo"]))?;
    let logs = plan.logs.clone();
    let layout = Layout { contained: true, ..layout(plan, Ports::FIXED) };
    let code = with_cluster(command, &layout);
    keep_logs(&layout, logs.as_deref());
    code
}

fn layout(plan: Run, ports: Ports) -> Layout {
    let Run { name, data, tools, images, .. } = plan;
    Layout { data, tools, name, ports, node: images.is_some(), images, contained: false, durable: false }
}

fn with_cluster(command: &[String], layout: &Layout) -> Result<u8> {
    let [program, arguments @ ..] = command else {
        return Err(Error::Precondition("no command given: `devcluster run -- COMMAND...`".to_owned()));
    };
    let mut cluster = Cluster::start(layout)?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("PATH", path_with(&layout.tools)?);
    command.env("KUBECONFIG", layout.kubeconfig());
    command.env(ENV_KUBECONFIG, layout.kubeconfig());
    command.env(ENV_DATABASE_URL, crate::postgres::url(layout)?);
    if layout.contained {
        // There is no way out of the cluster's network, so cargo had better not look for one.
        command.env("CARGO_NET_OFFLINE", "true");
    }
    if layout.node {
        command.env(ENV_REGISTRY, layout.registry().to_string()).env(ENV_NODE, "1");
    }
    let status = command.status().map_err(Error::io(format!("start `{program}`")))?;
    if !layout.contained {
        cluster.stop();
    }
    Ok(exit_code(status))
}

/// The built kubectl and helm first, so that commands use the cluster's own versions.
fn path_with(tools: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(folders).map_err(|_| {
        Error::Precondition(format!("{} holds a colon: set XDG_CACHE_HOME to a folder without", tools.display()))
    })
}

fn keep_logs(layout: &Layout, into: Option<&Path>) {
    if let Some(into) = into {
        let from = layout.logs().join(".");
        run_quietly("cp", &["-r", &from.to_string_lossy(), &into.to_string_lossy()]);
    }
}
