//! Flags and environment of the controller. Read once; nothing else reads the environment, except for the
//! connection to the cluster, which follows `KUBECONFIG` or the service account as every Kubernetes client does.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use eventflow_api::image::ImageRef;

use crate::cidr::Cidr;

/// Makes the cluster match Tenant, Tier and Function objects.
#[derive(Debug, Clone, Parser)]
#[command(name = "controller", version, about)]
pub struct Config {
    /// Work.
    #[command(flatten)]
    pub work: WorkConfig,
    /// Leadership.
    #[command(flatten)]
    pub lease: LeaseConfig,
    /// Addresses.
    #[command(flatten)]
    pub network: NetworkConfig,
    /// Health and metrics.
    #[command(flatten)]
    pub admin: AdminConfig,
    /// Logs.
    #[command(flatten)]
    pub log: LogConfig,
}

/// How work is done.
#[derive(Debug, Clone, Args)]
pub struct WorkConfig {
    /// Objects brought in order at the same time.
    #[arg(long, env = "EVENTFLOW_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Longest life of one watch. Less than the idle time-out of any load balancer before the API server.
    #[arg(long, env = "EVENTFLOW_WATCH_TIMEOUT", default_value = "200s", value_parser = humantime::parse_duration)]
    pub watch_timeout: Duration,
    /// Time without progress after which a roll-out counts as failed.
    #[arg(long, env = "EVENTFLOW_PROGRESS_DEADLINE", default_value = "120s", value_parser = humantime::parse_duration)]
    pub progress_deadline: Duration,
    /// Time for which a function that waits for quota may be passed by smaller ones behind it; then it blocks them.
    #[arg(long, env = "EVENTFLOW_MAX_PASS", default_value = "60s", value_parser = humantime::parse_duration)]
    pub max_pass: Duration,
    /// The image of `ef-run`, which gives runs their input as standard input. Without it they have it as a file alone.
    #[arg(long, env = "EVENTFLOW_RUNNER_IMAGE")]
    pub runner_image: Option<ImageRef>,
    /// Longest time that work under way may take at the end.
    #[arg(long, env = "EVENTFLOW_DRAIN_TIMEOUT", default_value = "20s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,
}

/// Which of several controllers works.
#[derive(Debug, Clone, Args)]
pub struct LeaseConfig {
    /// Namespace of the Lease. It must exist.
    #[arg(long, env = "EVENTFLOW_LEASE_NAMESPACE", default_value = "kube-system")]
    pub lease_namespace: String,
    /// Name of the Lease.
    #[arg(long, env = "EVENTFLOW_LEASE_NAME", default_value = "eventflow-controller")]
    pub lease_name: String,
    /// Name of this controller among its kind; made up from process and chance if absent.
    #[arg(long, env = "EVENTFLOW_IDENTITY")]
    pub identity: Option<String>,
    /// Time after which a leader that does not renew its Lease is replaced.
    #[arg(long, env = "EVENTFLOW_LEASE_DURATION", default_value = "15s", value_parser = humantime::parse_duration)]
    pub lease_duration: Duration,
    /// Time after which a leader that cannot renew its Lease stops. Less than the duration.
    #[arg(long, env = "EVENTFLOW_LEASE_RENEW_DEADLINE", default_value = "10s", value_parser = humantime::parse_duration)]
    pub lease_renew_deadline: Duration,
    /// Time between attempts to get or renew the Lease.
    #[arg(long, env = "EVENTFLOW_LEASE_RETRY_PERIOD", default_value = "2s", value_parser = humantime::parse_duration)]
    pub lease_retry_period: Duration,
}

/// Who may reach functions, and what they never reach.
#[derive(Debug, Clone, Args)]
pub struct NetworkConfig {
    /// Addresses of gateways outside of the cluster, which may call functions. Gateways in a namespace labelled
    /// eventflow.io/platform=true may anyway.
    #[arg(long = "gateway-cidr", env = "EVENTFLOW_GATEWAY_CIDRS", value_delimiter = ',')]
    pub gateway_cidrs: Vec<Cidr>,
    /// Addresses that functions never reach whatever their tier says, such as the database's. Cloud metadata and
    /// the API server's addresses always are among them.
    #[arg(long = "protected-cidr", env = "EVENTFLOW_PROTECTED_CIDRS", value_delimiter = ',')]
    pub protected_cidrs: Vec<Cidr>,
}

/// Health and metrics.
#[derive(Debug, Clone, Args)]
pub struct AdminConfig {
    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, env = "EVENTFLOW_ADMIN_LISTEN", default_value = "127.0.0.1:9091")]
    pub admin_listen: SocketAddr,
}

/// Logs.
#[derive(Debug, Clone, Args)]
pub struct LogConfig {
    /// What is logged: a level, or directives such as `info,controller=debug`.
    #[arg(long, env = "EVENTFLOW_LOG", default_value = "info,kube_client=off")]
    pub log: String,
    /// How it is written.
    #[arg(long, env = "EVENTFLOW_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = Config::try_parse_from(["controller"]).unwrap();
        assert_eq!((config.work.concurrency, config.work.watch_timeout.as_secs()), (32, 200));
        assert_eq!(config.work.max_pass, quota::queue::MAX_PASS_DEFAULT);
        assert_eq!(config.admin.admin_listen.to_string(), "127.0.0.1:9091");
        assert_eq!(config.lease.lease_namespace, "kube-system");
    }

    #[test]
    fn lists_of_addresses_are_read_and_checked() {
        let config = Config::try_parse_from(["controller", "--protected-cidr", "10.0.0.1,fd00::/8"]).unwrap();
        assert_eq!(config.network.protected_cidrs.len(), 2);
        assert!(Config::try_parse_from(["controller", "--gateway-cidr", "localhost"]).is_err());
    }
}
