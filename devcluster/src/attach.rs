//! The handle a test holds on the cluster it runs in. It never starts or stops anything: `devcluster run` does.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Kubeconfig of a cluster administrator.
pub const ENV_KUBECONFIG: &str = "EVENTFLOW_TEST_KUBECONFIG";
/// URL of the maintenance database `postgres`, as superuser.
pub const ENV_DATABASE_URL: &str = "EVENTFLOW_TEST_DATABASE_URL";
/// `host:port` of the image registry; only with a node.
pub const ENV_REGISTRY: &str = "EVENTFLOW_TEST_REGISTRY";
/// `1` when pods really run.
pub const ENV_NODE: &str = "EVENTFLOW_TEST_NODE";

/// An address of this machine, within a cluster that has namespaces of its own, that the API server takes for a pod's:
/// what a test stands in for a pod with may listen there.
pub const STAND_IN: &str = "10.88.255.1";

/// Why a test has no cluster.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Not started under `devcluster run`.
    #[error(
        "{0} is not set: run this through `make test` or `cargo run -p eventflow-devcluster -- run -- cargo test ...`"
    )]
    NotInCluster(&'static str),
    /// The kubeconfig cannot be read or is not one that `devcluster` wrote.
    #[error("{path} is not a kubeconfig this test can use: {reason}")]
    Kubeconfig {
        /// The file that was read.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The cluster this process runs in: one control plane and one PostgreSQL per `devcluster run`, shared by all its
/// tests, so a test makes its own namespace and its own database or schema.
#[derive(Debug, Clone)]
pub struct TestCluster {
    kubeconfig: PathBuf,
    database_url: String,
    registry: Option<String>,
    node: bool,
}

impl TestCluster {
    /// Reads the handle from the environment that `devcluster run` sets.
    ///
    /// # Errors
    /// When the process was not started under `devcluster run`; the message says how to.
    pub fn attach() -> Result<Self, AttachError> {
        let required = |name| variable(name).ok_or(AttachError::NotInCluster(name));
        Ok(Self {
            kubeconfig: required(ENV_KUBECONFIG)?.into(),
            database_url: required(ENV_DATABASE_URL)?,
            registry: variable(ENV_REGISTRY),
            node: variable(ENV_NODE).as_deref() == Some("1"),
        })
    }

    /// Path of a kubeconfig with the rights of a cluster administrator.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// URL of the maintenance database, as superuser: `postgres://user:password@host:port/postgres`.
    #[must_use]
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// `host:port` of the loopback registry that holds the example images; `None` without a node.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// Whether pods really run, that is, whether this is `devcluster run --node`.
    #[must_use]
    pub fn has_node(&self) -> bool {
        self.node
    }

    /// `host:port` of PostgreSQL, to put a [`crate::Proxy`] in front of it.
    #[must_use]
    pub fn database_address(&self) -> &str {
        let rest = self.database_url.split_once("://").map_or(self.database_url.as_str(), |(_, rest)| rest);
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }

    /// The database URL with another `host:port`, usually a [`crate::Proxy`]'s.
    #[must_use]
    pub fn database_url_through(&self, address: &str) -> String {
        self.database_url.replacen(self.database_address(), address, 1)
    }

    /// `host:port` of the API server, to put a [`crate::Proxy`] in front of it.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub fn api_server_address(&self) -> Result<String, AttachError> {
        let config = self.read_kubeconfig()?;
        let server = config.pointer("/clusters/0/cluster/server").and_then(Value::as_str);
        let server = server.ok_or_else(|| self.bad_kubeconfig("it names no server"))?;
        Ok(server.trim_start_matches("https://").trim_end_matches('/').to_owned())
    }

    /// Writes a copy of the kubeconfig to `path` that reaches the API server at `address` (`host:port`, a loopback
    /// address, which the server's certificate covers).
    ///
    /// # Errors
    /// When the kubeconfig cannot be read or the copy not written.
    pub fn write_kubeconfig_through(&self, address: &str, path: &Path) -> Result<(), AttachError> {
        let mut config = self.read_kubeconfig()?;
        match config.pointer_mut("/clusters/0/cluster/server") {
            Some(server) => *server = Value::String(format!("https://{address}")),
            None => return Err(self.bad_kubeconfig("it names no server")),
        }
        std::fs::write(path, config.to_string())
            .map_err(|error| AttachError::Kubeconfig { path: path.to_owned(), reason: error.to_string() })
    }

    /// `devcluster` writes its kubeconfig as JSON, which is YAML too, so that no YAML parser is needed here.
    fn read_kubeconfig(&self) -> Result<Value, AttachError> {
        let text = std::fs::read(&self.kubeconfig).map_err(|error| self.bad_kubeconfig(&error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| self.bad_kubeconfig(&error.to_string()))
    }

    fn bad_kubeconfig(&self, reason: &str) -> AttachError {
        AttachError::Kubeconfig { path: self.kubeconfig.clone(), reason: reason.to_owned() }
    }
}

/// The one place of the library that reads the environment.
#[expect(clippy::disallowed_methods, reason = "a test binary has no command line of its own to configure it by")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(database_url: &str) -> TestCluster {
        TestCluster {
            kubeconfig: PathBuf::from("/nonexistent/kubeconfig"),
            database_url: database_url.to_owned(),
            registry: None,
            node: false,
        }
    }

    #[test]
    fn the_database_address_is_the_authority_without_credentials() {
        let cluster = cluster("postgres://postgres:se%40cret@127.0.0.1:54329/postgres?sslmode=disable");
        assert_eq!(cluster.database_address(), "127.0.0.1:54329");
        assert_eq!(
            cluster.database_url_through("127.0.0.1:1"),
            "postgres://postgres:se%40cret@127.0.0.1:1/postgres?sslmode=disable"
        );
    }

    #[test]
    fn the_copied_kubeconfig_differs_in_the_server_alone() {
        let folder = std::env::temp_dir().join(format!("devcluster-attach-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut cluster = cluster("postgres://h:1/p");
        cluster.kubeconfig = folder.join("kubeconfig");
        let text = r#"{"clusters":[{"cluster":{"server":"https://127.0.0.1:6443"},"name":"c"}],"kind":"Config"}"#;
        std::fs::write(&cluster.kubeconfig, text).unwrap();
        assert_eq!(cluster.api_server_address().unwrap(), "127.0.0.1:6443");
        let copy = folder.join("copy");
        cluster.write_kubeconfig_through("127.0.0.1:9", &copy).unwrap();
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), text.replace("6443", "9"));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_kubeconfig_is_named() {
        let error = cluster("postgres://h:1/p").api_server_address().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/kubeconfig"), "{error}");
    }
}
