//! Source to core module.

use std::path::{Path, PathBuf};

use crate::toolchain::{TARGET, Toolchain};

/// Why a policy did not compile.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// There is no compiler for wasm32.
    #[error("{0}")]
    Toolchain(String),
    /// The compiler did not start.
    #[error("the compiler did not start")]
    Start(#[source] std::io::Error),
    /// The compiler printed why.
    #[error("the compiler ended with {0}")]
    Failed(std::process::ExitStatus),
    /// The build left no module where one was expected.
    #[error("the build left no module at {0}; is the crate type `cdylib`?")]
    Missing(PathBuf),
}

/// Compiles `packages` of the workspace (or package) in `folder` into `target_dir` and returns the paths of their core
/// modules, in the same order.
///
/// # Errors
/// No compiler, or the source does not compile; the compiler's own words go to standard error.
pub fn compile(folder: &Path, target_dir: &Path, packages: &[String]) -> Result<Vec<PathBuf>, CompileError> {
    let toolchain = Toolchain::find().map_err(CompileError::Toolchain)?;
    let mut command = toolchain.cargo_build();
    command.current_dir(folder).arg("--target-dir").arg(target_dir);
    for package in packages {
        command.args(["--package", package]);
    }
    let status = command.status().map_err(CompileError::Start)?;
    if !status.success() {
        return Err(CompileError::Failed(status));
    }
    let release = target_dir.join(TARGET).join("release");
    packages
        .iter()
        .map(|package| {
            let module = release.join(format!("{}.wasm", package.replace('-', "_")));
            if module.exists() { Ok(module) } else { Err(CompileError::Missing(module)) }
        })
        .collect()
}
