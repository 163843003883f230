//! The command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use eventflow_e2e::platform::Platform;

use crate::stage::Stage;
use crate::{admission, create, get, list, memory, reconcile};

/// Measures a platform started for this alone; run it under `devcluster run --node --`.
#[derive(Debug, Parser)]
pub struct Cli {
    /// What to measure
    #[command(subcommand)]
    pub question: Question,
}

/// One question, one folder.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Question {
    /// How long until a function is accepted, and until it runs
    Create,
    /// What reading costs as functions become many
    List,
    /// How many reads a second
    Get,
    /// What gateway and controller hold, idle and with 1,000 functions
    Memory,
    /// How fast Function objects become Deployments
    Reconcile,
    /// How fast quota is given out from standing queues
    AdmissionQueue,
    /// How long a caller waits for the verdict, with 1, 8 and 50 writers
    AdmissionVerdict,
    /// What 50 writers leave behind, here and with plain ResourceQuota and Deployments
    AdmissionPlain,
    /// What the controller needs for 1,000 and 10,000 Functions, and to start cold
    AdmissionScale,
}

impl Question {
    /// Answers it about a platform just started, and prints the answer.
    ///
    /// # Errors
    /// When it could not be measured.
    pub async fn answer(self, platform: Platform) -> Result<()> {
        let stage = Stage::set(platform).await?;
        let report = match self {
            Self::Create => create::measure(&stage).await?,
            Self::List => list::measure(&stage).await?,
            Self::Get => get::measure(&stage).await?,
            Self::Memory => memory::measure(&stage).await?,
            Self::Reconcile => reconcile::measure(stage).await?,
            Self::AdmissionQueue => admission::queue::measure(stage).await?,
            Self::AdmissionVerdict => admission::verdict::measure(&stage).await?,
            Self::AdmissionPlain => admission::plain::measure(&stage).await?,
            Self::AdmissionScale => admission::scale::measure(stage).await?,
        };
        println!("{report}");
        Ok(())
    }
}
