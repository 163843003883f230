//! Where a cluster keeps its things and at which addresses it serves.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{Error, Result};

/// The bridge that pods are plugged into.
pub const BRIDGE: &str = "eventflow0";
/// The bridge's own address: the node's address, and where pods find the API server and the host.
pub const BRIDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// Addresses of pods.
pub const POD_NETWORK: &str = "10.88.0.0/24";
/// Addresses of services.
pub const SERVICE_NETWORK: &str = "10.96.0.0/16";
/// The API server's service address: the first of [`SERVICE_NETWORK`].
pub const API_SERVICE: &str = "10.96.0.1";
/// The node's name.
pub const NODE_NAME: &str = "eventflow";

/// The ports a cluster listens on, all of them on loopback but the API server's and the kubelet's, which are on the
/// bridge when there is a node.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it all")]
pub struct Ports {
    pub etcd: u16,
    pub etcd_metrics: u16,
    pub etcd_peer: u16,
    pub api_server: u16,
    pub controller_manager: u16,
    pub scheduler: u16,
    pub kubelet: u16,
    pub kubelet_health: u16,
    pub proxy_health: u16,
    pub proxy_metrics: u16,
    pub registry: u16,
    pub postgres: u16,
}

impl Ports {
    /// The ports of `make up`, and of test clusters in a network namespace of their own.
    pub const FIXED: Self = Self {
        etcd: 23379,
        etcd_metrics: 23380,
        etcd_peer: 23381,
        api_server: 6443,
        controller_manager: 10257,
        scheduler: 10259,
        kubelet: 10250,
        kubelet_health: 10248,
        proxy_health: 10256,
        proxy_metrics: 10249,
        registry: 5000,
        postgres: 54329,
    };

    /// Ports that are free on loopback now, for a test cluster that shares the host's network.
    ///
    /// # Errors
    /// When no port can be bound.
    pub fn free() -> io::Result<Self> {
        let listeners = (0..12).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<io::Result<Vec<_>>>()?;
        let mut ports = Vec::new();
        for listener in &listeners {
            ports.push(listener.local_addr()?.port());
        }
        Ok(Self {
            etcd: ports[0],
            etcd_metrics: ports[1],
            etcd_peer: ports[2],
            api_server: ports[3],
            controller_manager: ports[4],
            scheduler: ports[5],
            kubelet: ports[6],
            kubelet_health: ports[7],
            proxy_health: ports[8],
            proxy_metrics: ports[9],
            registry: ports[10],
            postgres: ports[11],
        })
    }
}

/// One cluster's folder, programs and addresses.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Everything the cluster writes is below this folder.
    pub data: PathBuf,
    /// The folder of the built tools.
    pub tools: PathBuf,
    /// Names the cluster's cgroup, so that two clusters never share one.
    pub name: String,
    /// Where it listens.
    pub ports: Ports,
    /// Whether pods run.
    pub node: bool,
    /// The folder of the programs to make images of.
    pub images: Option<PathBuf>,
    /// Whether its processes live in namespaces that end with it. If not, each is tied to its parent's life.
    pub contained: bool,
    /// Whether what is stored must survive a power cut.
    pub durable: bool,
}

impl Layout {
    /// Makes the folders every cluster has. The data folder can be passed through by other users (PostgreSQL does not
    /// run as root), but not listed.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn create_folders(&self) -> Result<()> {
        create_folder(&self.data, 0o711)?;
        create_folder(&self.logs(), 0o755)?;
        create_folder(&self.data.join("pki"), 0o700)
    }

    /// The folder of the components' logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.data.join("logs")
    }

    /// A kubeconfig of a cluster administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// The address of the API server and the kubelet: the bridge's if there is a node, so that pods reach it and nobody
    /// outside the machine does.
    #[must_use]
    pub fn node_address(&self) -> Ipv4Addr {
        if self.node { BRIDGE_ADDRESS } else { Ipv4Addr::LOCALHOST }
    }

    /// Where the API server listens.
    #[must_use]
    pub fn api_server(&self) -> SocketAddr {
        (self.node_address(), self.ports.api_server).into()
    }

    /// Where the image registry listens.
    #[must_use]
    pub fn registry(&self) -> SocketAddr {
        loopback(self.ports.registry)
    }

    /// A command that runs one of the built tools as a component.
    #[must_use]
    pub fn tool(&self, name: &str) -> Command {
        self.component(&self.tools.join(name))
    }

    /// A command that runs a program as a component: it ends when the cluster does.
    #[must_use]
    pub fn component(&self, program: &Path) -> Command {
        if self.contained {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// A `kubectl` with an administrator's rights, run to its end.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.tools.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        command
    }
}

/// The checkout this program was built from.
#[must_use]
pub fn root() -> &'static Path {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder)
}

/// A loopback address.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    (IpAddr::V4(Ipv4Addr::LOCALHOST), port).into()
}

/// Makes a folder with its parents and gives it `mode`.
///
/// # Errors
/// When the system refuses.
pub fn create_folder(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(Error::io(format!("make the folder {}", path.display())))
}

/// Writes a file below the data folder.
///
/// # Errors
/// When the system refuses.
pub fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, text).map_err(Error::io(format!("write {}", path.display())))
}
