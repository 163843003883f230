//! What is needed from the distribution. Missing packages are installed when we may, else the command is shown.

use std::{fs, path::Path, process::Command};

use crate::{
    error::{Error, Result},
    postgres,
    process::run_shown,
};

/// Where the distribution puts the CNI plug-ins.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Package and a file that shows it is there.
const ALWAYS: [(&str, &str); 1] = [("util-linux", "unshare")];
const FOR_A_NODE: [(&str, &str); 4] =
    [("containerd", "containerd"), ("runc", "runc"), ("iproute2", "ip"), ("nftables", "nft")];
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Makes sure that the distribution's packages are there.
///
/// # Errors
/// When some are missing and cannot be installed; the message holds the command that installs them.
pub fn ensure(node: bool) -> Result<()> {
    let missing = missing(node);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let install = format!("apt-get install -y --no-install-recommends {list}");
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(Error::Precondition(format!(
            "these programs are missing: {list}; install them with this system's package manager (the names are Debian's)"
        )));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::Precondition(format!("packages are missing: run `sudo {install}`")));
    }
    println!("Installing {list}");
    if missing.contains(&"postgresql") {
        keep_postgres_quiet()?;
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        run_shown(&mut command)
    };
    apt(&["update", "--quiet"])?;
    apt(&[&["install", "--yes", "--quiet", "--no-install-recommends"], missing.as_slice()].concat())?;
    match self::missing(node).as_slice() {
        [] => Ok(()),
        still => Err(Error::Precondition(format!(
            "{} is still missing or too old after its installation: this needs Debian 12, Ubuntu 24.04 or newer",
            still.join(" ")
        ))),
    }
}

fn missing(node: bool) -> Vec<&'static str> {
    let on_path = |program: &str| FOLDERS.iter().any(|folder| Path::new(folder).join(program).exists());
    let wanted = ALWAYS.iter().chain(if node { FOR_A_NODE.as_slice() } else { &[] });
    let mut missing: Vec<_> = wanted.filter(|(_, program)| !on_path(program)).map(|(package, _)| *package).collect();
    if node && !Path::new(CNI_PLUGINS).join("bridge").exists() {
        missing.push("containernetworking-plugins");
    }
    if postgres::installed().is_none() {
        missing.push("postgresql");
    }
    missing
}

/// The package makes and starts a server of its own on installation, which nobody asked for.
fn keep_postgres_quiet() -> Result<()> {
    let folder = Path::new("/etc/postgresql-common");
    let settings = folder.join("createcluster.conf");
    if settings.exists() {
        return Ok(());
    }
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&settings, "create_main_cluster = false\n"))
        .map_err(Error::io(format!("write {}", settings.display())))
}
