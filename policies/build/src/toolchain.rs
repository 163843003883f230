//! Which compiler can make wasm32 code on this machine. Where rustup can add a target, the pinned toolchain does it;
//! where it cannot (a distribution's compiler, no network to rustup's servers), Debian's `rustc-web` with the standard
//! library's source does, by building that library too.

use std::path::Path;
use std::process::{Command, Stdio};

/// The target of every guest. It has no system interface, so a policy cannot even name one.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Packages of Debian and Ubuntu that make up [`Toolchain::Distribution`].
pub const DISTRIBUTION_PACKAGES: &str = "rustc-web cargo-web rust-web-src lld-19";

/// A way to compile for wasm32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// The `cargo` in the path, whose standard library for the target is installed.
    Installed,
    /// `/usr/bin/cargo` and `/usr/bin/rustc` of the distribution, building the standard library from its source.
    Distribution,
}

impl Toolchain {
    /// Finds one, adding the target by rustup if that is all that is missing.
    ///
    /// # Errors
    /// No way was found; the text says what to install.
    pub fn find() -> Result<Self, String> {
        if has_target("rustc") || (rustup_adds_target() && has_target("rustc")) {
            return Ok(Self::Installed);
        }
        let distribution = has_target_source("/usr/bin/rustc")
            && Path::new("/usr/bin/cargo").exists()
            && Path::new("/usr/bin/wasm-ld-19").exists();
        if distribution {
            return Ok(Self::Distribution);
        }
        Err(format!(
            "no compiler for {TARGET}: run `rustup target add {TARGET}`, or on Debian and Ubuntu \
             `apt-get install {DISTRIBUTION_PACKAGES}`"
        ))
    }

    /// `cargo build --release` for the target, to which the caller adds packages and folders.
    #[must_use]
    pub fn cargo_build(self) -> Command {
        let mut command = match self {
            Self::Installed => Command::new("cargo"),
            Self::Distribution => {
                let mut command = Command::new("/usr/bin/cargo");
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("/usr/bin:{path}"));
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld-19");
                // A caller that is itself run by another cargo hands these down, and they name the other compiler.
                for inherited in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
                    command.env_remove(inherited);
                }
                command
            }
        };
        command.args(["build", "--release", "--target", TARGET]);
        if self == Self::Distribution {
            command.args(["-Z", "build-std=std,panic_abort"]);
        }
        // A deep stack is resident memory in a thousand policies; below the data, its overflow traps instead of
        // overwriting the policy's settings.
        command.env(
            "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS",
            "-Clink-arg=-zstack-size=65536 -Clink-arg=--stack-first",
        );
        // Flags meant for the host, such as coverage, do not compile for wasm32.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        command
    }
}

fn has_target(rustc: &str) -> bool {
    let libdir = output(rustc, &["--print", "target-libdir", "--target", TARGET]);
    libdir.is_some_and(|dir| Path::new(dir.trim()).is_dir())
}

fn has_target_source(rustc: &str) -> bool {
    let sysroot = output(rustc, &["--print", "sysroot"]);
    sysroot.is_some_and(|root| Path::new(root.trim()).join("lib/rustlib/src/rust/library/Cargo.lock").exists())
}

fn rustup_adds_target() -> bool {
    output("rustup", &["target", "add", TARGET]).is_some()
}

/// Standard output of a program that ended well.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
