//! Covers the places that Kubernetes and containerd write to whatever they are told, for the cluster's mount namespace
//! alone, so that nothing of it ever reaches the machine's own folders.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use rustix::mount::{mount_bind, mount_bind_recursive, mount_move};

use crate::{
    error::{Error, Result},
    layout::{create_folder, write},
    process::run,
};

/// Folder, and what is written below it.
const FIXED_PLACES: [(&str, &[&str]); 3] = [
    ("/var/log", &["containers", "pods"]),
    ("/var/lib", &["kubelet", "cni"]),
    ("/run", &["containerd", "netns", "runc"]),
];

/// Settings of the whole kernel that a kubelet changes, and the value it wants to find.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Covers them. To be called once, in a mount namespace of the cluster's own; `data` holds what covers them.
///
/// # Errors
/// When a mount fails.
pub fn cover_fixed_places(data: &Path) -> Result<()> {
    let staging = data.join("shadow");
    create_folder(&staging, 0o711)?;
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=711", "eventflow"]).arg(&staging))?;
    for (index, (folder, own)) in FIXED_PLACES.iter().enumerate() {
        let copy = staging.join(index.to_string());
        create_folder(&copy, 0o755)?;
        cover(Path::new(folder), &copy, own).map_err(Error::io(format!("cover {folder} in the cluster's mounts")))?;
    }
    for (index, (setting, value)) in KERNEL_SETTINGS.iter().enumerate() {
        let setting = Path::new("/proc/sys").join(setting);
        if !setting.exists() {
            continue;
        }
        let copy = staging.join(format!("setting-{index}"));
        write(&copy, format!("{value}\n"))?;
        mount_bind(&copy, &setting)
            .map_err(std::io::Error::from)
            .map_err(Error::io(format!("cover {} in the cluster's mounts", setting.display())))?;
    }
    Ok(())
}

/// Puts a folder over `folder` that shows everything in it, but with empty folders of our own under the names `own`.
fn cover(folder: &Path, copy: &Path, own: &[&str]) -> std::io::Result<()> {
    // Becomes a mount of its own, which can then be moved with all that is mounted in it.
    mount_bind(copy, copy)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (from, to) = (entry.path(), copy.join(entry.file_name()));
        if entry.file_name().to_str().is_some_and(|name| own.contains(&name)) {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
            continue;
        }
        if kind.is_dir() {
            fs::create_dir(&to)?;
        } else {
            File::create(&to)?;
        }
        match mount_bind_recursive(&from, &to) {
            // It went away meanwhile: nobody will miss it.
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for name in own {
        fs::create_dir_all(copy.join(name))?;
        fs::set_permissions(copy.join(name), fs::Permissions::from_mode(0o755))?;
    }
    mount_move(copy, folder)?;
    Ok(())
}
