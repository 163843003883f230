//! Which compiler can make wasm32 code on this machine. Where rustup can add a target, the pinned toolchain does it;
//! where it cannot (a distribution's compiler, no network to rustup's servers), Debian's `rustc-web` with the standard
//! library's source does, by building that library too. As root it installs what is missing, otherwise it says what.

use std::path::Path;
use std::process::{Command, Stdio};

/// The target of every guest. It has no system interface, so a policy cannot even name one.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Packages of Debian and Ubuntu that make up [`Toolchain::Distribution`].
pub const DISTRIBUTION_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

/// A way to compile for wasm32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toolchain {
    /// The `cargo` in the path, whose standard library for the target is installed.
    Installed,
    /// `/usr/bin/cargo` and `/usr/bin/rustc` of the distribution, building the standard library from its source.
    Distribution,
}

impl Toolchain {
    /// Finds one, adding the target by rustup or, as root, installing the distribution's packages if need be.
    ///
    /// # Errors
    /// No way was found; the text says what to install.
    pub fn find() -> Result<Self, String> {
        if has_target("rustc") || (rustup_adds_target() && has_target("rustc")) {
            return Ok(Self::Installed);
        }
        if has_distribution() || (is_root() && apt_installs() && has_distribution()) {
            return Ok(Self::Distribution);
        }
        Err(format!(
            "no compiler for {TARGET}: run `rustup target add {TARGET}`, or on Debian and Ubuntu \
             `apt-get install {}`",
            DISTRIBUTION_PACKAGES.join(" ")
        ))
    }

    /// `cargo build --release` for the target, to which the caller adds packages and folders.
    #[must_use]
    pub fn cargo_build(self) -> Command {
        let mut command = match self {
            Self::Installed => Command::new("cargo"),
            Self::Distribution => {
                let mut command = Command::new("/usr/bin/cargo");
                // What the compiler calls is the distribution's too.
                command.env("PATH", "/usr/bin:/bin");
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

fn has_distribution() -> bool {
    let sysroot = output("/usr/bin/rustc", &["--print", "sysroot"]);
    let has_source = |root: String| Path::new(root.trim()).join("lib/rustlib/src/rust/library/Cargo.lock").exists();
    sysroot.is_some_and(has_source) && ["/usr/bin/cargo", "/usr/bin/wasm-ld-19"].iter().all(|p| Path::new(p).exists())
}

fn is_root() -> bool {
    output("id", &["-u"]).is_some_and(|id| id.trim() == "0")
}

/// Says what it does, because it changes the machine.
fn apt_installs() -> bool {
    eprintln!("installing the distribution's compiler for {TARGET}: {}", DISTRIBUTION_PACKAGES.join(" "));
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--no-install-recommends"]).args(DISTRIBUTION_PACKAGES);
    command.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn rustup_adds_target() -> bool {
    output("rustup", &["target", "add", TARGET]).is_some()
}

/// Standard output of a program that ended well.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
