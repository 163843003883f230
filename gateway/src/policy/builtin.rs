//! What the gateway ships with: components in a folder, bound the first time a platform sees them. Operators may
//! change, unbind or replace them like any other; a newer gateway brings newer revisions where shipped ones decide.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventflow_api::policy::{Binding, FailureMode, Scope, Source, World};
use serde::Deserialize;
use serde_json::Value;

use super::Inner;
use super::intake::{self, Refusal};
use crate::error::chain;
use crate::store::{Shipped, StoreError};

/// Between two tries while the store is away.
const PAUSE: Duration = Duration::from_secs(1);

/// Name of the file of first bindings, beside the components.
const DEFAULTS: &str = "defaults.json";

/// How a shipped policy is bound the first time: for everyone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Default {
    binding: String,
    policy: String,
    world: World,
    order: i32,
    failure_mode: FailureMode,
    settings: Value,
}

/// Why something shipped is not in force.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// The folder or a file in it cannot be read.
    #[error("{0} cannot be read")]
    File(PathBuf, #[source] std::io::Error),
    /// The first bindings make no sense.
    #[error("{0} makes no sense")]
    Defaults(PathBuf, #[source] serde_json::Error),
    /// A module is not accepted.
    #[error("{0} is refused: {1}")]
    Refused(PathBuf, String),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

/// Ships everything in the folder, and ends.
pub(super) async fn run(inner: Arc<Inner>) {
    let Some(folder) = inner.config.builtins.clone() else { return };
    let (files, defaults) = match components(&folder).and_then(|files| Ok((files, defaults(&folder)?))) {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(error = chain(&error), "No policy is shipped.");
            return;
        }
    };
    for file in files {
        loop {
            match ship(&inner, &file, &defaults).await {
                Ok(()) => break,
                Err(ShipError::Store(error)) if error.is_outage() => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    tracing::error!(error = chain(&error), "A shipped policy is left out.");
                    break;
                }
            }
        }
    }
    inner.due.notify_one();
}

fn components(folder: &Path) -> Result<Vec<PathBuf>, ShipError> {
    let fault = |error| ShipError::File(folder.to_owned(), error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The first bindings; none if there is no such file, and the components are only there to be bound.
fn defaults(folder: &Path) -> Result<Vec<Default>, ShipError> {
    let path = folder.join(DEFAULTS);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| ShipError::Defaults(path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(ShipError::File(path, error)),
    }
}

async fn ship(inner: &Arc<Inner>, file: &Path, defaults: &[Default]) -> Result<(), ShipError> {
    let bytes = tokio::fs::read(file).await.map_err(|error| ShipError::File(file.to_owned(), error))?;
    let digest = policy_engine::module::Sha256Digest::of(&bytes).to_string();
    // The file's name is the policy's; if it is not, the module is looked at for nothing.
    let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if inner.store.policy_revision_of(name, &digest).await.map_err(ShipError::Store)?.is_some() {
        return Ok(());
    }
    let accepted = intake::accept(inner, Arc::new(bytes), Source::Builtin).await;
    let revision = accepted.map_err(|refusal| {
        let Refusal { problems, .. } = refusal;
        let problems: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
        ShipError::Refused(file.to_owned(), problems.join("; "))
    })?;
    let binding = |default: &Default| Binding {
        name: default.binding.clone(),
        policy: revision.policy.clone(),
        world: default.world,
        scope: Scope::Everyone,
        order: default.order,
        failure_mode: default.failure_mode,
        group: None,
        settings: default.settings.clone(),
        active: None,
        active_digest: None,
        trial: None,
        updated_at: String::new(),
    };
    let bindings = defaults.iter().filter(|default| default.policy == revision.policy).map(binding).collect();
    inner.store.policy_ship(Shipped { revision, bindings }).await.map_err(ShipError::Store)
}
