//! Flags and environment: one struct per concern, read once, checked once into a `Config`. Nothing else in the
//! gateway reads the environment. Every flag can be given as a variable: `--listen` as `EVENTFLOW_LISTEN`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;

use crate::auth::AuthConfig;
use crate::auth::keys::{self, KeyError};
use crate::policy::PolicyConfig;
use crate::store::StoreConfig;
use crate::webhook::{FailurePolicy, Target, WebhookConfig};

/// EventFlow's gateway: the HTTP API of a multi-tenant function platform on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "gateway", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap would print it as the program's help")]
    pub log: LogArgs,
}

/// Said below the list of commands.
const AFTER_HELP: &str = "Without a command, serve is meant: `gateway serve --help` explains its flags.";
/// Words that may stand first; before anything else, `serve` is put.
const FIRST_WORDS: [&str; 7] = ["serve", "migrate", "help", "-h", "--help", "-V", "--version"];

impl Cli {
    /// Reads the command line, the program's name first.
    ///
    /// # Errors
    /// What is wrong with it; also help and version, which end the program.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let has_verb = args.get(1).and_then(|word| word.to_str()).is_some_and(|word| FIRST_WORDS.contains(&word));
        if !has_verb {
            args.insert(args.len().min(1), "serve".into());
        }
        Self::try_parse_from(args)
    }
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API until a signal stops it (the default).
    Serve(Box<ServeArgs>),
    /// Bring the database's schema up to date, then exit. Several at once wait for each other.
    Migrate(MigrateArgs),
}

/// Flags of `migrate`.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Database to migrate, as a role that may become ef_owner: postgres://user:password@host:port/database.
    #[arg(long, env = "EVENTFLOW_DATABASE_URL", hide_env_values = true, value_parser = secret)]
    pub database_url: SecretString,
}

/// How to log.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Form of the log lines.
    #[arg(long, env = "EVENTFLOW_LOG_FORMAT", value_enum, default_value = "json", global = true)]
    pub log_format: LogFormat,
    /// What to log: a level, or a filter such as info,gateway::cluster=debug.
    #[arg(long, env = "EVENTFLOW_LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    auth: AuthArgs,
    #[command(flatten)]
    policies: PolicyArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Addresses")]
