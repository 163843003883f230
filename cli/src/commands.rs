//! One module per command: its arguments, and what it does.

use clap::Subcommand;

use crate::args::Cli;
use crate::error::CliError;
use crate::session::Session;

/// `login`, `logout`, `whoami`.
pub mod login;
/// `context`.
pub mod context;
/// `deploy`.
pub mod deploy;
/// `list`, `get`, `describe`.
pub mod look;
/// `scale`, `suspend`, `resume`.
pub mod change;
/// `delete`.
pub mod delete;
/// `invoke`, `invocation`.
pub mod invoke;
/// `curl`.
pub mod curl;
/// `logs`.
pub mod logs;
/// `events`.
pub mod events;
/// `quota`, `explain`.
pub mod quota;
/// `usage`.
pub mod usage;
/// `audit`.
pub mod audit;
/// `tenant`.
pub mod tenants;
/// `tier`.
pub mod tiers;
/// `policy`.
pub mod policy;
/// `completion`.
pub mod completion;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a platform and keep the token for later commands.
    Login(login::Login),
    /// Forget the token of a context.
    Logout(login::Logout),
    /// Show who you are there, which tenant you act for, and what you may do.
    Whoami(login::Whoami),
    /// Show, choose and remove contexts: platforms and who you are there.
    #[command(subcommand)]
    Context(context::Context),
    /// Create a function or change it, and wait until it runs.
    Deploy(deploy::Deploy),
    /// List the functions.
    #[command(visible_alias = "ls")]
    List(look::List),
    /// Show a function in one row, or its whole document with -o json or yaml.
    Get(look::Get),
    /// Show all about a function, its conditions as a timeline.
    Describe(look::Describe),
    /// Say why a function is in the state it is in, with the numbers.
    Explain(quota::Explain),
    /// Set how many pods of a function run.
    Scale(change::Scale),
    /// Switch a function off: no pods run, everything else is kept.
    Suspend(change::Suspend),
    /// Switch a suspended function on again.
    Resume(change::Resume),
    /// Delete functions.
    Delete(delete::Delete),
    /// Run a function once, as a job, and wait for its result if you like.
    Invoke(invoke::Invoke),
    /// Show runs of functions, end them, start them again.
    #[command(subcommand, visible_alias = "inv")]
    Invocation(invoke::Invocation),
    /// Call a function over HTTP, as you.
    Curl(curl::Curl),
    /// Show what a function's pods write, and follow it.
    Logs(logs::Logs),
    /// Show what the cluster reported of a function, or follow what happens to all of them.
    Events(events::Events),
    /// Show what your tenant may use, what it holds, and who waits.
    Quota(quota::Quota),
    /// Show what the calls of your functions came to, hour by hour.
    Usage(usage::Usage),
    /// Show who did what in your tenant, newest first.
    Audit(audit::Audit),
    /// Show and change tenants; for operators.
    #[command(subcommand)]
    Tenant(tenants::Tenant),
    /// Show and change tiers; for operators.
    #[command(subcommand)]
    Tier(tiers::Tier),
    /// Write, upload, try out and look after policies; for operators.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Print the completion script of a shell: `source <(eventflow completion bash)`.
    Completion(completion::Completion),
}

/// Does it.
///
/// # Errors
/// See [`CliError`].
pub async fn run(cli: Cli) -> Result<(), CliError> {
    let Cli { globals, command } = cli;
    match command {
        // These need no platform.
        Command::Login(login) => login.run(&globals).await,
        Command::Logout(logout) => logout.run(&globals),
        Command::Context(context) => context.run(&globals),
        Command::Policy(policy) if policy.is_local() => policy.run_here(&globals).await,
        Command::Completion(completion) => completion.run(&globals),
        command => run_there(&Session::open(&globals)?, command).await,
    }
}

async fn run_there(session: &Session, command: Command) -> Result<(), CliError> {
    match command {
        Command::Whoami(whoami) => whoami.run(session).await,
        Command::Deploy(deploy) => deploy.run(session).await,
        Command::List(list) => list.run(session).await,
        Command::Get(get) => get.run(session).await,
        Command::Describe(describe) => describe.run(session).await,
        Command::Scale(scale) => scale.run(session).await,
        Command::Suspend(suspend) => suspend.run(session).await,
        Command::Resume(resume) => resume.run(session).await,
        Command::Delete(delete) => delete.run(session).await,
        Command::Explain(explain) => explain.run(session).await,
        Command::Invoke(invoke) => invoke.run(session).await,
        Command::Invocation(invocation) => invocation.run(session).await,
        Command::Curl(curl) => curl.run(session).await,
        Command::Logs(logs) => logs.run(session).await,
        Command::Events(events) => events.run(session).await,
        Command::Quota(quota) => quota.run(session).await,
        Command::Usage(usage) => usage.run(session).await,
        Command::Audit(audit) => audit.run(session).await,
        Command::Tenant(tenant) => tenant.run(session).await,
        Command::Policy(policy) => policy.run(session).await,
        Command::Tier(tier) => tier.run(session).await,
        Command::Login(_) | Command::Logout(_) | Command::Context(_) | Command::Completion(_) => Ok(()),
    }
}
