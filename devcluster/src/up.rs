//! `devcluster up`, `status`, `logs`, `down` and `clean`: what a person does with the development cluster.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    contained,
    control::{self, Report},
    demo,
    error::{Error, Result},
    host, images,
    layout::root,
    packages,
    plan::{Plan, PlatformPlan},
    platform::COMPONENTS,
    preflight,
    process::{run, run_shown},
    supervisor, tools,
};

/// What `up` was asked for.
#[derive(Debug)]
pub struct Wish {
    /// The data folder.
    pub data: PathBuf,
    /// The folder of caches, for the built tools.
    pub cache: PathBuf,
    /// A cluster to use instead of one of our own.
    pub kubeconfig: Option<PathBuf>,
    /// The gateway and the controller; none for Kubernetes and PostgreSQL alone.
    pub platform: Option<PlatformWish>,
}

/// How the gateway and the controller shall run.
#[derive(Debug)]
pub struct PlatformWish {
    /// The folder of their programs; none to build them.
    pub programs: Option<PathBuf>,
    /// The port of the API.
    pub port: u16,
    /// The gateway's admin port.
    pub admin_port: u16,
}

/// How often a starting supervisor is asked how far it is.
const POLL: Duration = Duration::from_millis(100);
/// How long an ended supervisor's processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Starts everything that does not run yet, and shows that it works.
///
/// # Errors
/// When something is in the way or does not start; each says how to fix it or where to look.
pub fn up(wish: Wish) -> Result<()> {
    // A kubeconfig of ours is exported by those who follow our own advice.
    let ours = wish.data.join("kubeconfig");
    let kubeconfig = wish.kubeconfig.filter(|path| *path != ours);
    let is_root = rustix::process::geteuid().is_root();
    if kubeconfig.is_none() && !is_root {
        return Err(Error::Precondition(
            "a node needs root: run `sudo make up`, or set KUBECONFIG to use a cluster you have".to_owned(),
        ));
    }
    let node = kubeconfig.is_none();
    fs::create_dir_all(&wish.data).map_err(Error::io(format!("make the folder {}", wish.data.display())))?;
    let _one_at_a_time = lock(&wish.data)?;
    let runs = control::status(&wish.data)?.is_some();
    if !runs {
        // What a killed cluster left behind.
        restore(&wish.data)?;
        packages::ensure(node)?;
        // Before the builds, which take minutes.
        preflight::check(
            &wish.data,
            node,
            wish.platform.as_ref().map(|platform| (platform.port, platform.admin_port)),
        )?;
    }
    let tools = tools::ensure(&root().join("devcluster"), &wish.cache)?;
    let images = if node { Some(images::build(root())?) } else { None };
    let platform = wish.platform.map(plan_platform).transpose()?;
    let plan = Plan { data: wish.data, tools, images, kubeconfig, contained: is_root, platform };
    if runs {
        control::renew(&plan.data)?;
    } else {
        start(&plan)?;
    }
    // What runs is what the running supervisor was told, which a second `up` does not change.
    let plan = Plan::read(&plan.data)?;
    match &plan.platform {
        Some(platform) => greet(&plan, platform),
        None => {
            println!("Kubernetes and PostgreSQL run.\n  export KUBECONFIG={}", plan.kubeconfig().display());
            Ok(())
        }
    }
}

/// Two starts at once would be in each other's way.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(Error::io(format!("open {}", path.display())))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::Precondition("another `make up` or `make down` is at work: wait for it".to_owned()))?;
    Ok(file)
}

fn build_platform() -> Result<PathBuf> {
    println!("Building the gateway and the controller: some minutes the first time");
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(["build", "--release"]);
    let packages = ["eventflow-gateway", "eventflow-controller", "eventflow-policy-build"];
    run_shown(command.args(packages.iter().flat_map(|package| ["--package", package])).arg("--bins"))?;
    let programs = root().join("target/release");
    build_policies(&programs);
    Ok(programs)
}

/// Builds the policies that the platform ships with. Without a compiler for wasm32 it runs without them.
fn build_policies(programs: &Path) {
    println!("Building the policies");
    let mut command = Command::new(programs.join("policy-build"));
    command.current_dir(root()).args(["--builtin", "--folder", "policies", "--target-dir", "target/policies"]);
    if let Err(error) = run_shown(command.arg("--out").arg(root().join(COMPONENTS))) {
        println!("The platform starts without its policies: {error}");
    }
}

