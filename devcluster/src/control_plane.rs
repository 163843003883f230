//! etcd, the API server, the controller manager and, if there is a node, the scheduler.

use std::process::Command;

use crate::{
    error::Result,
    layout::{Layout, SERVICE_NETWORK, loopback},
    pki, probe,
    process::{Component, run},
};

/// Starts the store and waits for it.
///
/// # Errors
/// When it does not get ready.
pub fn start_etcd(layout: &Layout) -> Result<Component> {
    let client = format!("https://{}", loopback(layout.ports.etcd));
    let peer = format!("http://{}", loopback(layout.ports.etcd_peer));
    let metrics = loopback(layout.ports.etcd_metrics);
    // The binary is called after its Go package.
    let mut command = layout.tool("server");
    option(&mut command, "name", "eventflow");
    option(&mut command, "data-dir", layout.data.join("etcd").display());
    option(&mut command, "listen-client-urls", &client);
    option(&mut command, "advertise-client-urls", &client);
    option(&mut command, "listen-peer-urls", &peer);
    option(&mut command, "initial-advertise-peer-urls", &peer);
    option(&mut command, "initial-cluster", format!("eventflow={peer}"));
    option(&mut command, "listen-metrics-urls", format!("http://{metrics}"));
    option(&mut command, "client-cert-auth", true);
    option(&mut command, "trusted-ca-file", pki::file(layout, "ca.crt").display());
    option(&mut command, "cert-file", pki::file(layout, "server.crt").display());
    option(&mut command, "key-file", pki::file(layout, "server.key").display());
    option(&mut command, "log-level", "warn");
    if !layout.durable {
        command.arg("--unsafe-no-fsync");
    }
    let mut etcd = Component::start("etcd", loopback(layout.ports.etcd).to_string(), command, &layout.logs())?;
    etcd.wait_ready(|| probe::http(metrics, "/health").map(drop))?;
    Ok(etcd)
}

/// Starts the API server; [`wait_for_api_server`] waits for it.
///
/// # Errors
/// When it cannot be started.
pub fn start_api_server(layout: &Layout) -> Result<Component> {
    let mut command = layout.tool("kube-apiserver");
    option(&mut command, "etcd-servers", format!("https://{}", loopback(layout.ports.etcd)));
    option(&mut command, "etcd-cafile", pki::file(layout, "ca.crt").display());
    option(&mut command, "etcd-certfile", pki::file(layout, "admin.crt").display());
    option(&mut command, "etcd-keyfile", pki::file(layout, "admin.key").display());
    option(&mut command, "bind-address", layout.node_address());
    option(&mut command, "advertise-address", layout.node_address());
    option(&mut command, "secure-port", layout.ports.api_server);
    option(&mut command, "service-cluster-ip-range", SERVICE_NETWORK);
    option(&mut command, "authorization-mode", "Node,RBAC");
    option(&mut command, "enable-admission-plugins", "NodeRestriction");
    option(&mut command, "client-ca-file", pki::file(layout, "ca.crt").display());
    option(&mut command, "tls-cert-file", pki::file(layout, "server.crt").display());
    option(&mut command, "tls-private-key-file", pki::file(layout, "server.key").display());
    option(&mut command, "kubelet-client-certificate", pki::file(layout, "admin.crt").display());
    option(&mut command, "kubelet-client-key", pki::file(layout, "admin.key").display());
    // Else `kubectl logs` looks the node's name up in DNS.
    option(&mut command, "kubelet-preferred-address-types", "InternalIP");
    option(&mut command, "service-account-issuer", "https://kubernetes.default.svc.cluster.local");
    option(&mut command, "service-account-key-file", pki::file(layout, "service-accounts.pub").display());
    option(&mut command, "service-account-signing-key-file", pki::file(layout, "service-accounts.key").display());
    option(&mut command, "cert-dir", layout.data.join("pki").display());
    option(&mut command, "profiling", false);
    if !layout.node {
        // A loopback address cannot be the endpoint of the `kubernetes` service, and nobody would use it.
        option(&mut command, "endpoint-reconciler-type", "none");
    }
    Component::start("kube-apiserver", layout.api_server().to_string(), command, &layout.logs())
}

/// Waits until the API server says that all its start-up is done.
///
/// # Errors
/// When it does not get ready.
pub fn wait_for_api_server(layout: &Layout, api_server: &mut Component) -> Result<()> {
    api_server.wait_ready(|| {
        // Starting kubectl costs much more than finding that nobody listens yet.
        probe::tcp(layout.api_server())?;
        run(&mut layout.kubectl(&["get", "--raw", "/readyz"])).map(drop).map_err(|error| error.to_string())
    })
}

/// Starts the controller manager; [`wait_for_controllers`] waits for it.
///
/// # Errors
/// When it cannot be started.
pub fn start_controller_manager(layout: &Layout) -> Result<Component> {
    let address = loopback(layout.ports.controller_manager);
    let mut command = layout.tool("kube-controller-manager");
    serve_on_loopback(&mut command, layout, address.port());
    option(&mut command, "service-account-private-key-file", pki::file(layout, "service-accounts.key").display());
    option(&mut command, "root-ca-file", pki::file(layout, "ca.crt").display());
    option(&mut command, "use-service-account-credentials", true);
    // The default, 20 requests a second, makes deleting a namespace take longer than a test.
    option(&mut command, "kube-api-qps", 200);
    option(&mut command, "kube-api-burst", 400);
    Component::start("kube-controller-manager", address.to_string(), command, &layout.logs())
}

/// Waits until the controllers work, which shows in the service account they make.
///
/// # Errors
/// When they do not.
pub fn wait_for_controllers(layout: &Layout, controller_manager: &mut Component) -> Result<()> {
    controller_manager.wait_ready(|| {
        let mut command = layout.kubectl(&["get", "serviceaccount", "default", "--namespace", "default"]);
        run(&mut command).map(drop).map_err(|error| error.to_string())
    })
}

/// Starts the scheduler and waits until it listens.
///
/// # Errors
/// When it does not get ready.
pub fn start_scheduler(layout: &Layout) -> Result<Component> {
    let address = loopback(layout.ports.scheduler);
    let mut command = layout.tool("kube-scheduler");
    serve_on_loopback(&mut command, layout, address.port());
    let mut scheduler = Component::start("kube-scheduler", address.to_string(), command, &layout.logs())?;
    scheduler.wait_ready(|| probe::tcp(address))?;
    Ok(scheduler)
}

/// The options that controller manager and scheduler share: one instance each, so no election.
fn serve_on_loopback(command: &mut Command, layout: &Layout, port: u16) {
    let kubeconfig = layout.kubeconfig();
    for name in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        option(command, name, kubeconfig.display());
    }
    option(command, "bind-address", "127.0.0.1");
    option(command, "secure-port", port);
    option(command, "leader-elect", false);
    option(command, "profiling", false);
}

/// Adds `--name=value`.
pub(crate) fn option(command: &mut Command, name: &str, value: impl std::fmt::Display) {
    command.arg(format!("--{name}={value}"));
}
