//! What a policy decision costs: `loadtest-policy`, one table per run. Needs no cluster and no network.

use std::fs;
use std::path::Path;

use clap::Parser;

/// Decisions: fresh, reused, native, on demand; many policies; many threads.
mod decisions;
/// Activation, roll-back, resident memory, runaway guests.
mod life;
/// Good policies beside bad ones.
mod neighbours;
/// Timing and tables.
mod measure;

/// Measures the policy engine on this machine.
#[derive(Parser)]
struct Args {
    /// Decisions per row.
    #[arg(long, default_value_t = 100_000)]
    decisions: usize,
    /// Policies to keep resident, each frozen with settings of its own.
    #[arg(long, default_value_t = 100)]
    resident: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let names = ["tier-limits", "resource-bounds", "misbehave"].map(str::to_owned);
    let modules = policy_build::compile(&root.join("policies"), &root.join("target/policies"), &names)?;
    let encode = |path| -> anyhow::Result<Vec<u8>> { Ok(policy_build::encode(&fs::read(path)?, None)?) };
    decisions::measure(&encode(&modules[0])?, args.decisions)?;
    neighbours::measure(&encode(&modules[0])?, &encode(&modules[2])?, args.decisions / 4)?;
    life::runaway(&encode(&modules[2])?)?;
    life::measure(&encode(&modules[1])?, args.resident)
}
