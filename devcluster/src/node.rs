//! The node: containerd with runc and the distribution's CNI plug-ins, kubelet, and kube-proxy. All they write goes
//! below the cluster's folder; what they write to fixed places is covered by `crate::shadow`.

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    control_plane::option,
    error::{Error, Result},
    images,
    layout::{BRIDGE, BRIDGE_ADDRESS, Layout, NODE_NAME, POD_NETWORK, SERVICE_NETWORK, create_folder, loopback, write},
    packages::CNI_PLUGINS,
    pki, probe,
    process::{Component, run},
    shadow,
};

/// Makes the bridge and writes the configuration of everything on the node.
///
/// # Errors
/// When the system refuses.
pub fn prepare(layout: &Layout) -> Result<()> {
    make_bridge()?;
    for folder in ["containerd", "cni", "cni-state", "kubelet", "pod-logs", "registry"] {
        create_folder(&layout.data.join(folder), 0o711)?;
    }
    forget_pods(layout)?;
    shadow::cover_fixed_places(&layout.data)?;
    write(&containerd_config(layout), containerd_settings(layout)?)?;
    write(&layout.data.join("cni/10-eventflow.conflist"), format!("{:#}\n", network_settings(layout)))?;
    write(&layout.data.join("kubelet.json"), format!("{:#}\n", kubelet_settings(layout)))?;
    write(&layout.data.join("kube-proxy.json"), format!("{:#}\n", proxy_settings(layout)))
}

/// Starts containerd and the image registry, and puts the images into the registry.
///
/// # Errors
/// When one of them does not get ready.
pub fn start_runtime(layout: &Layout) -> Result<Vec<Component>> {
    let mut registry = layout.tool("crane");
    registry.args(["registry", "serve", "--address"]).arg(layout.registry().to_string());
    registry.arg("--disk").arg(layout.data.join("registry"));
    let mut registry = Component::start("registry", layout.registry().to_string(), registry, &layout.logs())?;
    let mut containerd = layout.component("containerd".as_ref());
    containerd.arg("--config").arg(containerd_config(layout));
    let socket = containerd_socket(layout);
    let mut containerd = Component::start("containerd", socket.display().to_string(), containerd, &layout.logs())?;
    registry.wait_ready(|| probe::http(layout.registry(), "/v2/").map(drop))?;
    images::push(layout)?;
    containerd.wait_ready(|| probe::unix(&socket))?;
    Ok(vec![registry, containerd])
}

/// Starts kubelet and kube-proxy and waits until the node takes pods.
///
/// # Errors
/// When one of them does not get ready.
pub fn start(layout: &Layout) -> Result<Vec<Component>> {
    let mut kubelet = layout.tool("kubelet");
    option(&mut kubelet, "config", layout.data.join("kubelet.json").display());
    option(&mut kubelet, "kubeconfig", layout.data.join("kubelet.kubeconfig").display());
    option(&mut kubelet, "root-dir", layout.data.join("kubelet").display());
    option(&mut kubelet, "cert-dir", layout.data.join("kubelet/pki").display());
    option(&mut kubelet, "hostname-override", NODE_NAME);
    option(&mut kubelet, "node-ip", BRIDGE_ADDRESS);
    let address = format!("{BRIDGE_ADDRESS}:{}", layout.ports.kubelet);
    let mut kubelet = Component::start("kubelet", address, kubelet, &layout.logs())?;
    let mut proxy = layout.tool("kube-proxy");
    option(&mut proxy, "config", layout.data.join("kube-proxy.json").display());
    let health = loopback(layout.ports.proxy_health);
    let mut proxy = Component::start("kube-proxy", health.to_string(), proxy, &layout.logs())?;
    kubelet.wait_ready(|| {
        probe::http(loopback(layout.ports.kubelet_health), "/healthz")?;
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let mut command = layout.kubectl(&["get", "node", NODE_NAME, "--output", ready]);
        match run(&mut command).map_err(|error| error.to_string())?.as_str() {
            "True" => Ok(()),
            other => Err(format!("the node's Ready condition is `{other}`")),
        }
    })?;
    proxy.wait_ready(|| probe::http(health, "/healthz").map(drop))?;
    Ok(vec![kubelet, proxy])
}

/// The bridge must be there before the API server, which listens on its address.
fn make_bridge() -> Result<()> {
    let ip = |arguments: &[&str]| run(Command::new("ip").args(arguments)).map(drop);
    let exists = ip(&["link", "show", "dev", BRIDGE]).is_ok();
    if !exists {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    }
    ip(&["address", "replace", &format!("{BRIDGE_ADDRESS}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    // Service addresses are rewritten after the first look for a route, which a host without a default route lacks.
    ip(&["route", "replace", SERVICE_NETWORK, "dev", BRIDGE])
}

fn containerd_config(layout: &Layout) -> PathBuf {
    layout.data.join("containerd.toml")
}

fn containerd_socket(layout: &Layout) -> PathBuf {
    layout.data.join("containerd.sock")
}

fn containerd_settings(layout: &Layout) -> Result<String> {
    let data = layout.data.display();
    // Overlays cannot be stacked on an overlay, which the root of a container often is.
    let file_system = run(Command::new("stat").args(["--file-system", "--format=%T"]).arg(&layout.data))?;
    let snapshotter = if file_system.trim() == "overlayfs" { "native" } else { "overlayfs" };
    let sandbox = images::reference(layout, "pause", "v1");
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE runc could not lower a score, and would fail without a word.
    // disable_apparmor: else a profile is loaded into the kernel and stays there.
    Ok(format!(
        r#"version = 2
root = "{data}/containerd/root"
state = "{data}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{data}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{data}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{data}/containerd/runc"
"#,
        socket = containerd_socket(layout).display(),
    ))
}

fn network_settings(layout: &Layout) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "eventflow",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            // Without a default route a pod cannot reach service addresses.
            "isDefaultGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": POD_NETWORK}]],
                "dataDir": layout.data.join("cni-state"),
            },
        }],
    })
}

fn kubelet_settings(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": BRIDGE_ADDRESS,
        "port": layout.ports.kubelet,
        "healthzPort": layout.ports.kubelet_health,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki::file(layout, "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket(layout).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.name),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "maxPods": 200,
        "podLogsDir": layout.data.join("pod-logs"),
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "resolvConf": "",
        "serializeImagePulls": false,
        "volumePluginDir": layout.data.join("kubelet/volume-plugins"),
    })
}

fn proxy_settings(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": layout.kubeconfig()},
        "mode": "nftables",
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": NODE_NAME,
        "healthzBindAddress": loopback(layout.ports.proxy_health).to_string(),
        "metricsBindAddress": loopback(layout.ports.proxy_metrics).to_string(),
        // Zero: leave the machine's connection tracking as it is.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// Removes what the last run knew of running containers: none of them runs any more, as after a reboot.
fn forget_pods(layout: &Layout) -> Result<()> {
    let folder = layout.data.join("containerd/state");
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { action: format!("remove {}", folder.display()), source: error })
        }
        _ => Ok(()),
    }
}
