//! The example functions as images made from nothing, without a container engine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    layout::{Layout, create_folder, write},
    process::{run, run_shown},
};

/// Gives runs their standard input: an image of the platform's own.
pub const RUNNER: &str = "ef-run";
/// The programs of the crate `eventflow-examples`, and that one; each becomes an image of its name.
const PROGRAMS: [&str; 8] = ["hello", "slow", "chatty", "crash", "oom", "job", "pause", RUNNER];
/// Images run as this user unless a pod says otherwise.
const USER: &str = "65532";

/// What a pod spec calls an image of the cluster's registry.
#[must_use]
pub fn reference(layout: &Layout, name: &str, tag: &str) -> String {
    format!("{}/{name}:{tag}", layout.registry())
}

/// Builds the example programs and the runner, static, and returns their folder.
///
/// # Errors
/// When the build fails.
pub fn build(root: &Path) -> Result<PathBuf> {
    let version = run(Command::new("rustc").arg("-vV").current_dir(root))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| Error::Precondition("`rustc -vV` names no host: reinstall Rust".to_owned()))?;
    let target = root.join("target/static");
    let mut command = Command::new("cargo");
    // Flags for one target keep build scripts and macros, which cannot be static, out of it.
    command.env(
        format!("CARGO_TARGET_{}_RUSTFLAGS", host.to_uppercase().replace('-', "_")),
        "-Ctarget-feature=+crt-static",
    );
    command.current_dir(root).args(["build", "--release", "--quiet", "--bins"]);
    command.args(["--package", "eventflow-examples", "--package", "eventflow-runner"]);
    command.args(["--target", host, "--target-dir"]).arg(&target);
    run_shown(&mut command)?;
    Ok(target.join(host).join("release"))
}

/// Puts the images into the registry, those that are not there yet.
///
/// # Errors
/// When an image cannot be made or pushed.
pub fn push(layout: &Layout) -> Result<()> {
    let Some(programs) = &layout.images else { return Ok(()) };
    let work = layout.data.join("images");
    create_folder(&work, 0o711)?;
    for name in PROGRAMS {
        let digest = digest(&programs.join(name))?;
        let pushed = work.join(format!("{name}.pushed"));
        if fs::read_to_string(&pushed).is_ok_and(|pushed| pushed == digest) {
            continue;
        }
        push_one(layout, programs, &work, name)?;
        write(&pushed, digest)?;
    }
    Ok(())
}

fn push_one(layout: &Layout, programs: &Path, work: &Path, name: &str) -> Result<()> {
    let layer = work.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--mode=0755", "--mtime=@0", "--create", "--file"]).arg(&layer);
    run(tar.arg("--directory").arg(programs).arg(name))?;
    let crane = |arguments: &[&str]| run(Command::new(layout.tools.join("crane")).args(arguments)).map(drop);
    let image = reference(layout, name, "v1");
    crane(&["append", "--oci-empty-base", "--new_layer", &layer.to_string_lossy(), "--new_tag", &image])?;
    let entrypoint = format!("/{name}");
    let platform = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let mutate = |tag: &str, extra: &[&str]| {
        let to = reference(layout, name, tag);
        let fixed = ["mutate", &image, "--entrypoint", &entrypoint, "--user", USER, "--set-platform", &platform];
        crane(&[&fixed, extra, ["--tag", &to].as_slice()].concat())
    };
    // The second tag is for roll-outs: the same program, told another version.
    if name == "hello" {
        mutate("v2", &["--env", "VERSION=v2"])?;
    }
    mutate("v1", if name == "hello" { &["--env", "VERSION=v1"] } else { &[] })?;
    drop(fs::remove_file(&layer));
    Ok(())
}

fn digest(program: &Path) -> Result<String> {
    let bytes = fs::read(program).map_err(Error::io(format!("read {}", program.display())))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
