//! What a cluster needs of the machine outside its own folder and namespaces, and how that is put back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

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

    /// Removes cgroups whose name is `prefix` and the id of a process that is gone: those of killed test runs.
    pub fn remove_abandoned(prefix: &str) {
        for hierarchy in hierarchies() {
            let Ok(entries) = fs::read_dir(&hierarchy) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let id = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
                if id.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
                    remove_tree(&entry.path());
                }
            }
        }
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