fn plan_platform(wish: PlatformWish) -> Result<PlatformPlan> {
    let PlatformWish { programs, port, admin_port } = wish;
    let programs = programs.map_or_else(build_platform, Ok)?;
    Ok(PlatformPlan { programs, root: root().to_owned(), port, admin_port })
}

/// Puts the machine back as it was before the cluster in `data` started, if one did.
fn restore(data: &Path) -> Result<()> {
    if data.join("plan.json").exists() { host::restore(&Plan::read(data)?.layout()) } else { Ok(()) }
}

fn start(plan: &Plan) -> Result<()> {
    let layout = plan.layout();
    layout.create_folders()?;
    plan.write()?;
    drop(fs::remove_file(supervisor::failure_file(&plan.data)));
    let taken = if layout.node { host::take(&layout) } else { Ok(()) };
    let started = taken.and_then(|()| wait_until_started(plan, &mut spawn_supervisor(plan)?));
    if started.is_err() {
        host::restore(&layout)?;
    }
    started
}

fn spawn_supervisor(plan: &Plan) -> Result<Child> {
    let arguments = ["supervise".to_owned(), format!("--data={}", plan.data.display())];
    let inner = if plan.contained {
        contained::command(false, &arguments)?
    } else {
        let mut command = Command::new(std::env::current_exe().map_err(Error::io("find this program"))?);
        command.args(arguments);
        command
    };
    // A session of its own, so that closing the terminal does not end it.
    let mut command = Command::new("setsid");
    command.arg(inner.get_program()).args(inner.get_args()).current_dir("/");
    let log = plan.layout().logs().join("supervisor.log");
    let open = || OpenOptions::new().create(true).append(true).open(&log);
    let (out, err) = (open(), open());
    let opened = out.and_then(|out| Ok((out, err?)));
    let (out, err) = opened.map_err(Error::io(format!("open {}", log.display())))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    command.spawn().map_err(Error::io("start the supervisor"))
}

fn wait_until_started(plan: &Plan, supervisor: &mut Child) -> Result<()> {
    let mut shown = String::new();
    loop {
        if let Some(report) = control::status(&plan.data)? {
            if report.step.is_empty() && !report.components.is_empty() {
                return Ok(());
            }
            if report.step != shown && !report.step.is_empty() {
                println!("{}", report.step);
                shown = report.step;
            }
        }
        // Its start has no deadline of its own: each component's has.
        if let Ok(Some(status)) = supervisor.try_wait() {
            let log = plan.layout().logs().join("supervisor.log");
            let reason = fs::read_to_string(supervisor::failure_file(&plan.data));
            let reason = reason.unwrap_or_else(|_| format!("it ended ({status}); see {}", log.display()));
            return Err(Error::Precondition(format!("the cluster did not start: {reason}")));
        }
        thread::sleep(POLL);
    }
}

fn greet(plan: &Plan, platform: &PlatformPlan) -> Result<()> {
    let shown = demo::show(plan, platform)?;
    let url = preflight::gateway_url(platform.port);
    if let Some(answer) = &shown.answer {
        println!("\nThe function hello of the tenant alice runs in {}; its pod answers:\n  {answer}", shown.namespace);
    }
    println!("\nEventFlow serves at {url} (metrics: {}/metrics)", preflight::gateway_url(platform.admin_port));
    println!("\nIn a shell of yours, as the tenant alice:");
    println!("  export URL={url}");
    println!("  export TOKEN={}", shown.token);
    println!("  export KUBECONFIG={}", plan.kubeconfig().display());
    println!("  export PATH=\"{}:$PATH\"", plan.tools.display());
    println!("\nThen try:");
    println!("  curl -s -H \"Authorization: Bearer $TOKEN\" $URL/v1/functions");
    if plan.images.is_some() {
        println!(
            "  curl -s -H \"Authorization: Bearer $TOKEN\" -X PATCH -H 'Content-Type: application/merge-patch+json' \
             -d '{{\"replicas\": 2}}' $URL/v1/functions/hello"
        );
    } else {
        println!("  curl -s -H \"Authorization: Bearer $TOKEN\" $URL/v1/me");
    }
    println!("  kubectl get functions,pods -A");
    println!("\nOr with the command line, in the folder {}:", root().display());
    println!("  cargo build --release --package eventflow-cli");
    println!("  target/release/eventflow login --url {url} --user alice");
    println!("  target/release/eventflow {}", if plan.images.is_some() { "describe hello" } else { "whoami" });
    Ok(())
}

