//! What stands in the way of a start is said in one sentence that tells how to fix it, before anything starts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use common::{DEVCLUSTER, Machine};

fn refusal(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.lines().count() == 1, "{said}");
    said
}

/// A folder that anybody may read, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("eventflow-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self(path)
    }

    /// A program that only says this.
    fn program(&self, name: &str, says: &str) {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\necho {says}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_go_that_is_too_old_is_named() {
    let folder = Folder::new("old-go");
    folder.program("go", "go1.19.8");
    let tools = |path: &str| {
        let mut command = Command::new(DEVCLUSTER);
        command.args(["tools", "--cache"]).arg(folder.0.join("cache")).env("PATH", path);
        refusal(&command.output().unwrap())
    };
    let said = tools(&format!("{}:/usr/bin:/bin", folder.0.display()));
    assert!(said.contains("go1.19.8 is too old") && said.contains("https://go.dev/dl"), "{said}");
    let said = tools("/nonexistent");
    assert!(said.contains("`go` is not on the PATH") && said.contains("https://go.dev/dl"), "{said}");
}

#[test]
fn a_node_needs_root_and_says_so() {
    let folder = Folder::new("not-root");
    let program = folder.0.join("devcluster");
    fs::copy(DEVCLUSTER, &program).unwrap();
    // As somebody else, who may run the program and write nothing here.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
    command.args(["up", "--data=/nonexistent", "--cache=/nonexistent"]).env_remove("KUBECONFIG").current_dir("/");
    let said = refusal(&command.output().unwrap());
    assert!(said.contains("sudo make up") && said.contains("KUBECONFIG"), "{said}");
}

#[test]
fn a_full_disk_is_named_with_what_is_needed() {
    let machine = Machine::new("disk");
    let before = machine.traces();
    let folder = Folder::new("full");
    let script = format!(
        "mount -t tmpfs -o size=8m tmpfs {0} && exec {DEVCLUSTER} up --cluster-only --data={0}/data",
        folder.0.display()
    );
    // The small disk is seen by this command alone, and gone with it.
    let said = refusal(&machine.run("unshare", &["--mount", "sh", "-c", &script]));
    assert!(said.contains("MiB are needed") && said.contains("EVENTFLOW_DEV_DATA"), "{said}");
    assert_eq!(machine.traces(), before);
}

#[test]
fn addresses_in_use_are_named_with_who_uses_them() {
    let machine = Machine::new("addresses");
    machine.must("ip", &["link", "add", "vpn0", "type", "bridge"]);
    machine.must("ip", &["address", "add", "10.88.0.9/16", "dev", "vpn0"]);
    machine.must("ip", &["link", "set", "vpn0", "up"]);
    let before = machine.traces();
    let data = format!("--data={}", machine.data.display());
    let said = refusal(&machine.run(DEVCLUSTER, &["up", "--cluster-only", &data]));
    assert!(said.contains("10.88.0.0") && said.contains("vpn0") && said.contains("KUBECONFIG"), "{said}");
    assert_eq!(machine.traces(), before);
}
