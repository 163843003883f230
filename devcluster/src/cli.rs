//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    contained,
    error::{Error, Result},
    layout::root,
    packages,
    run::{self, Run},
    supervisor, tools,
    up::{self, PlatformWish, Wish},
};

/// A real Kubernetes and PostgreSQL on this machine.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// Where built tools are kept [default: ~/.cache]
    #[arg(long, env = "XDG_CACHE_HOME", hide_env_values = true, global = true)]
    cache: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true, global = true)]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Args)]
struct DataArguments {
    /// Where the development cluster keeps its data [default: /var/lib/eventflow-dev as root, else
    /// ~/.local/share/eventflow-dev]
    #[arg(long, env = "EVENTFLOW_DEV_DATA")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct UpArguments {
    #[command(flatten)]
    data: DataArguments,
    /// Use this cluster instead of starting one; the gateway, the controller and PostgreSQL still run here
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Start Kubernetes and PostgreSQL alone
    #[arg(long)]
    cluster_only: bool,
    /// Use the gateway and the controller in this folder instead of building them
    #[arg(long, conflicts_with = "cluster_only")]
    programs: Option<PathBuf>,
    /// Port of the API, on loopback
    #[arg(long, env = "EVENTFLOW_PORT", default_value_t = 8080)]
    port: u16,
    /// Port of the gateway's metrics and health, on loopback; the controller takes the next one
    #[arg(long, env = "EVENTFLOW_ADMIN_PORT", default_value_t = 9090)]
    admin_port: u16,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start the platform on this machine, or bring the running one up to date
    ///
    /// Builds what is not built yet, starts Kubernetes, PostgreSQL, the gateway and the controller, deploys the example
    /// function as the demo tenant alice and calls it. Ends when all of it runs; `down` stops it.
    Up(UpArguments),
    /// Show what runs and where (exit code 3 when something does not)
    Status(DataArguments),
    /// Follow the logs of one component, or of all
    Logs {
        #[command(flatten)]
        data: DataArguments,
        /// A component's name, as in `status`
        component: Option<String>,
    },
    /// Stop all that `up` started, and put the machine back as it was
    Down(DataArguments),
    /// `down`, and remove the data
    Clean(DataArguments),
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        data: PathBuf,
    },
    /// Build the Kubernetes programs into the cache if they are not there, and print their folder
    Tools,
    /// Run a command with a fresh private cluster around it, and leave nothing of the cluster behind
    ///
    /// The command finds KUBECONFIG, EVENTFLOW_TEST_KUBECONFIG (an administrator's), EVENTFLOW_TEST_DATABASE_URL (a
    /// superuser's) and, with a node, EVENTFLOW_TEST_REGISTRY and EVENTFLOW_TEST_NODE=1 in its environment. As root it
    /// runs in a network of its own, which it cannot leave: build before, and use `cargo test --offline`.
    Run(RunArguments),
    #[command(hide = true)]
    RunInside(InsideArguments),
    #[command(hide = true)]
    Init {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Run a node too: containerd, kubelet, kube-proxy, scheduler and a registry with the example images (needs root)
    #[arg(long)]
    node: bool,
    /// Keep the logs of the cluster's components in this folder
    #[arg(long)]
    logs: Option<PathBuf>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct InsideArguments {
    #[arg(long)]
    name: String,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    tools: PathBuf,
    #[arg(long)]
    logs: Option<PathBuf>,
    #[arg(long)]
    images: Option<PathBuf>,
    #[arg(last = true)]
    command: Vec<String>,
}

impl Cli {
    /// Does what the command line asks and returns the exit code.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn execute(self) -> Result<u8> {
        match &self.command {
            Verb::Up(arguments) => up::up(self.wish(arguments)?).map(|()| 0),
            Verb::Status(data) => Ok(if up::status(&self.data(data)?)? { 0 } else { 3 }),
            Verb::Logs { data, component } => up::logs(&self.data(data)?, component.as_deref()).map(|()| 0),
            Verb::Down(data) => up::down(&self.data(data)?).map(|()| 0),
            Verb::Clean(data) => up::clean(&self.data(data)?).map(|()| 0),
            Verb::Supervise { data } => supervisor::supervise(data),
            Verb::Tools => {
                println!("{}", self.tools()?.display());
                Ok(0)
            }
            Verb::Run(arguments) => {
                run::check_rights(arguments.node)?;
                packages::ensure(arguments.node)?;
                run::around(&arguments.command, &self.tools()?, arguments.node, arguments.logs.as_deref())
            }
            Verb::RunInside(InsideArguments { name, data, tools, images, logs, command }) => {
                let (name, data, tools) = (name.clone(), data.clone(), tools.clone());
                run::inside(command, Run { name, data, tools, images: images.clone(), logs: logs.clone() })
            }
            Verb::Init { command } => contained::init(command),
        }
    }

    fn wish(&self, arguments: &UpArguments) -> Result<Wish> {
        let UpArguments { data, kubeconfig, cluster_only, programs, port, admin_port } = arguments;
        let programs = programs.as_deref().map(absolute).transpose()?;
        // Set to nothing is not set.
        let kubeconfig = kubeconfig.as_deref().filter(|path| !path.as_os_str().is_empty()).map(absolute).transpose()?;
        let platform = (!cluster_only).then_some(PlatformWish { programs, port: *port, admin_port: *admin_port });
        Ok(Wish { data: self.data(data)?, cache: self.cache()?, kubeconfig, platform })
    }

    fn data(&self, arguments: &DataArguments) -> Result<PathBuf> {
        if let Some(data) = &arguments.data {
            return absolute(data);
        }
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/eventflow-dev".into());
        }
        let home = self.home.as_ref().ok_or_else(|| Error::Precondition("HOME is not set: set it".into()))?;
        Ok(home.join(".local/share/eventflow-dev"))
    }

    fn tools(&self) -> Result<PathBuf> {
        tools::ensure(&root().join("devcluster"), &self.cache()?)
    }

    fn cache(&self) -> Result<PathBuf> {
        let cache = self.cache.clone().or_else(|| Some(self.home.as_ref()?.join(".cache")));
        cache.ok_or_else(|| Error::Precondition("neither XDG_CACHE_HOME nor HOME is set: set one".into()))
    }
}

/// The supervisor works in another folder.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io(format!("find {}", path.display())))
}