/// Prints what runs; false when nothing does.
///
/// # Errors
/// When the supervisor cannot be asked.
pub fn status(data: &Path) -> Result<bool> {
    let Some(report) = control::status(data)? else {
        println!("The development cluster does not run: `make up` starts it.");
        return Ok(false);
    };
    if !report.step.is_empty() {
        println!("{} ...", report.step);
    }
    println!("{:<24} {:<5} {:>8} {:>8}  ADDRESS", "COMPONENT", "STATE", "PID", "RESTARTS");
    let processes = contained::processes_in(&report.namespace);
    for component in &report.components {
        let here = processes.iter().find(|(_, there)| *there == component.pid).map(|(here, _)| here.to_string());
        println!(
            "{:<24} {:<5} {:>8} {:>8}  {}",
            component.name,
            if component.up { "up" } else { "down" },
            here.filter(|_| component.up).unwrap_or_default(),
            component.restarts,
            component.address
        );
    }
    println!("\nLogs: {}", data.join("logs").display());
    Ok(report.components.iter().all(|component| component.up))
}

/// Follows the logs of one component, or of all; does not return unless it fails.
///
/// # Errors
/// When there is no such log.
pub fn logs(data: &Path, component: Option<&str>) -> Result<()> {
    let folder = data.join("logs");
    let entries = fs::read_dir(&folder).map_err(|_| {
        Error::Precondition(format!("{} is not there: `make up` starts the development cluster", folder.display()))
    })?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    if let Some(component) = component {
        let names = files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect::<Vec<_>>();
        files.retain(|file| file.file_stem().is_some_and(|name| name == component));
        if files.is_empty() {
            let names = names.join(", ");
            return Err(Error::Precondition(format!("there is no log of `{component}`: there are {names}")));
        }
    }
    let error = Command::new("tail").args(["-n", "20", "-F"]).args(files).exec();
    Err(Error::Io { action: "run `tail`".to_owned(), source: error })
}

/// Stops everything and puts the machine back as it was. Does nothing when nothing runs.
///
/// # Errors
/// When something cannot be ended or put back.
pub fn down(data: &Path) -> Result<()> {
    if !data.join("plan.json").exists() {
        return Ok(());
    }
    let _one_at_a_time = lock(data)?;
    let plan = Plan::read(data)?;
    if let Some(report) = control::status(data)? {
        control::stop(data)?;
        wait_until_gone(&plan, &report)?;
    }
    drop(fs::remove_file(data.join("control.sock")));
    host::restore(&plan.layout())
}

/// The kernel ends what is left in the namespaces once their first process has ended.
fn wait_until_gone(plan: &Plan, report: &Report) -> Result<()> {
    let started = Instant::now();
    let left = || {
        if plan.contained {
            !contained::processes_in(&report.namespace).is_empty()
        } else {
            control::status(&plan.data).is_ok_and(|report| report.is_some())
        }
    };
    while left() {
        if started.elapsed() > GONE_WITHIN {
            let name = &report.namespace;
            return Err(Error::Precondition(format!("processes in {name} do not end: `lsns --type pid` shows them")));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// [`down`], and removes the data.
///
/// # Errors
/// When something cannot be ended or removed.
pub fn clean(data: &Path) -> Result<()> {
    down(data)?;
    if !data.exists() {
        return Ok(());
    }
    // A folder that is not ours is not removed, whatever the environment says.
    if !data.join("plan.json").exists() && !data.join("lock").exists() {
        return Err(Error::Precondition(format!("{} holds no development cluster: nothing removed", data.display())));
    }
    run(Command::new("rm").args(["--recursive", "--force", "--one-file-system", "--"]).arg(data)).map(drop)
}