struct ListenArgs {
    /// Address of the API.
    #[arg(long, env = "EVENTFLOW_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Address of metrics, liveness and readiness. Never expose it to callers.
    #[arg(long, env = "EVENTFLOW_ADMIN_LISTEN", default_value = "127.0.0.1:9090")]
    admin_listen: SocketAddr,
    /// Domain below which each function has a host name, {function}.{tenant}.DOMAIN; it must not be the API's own.
    #[arg(long, env = "EVENTFLOW_FUNCTIONS_DOMAIN", value_name = "DOMAIN", value_parser = domain)]
    functions_domain: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
struct StoreArgs {
    /// Database, as a member of the role ef_app: postgres://user:password@host:port/database. Secret: prefer the
    /// environment.
    #[arg(long, env = "EVENTFLOW_DATABASE_URL", hide_env_values = true, value_parser = secret)]
    database_url: SecretString,
    /// Most database connections for requests.
    #[arg(long, env = "EVENTFLOW_DATABASE_POOL_SIZE", default_value_t = 16)]
    database_pool_size: usize,
    /// Longest wait for a free database connection; then the call is answered 503.
    #[arg(long, env = "EVENTFLOW_DATABASE_WAIT", default_value = "250ms", value_parser = humantime::parse_duration)]
    database_wait: Duration,
    /// Longest time of one database statement.
    #[arg(long, env = "EVENTFLOW_STATEMENT_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    statement_timeout: Duration,
    /// Longest wait for a lock in the database.
    #[arg(long, env = "EVENTFLOW_LOCK_TIMEOUT", default_value = "1s", value_parser = humantime::parse_duration)]
    lock_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
struct ClusterArgs {
    /// Kubeconfig file [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, env = "EVENTFLOW_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Whether a tenant that calls for the first time is set up; otherwise an operator has to.
    #[arg(long, env = "EVENTFLOW_PROVISION_TENANTS", default_value_t = true, action = clap::ArgAction::Set)]
    provision_tenants: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Authentication")]
struct AuthArgs {
    /// JSON file of the issuers whose tokens are accepted: a list of {"issuer", "audience", "keys": [{"kid",
    /// "algorithms": ["RS256"], "file"}], "tenant_claim", "roles_claim"}. Key files hold a PEM public key, or for HS256
    /// a secret of at least 32 bytes.
    #[arg(long, env = "EVENTFLOW_ISSUERS", value_name = "FILE")]
    issuers: Option<PathBuf>,
    /// Hand out tokens to whoever asks, at POST /auth/token. For development alone.
    #[arg(long, env = "EVENTFLOW_DEV_ISSUER")]
    dev_issuer: bool,
    /// Allow --dev-issuer on an address that other machines can reach.
    #[arg(long, env = "EVENTFLOW_DEV_ISSUER_ALLOW_NON_LOOPBACK", requires = "dev_issuer")]
    dev_issuer_allow_non_loopback: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Policies")]
struct PolicyArgs {
    /// Folder of the components that are shipped; those that have a sane default are bound the first time.
    #[arg(long, env = "EVENTFLOW_BUILTIN_POLICIES", value_name = "DIR")]
    builtin_policies: Option<PathBuf>,
    /// Folder for compiled policies, to be closed to all but this user. Without it every start compiles anew.
    #[arg(long, env = "EVENTFLOW_POLICY_CACHE", value_name = "DIR")]
    policy_cache: Option<PathBuf>,
    /// What operators see this replica called.
    #[arg(long, env = "EVENTFLOW_REPLICA_NAME", default_value = "gateway", value_name = "NAME")]
    replica_name: String,
    /// Address of the admission webhooks, over TLS, by which policies judge what kubectl does too. Off without it.
    #[arg(long, env = "EVENTFLOW_WEBHOOK_LISTEN", value_name = "ADDRESS")]
    webhook_listen: Option<SocketAddr>,
    /// How the API server reaches the webhooks: https://HOST:PORT, or NAMESPACE/SERVICE:PORT [default: the address they
    /// listen on]
    #[arg(long, env = "EVENTFLOW_WEBHOOK_TARGET", value_name = "TARGET", requires = "webhook_listen")]
    webhook_target: Option<Target>,
    /// What becomes of changes by kubectl while no gateway answers.
    #[arg(long, env = "EVENTFLOW_WEBHOOK_FAILURE_POLICY", value_enum, default_value = "fail")]
    webhook_failure_policy: FailurePolicy,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Largest request body, such as 1MiB.
    #[arg(long, env = "EVENTFLOW_MAX_BODY", default_value = "1MiB")]
    max_body: Size,
    /// Largest request head: request line and headers, at least 8KiB.
    #[arg(long, env = "EVENTFLOW_MAX_HEADER", default_value = "16KiB")]
    max_header: Size,
    /// Longest time from a connection's or a request's first byte to the end of its headers.
    #[arg(long, env = "EVENTFLOW_HEADER_DEADLINE", default_value = "10s", value_parser = humantime::parse_duration)]
    header_deadline: Duration,
    /// Longest time a request's body may take to arrive.
    #[arg(long, env = "EVENTFLOW_BODY_DEADLINE", default_value = "30s", value_parser = humantime::parse_duration)]
    body_deadline: Duration,
    /// Longest time from a request's headers to its answer, the body's arrival included.
    #[arg(long, env = "EVENTFLOW_REQUEST_DEADLINE", default_value = "60s", value_parser = humantime::parse_duration)]
    request_deadline: Duration,
    /// Most connections at once; further ones wait to be accepted.
    #[arg(long, env = "EVENTFLOW_MAX_CONNECTIONS", default_value_t = 10_000)]
    max_connections: usize,
    /// Most requests at once; further ones are answered 503.
    #[arg(long, env = "EVENTFLOW_MAX_REQUESTS", default_value_t = 2_000)]
    max_requests: usize,
    /// Most invocations of functions at once; further ones are answered 503. They take no place from other requests.
    #[arg(long, env = "EVENTFLOW_MAX_INVOCATIONS", default_value_t = 5_000)]
    max_invocations: usize,
    /// Most HTTP/2 streams at once on one connection.
    #[arg(long, env = "EVENTFLOW_MAX_STREAMS", default_value_t = 100)]
    max_streams: u32,
    /// How long a connection may stay open without a request.
    #[arg(long, env = "EVENTFLOW_KEEP_ALIVE", default_value = "75s", value_parser = humantime::parse_duration)]
    keep_alive: Duration,
    /// How long to go on accepting, with readiness failing, after a signal to stop.
    #[arg(long, env = "EVENTFLOW_DRAIN_DELAY", default_value = "0s", value_parser = humantime::parse_duration)]
    drain_delay: Duration,
    /// How long requests under way may take to end after that; then they are cut.
    #[arg(long, env = "EVENTFLOW_DRAIN_TIMEOUT", default_value = "25s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
}

/// Sizes and deadlines of the HTTP side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub max_body: usize,
    /// Largest request head, in bytes.
    pub max_header: usize,
    /// From the first byte to the end of the headers.
    pub header_deadline: Duration,
    /// From the end of the headers to the end of the body.
    pub body_deadline: Duration,
    /// From the end of the headers to the answer.
    pub request_deadline: Duration,
    /// Connections at once.
    pub max_connections: usize,
    /// Requests at once.
    pub max_requests: usize,
    /// Invocations at once.
    pub max_invocations: usize,
    /// HTTP/2 streams at once on one connection.
    pub max_streams: u32,
    /// Longest life of a connection without a request.
    pub keep_alive: Duration,
    /// Between failing readiness and the end of accepting.
    pub drain_delay: Duration,
    /// Between the end of accepting and the cut.
    pub drain_timeout: Duration,
}

/// Everything the gateway was told, checked.
#[derive(Debug)]
pub struct Config {
    /// Address of the API.
    pub listen: SocketAddr,
    /// Address of metrics, liveness and readiness.
    pub admin_listen: SocketAddr,
    /// Domain of the functions' own host names.
    pub functions_domain: Option<String>,
    /// The database.
    pub store: StoreConfig,
    /// Kubeconfig file; none means to look in the usual places.
    pub kubeconfig: Option<PathBuf>,
    /// Whose tokens are accepted.
    pub auth: AuthConfig,
    /// Where policies come from.
    pub policies: PolicyConfig,
    /// The admission webhooks, if they are on.
    pub webhook: Option<WebhookConfig>,
    /// Sizes and deadlines.
    pub limits: Limits,
}

/// Why the flags make no sense together. The text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The development issuer could be reached by other machines.
    #[error(
        "--dev-issuer gives a token to whoever asks, and --listen {0} can be reached by other machines; listen on 127.0.0.1, or add --dev-issuer-allow-non-loopback"
    )]
    DevIssuerExposed(SocketAddr),
    /// The development issuer beside real ones.
    #[error("--dev-issuer and --issuers exclude each other: a development issuer has no place beside real ones")]
    DevIssuerBesideIssuers,
    /// Nobody could ever sign in.
    #[error("no token would be accepted: pass --issuers FILE, or --dev-issuer for development")]
    NoIssuer,
    /// Both ports are one.
    #[error("--listen and --admin-listen must differ")]
    SameAddress,
    /// A number is out of its bounds.
    #[error("{flag} must be {bounds}")]
    OutOfBounds {
        /// The flag.
        flag: &'static str,
        /// What it must be.
        bounds: &'static str,
    },
    /// The issuers cannot be read.
    #[error("--issuers {0}")]
    Issuers(PathBuf, #[source] KeyError),
}

impl TryFrom<ServeArgs> for Config {
    type Error = ConfigError;

