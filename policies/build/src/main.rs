//! `policy-build`: policies to components.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use policy_build::builtin::{BUILTINS, DEFAULTS};

/// Compiles policies and writes `<package>.wasm` components.
#[derive(Parser)]
struct Args {
    /// Folder of the policy's package, or of the workspace that has it.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Where the compiler keeps its work.
    #[arg(long, default_value = "target")]
    target_dir: PathBuf,
    /// Where the components go.
    #[arg(long, default_value = "target/components")]
    out: PathBuf,
    /// Packages to build; a folder of the same name may hold their `fixtures.json`.
    #[arg(required_unless_present = "builtin")]
    packages: Vec<String>,
    /// All built-in policies, from the folder `policies` of this repository, and their default bindings.
    #[arg(long, conflicts_with = "packages")]
    builtin: bool,
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if args.builtin {
        args.packages = BUILTINS.map(str::to_owned).into();
    }
    let target_dir = std::path::absolute(&args.target_dir)?;
    let modules = policy_build::compile(&args.folder, &target_dir, &args.packages)?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    for (package, module) in args.packages.iter().zip(modules) {
        let beside = [args.folder.join(package).join("fixtures.json"), args.folder.join("fixtures.json")];
        let fixtures = beside.iter().find(|path| path.exists()).map(fs::read_to_string).transpose()?;
        let component = policy_build::encode(&fs::read(&module)?, fixtures.as_deref()).context(package.clone())?;
        let path = args.out.join(format!("{package}.wasm"));
        fs::write(&path, &component).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{} ({} KiB)", path.display(), component.len() / 1024);
    }
    if args.builtin {
        fs::copy(args.folder.join(DEFAULTS), args.out.join(DEFAULTS)).context(DEFAULTS)?;
    }
    Ok(())
}
