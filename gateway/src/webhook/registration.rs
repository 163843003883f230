//! What the API server is told about its webhooks. Applied again whenever the live replicas' authorities change, and
//! now and then in case somebody edited it. All replicas apply the same.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use eventflow_api::labels::{GATEWAY_MANAGER, GROUP, TENANT, VERSION};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{MUTATE, VALIDATE, WebhookConfig};
use crate::app::App;

/// Name of both configurations.
const NAME: &str = "eventflow-policies";
/// Name of each webhook; kubectl shows it with a refusal.
const WEBHOOK: &str = "policies.eventflow.io";
/// Between two looks at who is to be trusted.
const POLL: Duration = Duration::from_secs(1);
/// After this long it is applied again though nothing changed here.
const REPAIR: Duration = Duration::from_secs(60);
/// Longest wait for the API server.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait of the API server for a webhook, in seconds: an admission set may take half a second per policy.
const TIMEOUT_SECONDS: i32 = 10;

/// How the API server reaches the webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By this URL, `https://host:port` without a path.
    Url(String),
    /// By a service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected https://HOST:PORT, or NAMESPACE/SERVICE:PORT".to_owned();
        if let Some(rest) = text.strip_prefix("https://") {
            return if rest.is_empty() || rest.contains('/') { Err(wrong()) } else { Ok(Self::Url(text.to_owned())) };
        }
        let (namespace, rest) = text.split_once('/').ok_or_else(wrong)?;
        let (name, port) = rest.split_once(':').ok_or_else(wrong)?;
        let label = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !label(namespace) || !label(name) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self::Service { namespace: namespace.to_owned(), name: name.to_owned(), port })
    }
}

impl Target {
    /// The name that the certificate is for.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Url(url) => {
                let rest = url.trim_start_matches("https://");
                let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
                host.trim_start_matches('[').trim_end_matches(']').to_owned()
            }
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    fn client_config(&self, path: &str, bundle: &str) -> Value {
        let bundle = STANDARD.encode(bundle);
        match self {
            Self::Url(url) => json!({"url": format!("{url}{path}"), "caBundle": bundle}),
            Self::Service { namespace, name, port } => {
                json!({"service": {"namespace": namespace, "name": name, "port": port, "path": path}, "caBundle": bundle})
            }
        }
    }
}

/// The address that other machines see is not known; this is what one listens on.
impl From<std::net::SocketAddr> for Target {
    fn from(address: std::net::SocketAddr) -> Self {
        let host = match address.ip() {
            ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self::Url(format!("https://{host}:{}", address.port()))
    }
}

/// What becomes of changes while no gateway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FailurePolicy {
    /// They are refused.
    Fail,
    /// They are let through unjudged.
    Ignore,
}

impl FailurePolicy {
    fn word(self) -> &'static str {
        match self {
            Self::Fail => "Fail",
            Self::Ignore => "Ignore",
        }
    }
}

/// What the API server was told, and who it takes this gateway for.
#[derive(Default)]
pub(super) struct Registered {
    bundle: Mutex<String>,
    username: Mutex<Option<String>>,
}

impl Registered {
    pub(super) fn trusts(&self, ca_pem: &str) -> bool {
        self.bundle.lock().unwrap_or_else(PoisonError::into_inner).contains(ca_pem)
    }

    /// The user name that the API server knows this gateway by; none until it said so.
    pub(super) fn username(&self) -> Option<String> {
        self.username.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, bundle: String, username: String) {
        *self.bundle.lock().unwrap_or_else(PoisonError::into_inner) = bundle;
        *self.username.lock().unwrap_or_else(PoisonError::into_inner) = Some(username);
    }
}

/// Works for ever.
pub(super) async fn keep(app: &App, client: Client, config: &WebhookConfig, registered: &Registered) {
    let mut applied: Option<(String, Instant)> = None;
    loop {
        let bundle = app.policies.webhook_cas().concat();
        let fresh = applied.as_ref().is_some_and(|(told, at)| *told == bundle && at.elapsed() < REPAIR);
        if !bundle.is_empty() && !fresh {
            match tokio::time::timeout(DEADLINE, apply(&client, config, &bundle)).await {
                Ok(Ok(username)) => {
                    registered.set(bundle.clone(), username);
                    applied = Some((bundle, Instant::now()));
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = crate::error::chain(&error), "The webhooks cannot be registered now.");
                }
                Err(_) => tracing::warn!("The API server does not take the webhooks' registration in time."),
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn apply(client: &Client, config: &WebhookConfig, bundle: &str) -> Result<String, kube::Error> {
    let me = Api::<SelfSubjectReview>::all(client.clone());
    let me = me.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let username = me.status.and_then(|status| status.user_info?.username).unwrap_or_default();
    let params = PatchParams::apply(GATEWAY_MANAGER).force();
    let object = |kind: &str, webhook: Value| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": NAME},
            "webhooks": [webhook]})
    };
    let mut webhook = webhook(config, &username, (MUTATE, bundle));
    // Others may change the object after us; then we are asked once more.
    webhook["reinvocationPolicy"] = json!("IfNeeded");
    let mutating = object("MutatingWebhookConfiguration", webhook);
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    api.patch(NAME, &params, &Patch::Apply(&mutating)).await?;
    let validating = self::webhook(config, &username, (VALIDATE, bundle));
    let validating = object("ValidatingWebhookConfiguration", validating);
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    api.patch(NAME, &params, &Patch::Apply(&validating)).await?;
    Ok(username)
}

fn webhook(config: &WebhookConfig, username: &str, (path, bundle): (&str, &str)) -> Value {
    // What the gateway writes was judged when it was asked for. Its user name says who it is, and the field manager
    // tells its writes from those of a person who shares that user (as on a development cluster).
    let ours = format!(
        "request.userInfo.username == {} && has(request.options.fieldManager) && request.options.fieldManager == {}",
        json!(username),
        json!(GATEWAY_MANAGER)
    );
    json!({
        "name": WEBHOOK,
        "clientConfig": config.target.client_config(path, bundle),
        "rules": [{"apiGroups": [GROUP], "apiVersions": [VERSION], "resources": ["functions"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "Namespaced"}],
        "namespaceSelector": {"matchExpressions": [{"key": TENANT, "operator": "Exists"}]},
        "matchConditions": [{"name": "not-written-by-the-gateway", "expression":
            format!("request.operation == 'DELETE' || !({ours})")}],
        "failurePolicy": config.failure_policy.word(),
        "matchPolicy": "Equivalent",
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": TIMEOUT_SECONDS,
        "admissionReviewVersions": ["v1"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls_or_services() {
        let url: Target = "https://[::1]:9443".parse().unwrap();
        assert_eq!(url.host(), "::1");
        let service: Target = "eventflow/gateway:9443".parse().unwrap();
        assert_eq!(service.host(), "gateway.eventflow.svc");
        assert_eq!(Target::from("0.0.0.0:1".parse::<std::net::SocketAddr>().unwrap()).host(), "127.0.0.1");
        for bad in ["http://x:1", "https://x:1/path", "x:1", "a/b", "a/b:port"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
