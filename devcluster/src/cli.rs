//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    contained,
    error::{Error, Result},
    packages,
    run::{self, Run},
    tools,
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

#[derive(Debug, Subcommand)]
enum Verb {
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
            Verb::Tools => {
                println!("{}", self.tools()?.display());
                Ok(0)
            }
            Verb::Run(arguments) => {
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

    fn tools(&self) -> Result<PathBuf> {
        let cache = self.cache.clone().or_else(|| Some(self.home.as_ref()?.join(".cache")));
        let cache =
            cache.ok_or_else(|| Error::Precondition("neither XDG_CACHE_HOME nor HOME is set: set one".into()))?;
        tools::ensure(Path::new(env!("CARGO_MANIFEST_DIR")), &cache)
    }
}
