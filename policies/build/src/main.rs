//! `policy-build`: policies to components.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

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
    #[arg(required = true)]
    packages: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
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
    Ok(())
}