    fn try_from(args: ServeArgs) -> Result<Self, ConfigError> {
        let ServeArgs { listen, store, cluster, auth, policies, limits } = args;
        let ListenArgs { listen, admin_listen, functions_domain } = listen;
        if listen == admin_listen && listen.port() != 0 {
            return Err(ConfigError::SameAddress);
        }
        let bounds = |ok: bool, flag, bounds| if ok { Ok(()) } else { Err(ConfigError::OutOfBounds { flag, bounds }) };
        bounds(store.database_pool_size > 0, "--database-pool-size", "at least 1")?;
        Ok(Self {
            listen,
            admin_listen,
            functions_domain,
            store: StoreConfig {
                database_url: store.database_url,
                pool_size: store.database_pool_size,
                wait: store.database_wait,
                statement_timeout: store.statement_timeout,
                lock_timeout: store.lock_timeout,
            },
            kubeconfig: cluster.kubeconfig,
            auth: check_auth(auth, listen, cluster.provision_tenants)?,
            webhook: policies.webhook_listen.map(|listen| WebhookConfig {
                listen,
                target: policies.webhook_target.unwrap_or_else(|| listen.into()),
                failure_policy: policies.webhook_failure_policy,
            }),
            policies: PolicyConfig {
                cache: policies.policy_cache,
                builtins: policies.builtin_policies,
                replica: policies.replica_name,
            },
            limits: check_limits(&limits)?,
        })
    }
}

fn check_auth(args: AuthArgs, listen: SocketAddr, provision: bool) -> Result<AuthConfig, ConfigError> {
    let issuers = match args.issuers {
        Some(path) => keys::load(&path).map_err(|error| ConfigError::Issuers(path, error))?,
        None => Vec::new(),
    };
    if args.dev_issuer && !issuers.is_empty() {
        return Err(ConfigError::DevIssuerBesideIssuers);
    }
    if args.dev_issuer && !listen.ip().is_loopback() && !args.dev_issuer_allow_non_loopback {
        return Err(ConfigError::DevIssuerExposed(listen));
    }
    if !args.dev_issuer && issuers.is_empty() {
        return Err(ConfigError::NoIssuer);
    }
    Ok(AuthConfig { issuers, dev_issuer: args.dev_issuer, provision })
}

fn check_limits(args: &LimitArgs) -> Result<Limits, ConfigError> {
    let bounds = |ok: bool, flag, bounds| if ok { Ok(()) } else { Err(ConfigError::OutOfBounds { flag, bounds }) };
    let no_time = Duration::ZERO;
    bounds((8 * 1024..=1024 * 1024).contains(&args.max_header.0), "--max-header", "from 8KiB to 1MiB")?;
    bounds((1..=1 << 30).contains(&args.max_body.0), "--max-body", "from 1 byte to 1GiB")?;
    bounds(args.header_deadline > no_time, "--header-deadline", "more than nothing")?;
    bounds(args.body_deadline > no_time, "--body-deadline", "more than nothing")?;
    bounds(args.request_deadline > no_time, "--request-deadline", "more than nothing")?;
    bounds(args.keep_alive > no_time, "--keep-alive", "more than nothing")?;
    bounds((1..=1_000_000).contains(&args.max_connections), "--max-connections", "from 1 to 1000000")?;
    bounds((1..=1_000_000).contains(&args.max_requests), "--max-requests", "from 1 to 1000000")?;
    bounds((1..=1_000_000).contains(&args.max_invocations), "--max-invocations", "from 1 to 1000000")?;
    bounds(args.max_streams > 0, "--max-streams", "at least 1")?;
    Ok(Limits {
        max_body: args.max_body.0 as usize,
        max_header: args.max_header.0 as usize,
        header_deadline: args.header_deadline,
        body_deadline: args.body_deadline,
        request_deadline: args.request_deadline,
        max_connections: args.max_connections,
        max_requests: args.max_requests,
        max_invocations: args.max_invocations,
        max_streams: args.max_streams,
        keep_alive: args.keep_alive,
        drain_delay: args.drain_delay,
        drain_timeout: args.drain_timeout,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(SecretString::from(text))
}

/// A domain name: labels joined by dots.
fn domain(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && label.len() <= 63
    };
    if text.len() <= 200 && text.split('.').all(label) { Ok(text) } else { Err("must be a domain name".to_owned()) }
}

/// A number of bytes, written as `512`, `16KiB` or `1MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err("expected a number of bytes such as 512, 16KiB or 1MiB".to_owned()),
        };
        let number: u64 = number.parse().map_err(|_| "expected a number of bytes such as 512, 16KiB or 1MiB")?;
        number.checked_mul(unit).map(Self).ok_or_else(|| "is too large".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(words.iter().map(OsString::from))
    }

