//! The Kubernetes programs and a few more, built from pinned Go modules once and kept in the user's cache folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    process::{run, run_shown},
};

/// The Kubernetes release; `devcluster/kubernetes/go.mod` asks for the same.
pub const KUBERNETES: &str = "1.35.4";
/// The oldest Go that builds both modules (minor version of Go 1).
const OLDEST_GO: u32 = 25;
/// Built from `devcluster/kubernetes`.
const KUBERNETES_TOOLS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"];
/// Built from `devcluster/tools`: package, and what its program is called.
const OTHER_TOOLS: [(&str, &str); 3] = [
    ("go.etcd.io/etcd/server/v3", "server"),
    ("github.com/google/go-containerregistry/cmd/crane", "crane"),
    ("helm.sh/helm/v3/cmd/helm", "helm"),
];

/// Returns the folder of the built tools, building them first if they are not there: some minutes, once.
///
/// # Errors
/// When Go is missing or too old, or the build fails.
pub fn ensure(modules: &Path, cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("eventflow/tools").join(fingerprint(modules)?);
    let built = |name: &str| folder.join(name).exists();
    if KUBERNETES_TOOLS.iter().all(|name| built(name)) && OTHER_TOOLS.iter().all(|(_, name)| built(name)) {
        return Ok(folder);
    }
    check_go()?;
    // A folder of its own and one rename at the end: an interrupted build never looks finished.
    let building = folder.with_extension(format!("building-{}", std::process::id()));
    fs::create_dir_all(&building).map_err(Error::io(format!("make the folder {}", building.display())))?;
    println!("Building Kubernetes {KUBERNETES} with Go, once, into {}", folder.display());
    println!("  1/2 kube-apiserver, kubelet and four more: about 6 minutes on two cores");
    run_shown(&mut build_kubernetes(&modules.join("kubernetes"), &building))?;
    println!("  2/2 etcd, crane and helm: about 2 minutes");
    run_shown(&mut build_others(&modules.join("tools"), &building))?;
    // Another run may have finished first: then theirs is as good.
    if let Err(error) = fs::rename(&building, &folder) {
        drop(fs::remove_dir_all(&building));
        if !folder.exists() {
            return Err(Error::Io { action: format!("make the folder {}", folder.display()), source: error });
        }
    }
    Ok(folder)
}

fn build_kubernetes(module: &Path, into: &Path) -> Command {
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let version = "-X k8s.io/component-base/version";
    let stamp = format!("{version}.gitVersion=v{KUBERNETES} {version}.gitMajor=1 {version}.gitMinor={minor}");
    let mut command = go_build(module, into, &format!("{STRIPPED} {stamp}"));
    command.args(KUBERNETES_TOOLS.map(|tool| format!("k8s.io/kubernetes/cmd/{tool}")));
    command
}

fn build_others(module: &Path, into: &Path) -> Command {
    let mut command = go_build(module, into, STRIPPED);
    command.args(OTHER_TOOLS.map(|(package, _)| package));
    command
}

/// Linked without symbols, which nobody reads here and which are a third of the size.
const STRIPPED: &str = "-s -w";

/// `go build` up to the packages.
fn go_build(module: &Path, into: &Path, link: &str) -> Command {
    let mut command = Command::new("go");
    command.current_dir(module).args(["build", "-trimpath", "-o"]).arg(into);
    command.args(["-ldflags", link]);
    command
}

fn check_go() -> Result<()> {
    let wanted = format!("Go 1.{OLDEST_GO} or newer");
    let version = run(Command::new("go").args(["env", "GOVERSION"])).map_err(|_| {
        Error::Precondition(format!("`go` is not on the PATH: install {wanted} from https://go.dev/dl"))
    })?;
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    // A development version has no number: let it try.
    if minor.is_some_and(|minor| minor < OLDEST_GO) {
        let found = version.trim();
        return Err(Error::Precondition(format!(
            "{found} is too old to build Kubernetes: install {wanted} from https://go.dev/dl"
        )));
    }
    Ok(())
}

/// Names the cache folder after everything that decides what is built.
fn fingerprint(modules: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    digest.update(KUBERNETES);
    for file in ["kubernetes/go.mod", "kubernetes/go.sum", "tools/go.mod", "tools/go.sum"] {
        let path = modules.join(file);
        digest.update(fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?);
    }
    let hex: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{KUBERNETES}-{hex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_module_asks_for_the_release_that_is_stamped_into_the_programs() {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR"));
        let module = fs::read_to_string(modules.join("kubernetes/go.mod")).unwrap();
        assert!(module.contains(&format!("k8s.io/kubernetes v{KUBERNETES}")), "{module}");
        assert!(fingerprint(modules).unwrap().starts_with(KUBERNETES));
    }
}
