//! What `devcluster up` was asked to run: written by it, read by the supervisor, and kept for `status` and `down`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    layout::{Layout, Ports, write},
};

/// One development cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Everything the cluster writes is below this folder.
    pub data: PathBuf,
    /// The folder of the built tools.
    pub tools: PathBuf,
    /// The folder of the programs to make images of; none without a node.
    pub images: Option<PathBuf>,
    /// The cluster to use instead of one of our own.
    pub kubeconfig: Option<PathBuf>,
    /// Whether the supervisor lives in namespaces of its own.
    pub contained: bool,
    /// The gateway and the controller; none for a bare cluster.
    pub platform: Option<PlatformPlan>,
}

/// How to run the gateway and the controller.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlatformPlan {
    /// The folder of their programs.
    pub programs: PathBuf,
    /// The checkout, for the custom resources and tiers.
    pub root: PathBuf,
    /// The port of the API.
    pub port: u16,
    /// The admin port of the gateway; the controller's is the next one.
    pub admin_port: u16,
}

impl Plan {
    /// Reads the plan from its folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(data: &Path) -> Result<Self> {
        let path = data.join("plan.json");
        let text = fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::Precondition(format!("{} is damaged ({error}): remove it", path.display())))
    }

    /// Writes the plan into its folder.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Precondition(error.to_string()))?;
        write(&self.data.join("plan.json"), text)
    }

    /// Where the cluster keeps its things.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout {
            data: self.data.clone(),
            tools: self.tools.clone(),
            name: self.name(),
            ports: Ports::FIXED,
            node: self.images.is_some(),
            images: self.images.clone(),
            contained: self.contained,
            durable: true,
        }
    }

    /// Names the cgroup after the data folder: two clusters never share one.
    fn name(&self) -> String {
        let folder = self.data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if folder.starts_with("eventflow-") { folder } else { format!("eventflow-{folder}") }
    }

    /// The kubeconfig to use: of the given cluster, or of ours.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone().unwrap_or_else(|| self.layout().kubeconfig())
    }
}