    fn config(flags: &[&str]) -> Result<Config, String> {
        let all = [&["gateway", "--database-url", "postgres://u:secret@h/d"], flags].concat();
        match read(&all).map_err(|error| error.to_string())?.command {
            Command::Serve(args) => Config::try_from(*args).map_err(|error| error.to_string()),
            Command::Migrate(_) => Err("migrate".to_owned()),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let config = config(&["--dev-issuer"]).unwrap();
        assert_eq!((config.listen.to_string().as_str(), config.limits.max_body), ("127.0.0.1:8080", 1 << 20));
        assert_eq!((config.limits.max_header, config.limits.drain_timeout), (16 << 10, Duration::from_secs(25)));
        assert!(config.auth.provision && config.auth.dev_issuer);
    }

    #[test]
    fn serving_needs_no_subcommand_and_migrating_no_flags_of_serving() {
        let words = ["gateway", "serve", "--database-url", "x", "--dev-issuer"];
        assert!(matches!(read(&words).unwrap().command, Command::Serve(_)));
        let words = ["gateway", "migrate", "--database-url", "x", "--log-format", "text"];
        assert!(matches!(read(&words).unwrap().command, Command::Migrate(_)));
    }

    #[test]
    fn the_dev_issuer_stays_at_home() {
        let exposed = ["--dev-issuer", "--listen", "0.0.0.0:8080"];
        assert!(config(&exposed).unwrap_err().contains("--dev-issuer-allow-non-loopback"));
        assert!(config(&[&exposed[..], &["--dev-issuer-allow-non-loopback"]].concat()).is_ok());
        assert!(config(&[]).unwrap_err().contains("--issuers"));
    }

    #[test]
    fn nonsense_is_named() {
        assert!(config(&["--dev-issuer", "--max-body", "x"]).unwrap_err().contains("16KiB"));
        assert!(config(&["--dev-issuer", "--max-header", "1KiB"]).unwrap_err().contains("--max-header"));
        assert!(config(&["--dev-issuer", "--admin-listen", "127.0.0.1:8080"]).unwrap_err().contains("differ"));
        assert!(config(&["--dev-issuer", "--issuers", "/nonexistent"]).unwrap_err().contains("/nonexistent"));
    }

    #[test]
    fn the_database_url_is_never_printed() {
        assert!(!format!("{:?}", config(&["--dev-issuer"]).unwrap()).contains("secret"));
    }
}
