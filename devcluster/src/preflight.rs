//! What has to be so before `make up` starts anything: each check ends in one sentence saying what is wrong and how to
//! fix it.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    layout::{BRIDGE, POD_NETWORK, Ports, SERVICE_NETWORK, loopback},
    process::run,
};

/// Free space that a start needs: images, logs, the stores, and the build.
const SPACE: u64 = 4 << 30;

/// Checks the disk, the addresses and the ports; `platform` is the port of the API and the gateway's admin port.
///
/// # Errors
/// The first thing that is not as it has to be.
pub fn check(data: &Path, node: bool, platform: Option<(u16, u16)>) -> Result<()> {
    check_space(data)?;
    let ports = Ports::FIXED;
    let mut wanted = Vec::new();
    if let Some((port, admin_port)) = platform {
        wanted.push((port, "the gateway"));
        wanted.push((admin_port, "the gateway's admin port"));
        wanted.push((admin_port.saturating_add(1), "the controller's admin port"));
    }
    wanted.push((ports.postgres, "PostgreSQL"));
    if node {
        check_routes()?;
        wanted.extend([
            (ports.etcd, "etcd"),
            (ports.etcd_metrics, "etcd's metrics"),
            (ports.etcd_peer, "etcd's peers"),
            (ports.controller_manager, "kube-controller-manager"),
            (ports.scheduler, "kube-scheduler"),
            (ports.kubelet_health, "the kubelet's health"),
            (ports.proxy_health, "kube-proxy's health"),
            (ports.proxy_metrics, "kube-proxy's metrics"),
            (ports.registry, "the image registry"),
        ]);
        for (port, name) in [(ports.api_server, "kube-apiserver"), (ports.kubelet, "the kubelet")] {
            // They listen on the bridge, which is not there yet: anyone who listens on all addresses is in the way.
            check_port(Ipv4Addr::UNSPECIFIED, port, name)?;
        }
    }
    wanted.into_iter().try_for_each(|(port, name)| check_port(Ipv4Addr::LOCALHOST, port, name))
}

fn check_port(address: Ipv4Addr, port: u16, name: &str) -> Result<()> {
    match TcpListener::bind((address, port)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let how = if name == "the gateway" { ", or choose another with EVENTFLOW_PORT=8081" } else { "" };
            Err(Error::Precondition(format!(
                "port {port}, which {name} needs, cannot be used ({error}): end what listens there \
                 (`ss -ltnp sport = :{port}` names it){how}"
            )))
        }
    }
}

fn check_space(data: &Path) -> Result<()> {
    // The folder may not be there yet; the file system that will hold it is.
    let existing = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(existing)
        .map(|status| status.f_bavail * status.f_frsize)
        .map_err(std::io::Error::from)
        .map_err(Error::io(format!("find the free space of {}", existing.display())))?;
    if free < SPACE {
        return Err(Error::Precondition(format!(
            "{} has {} MiB free and {} MiB are needed: make room, or choose another folder with EVENTFLOW_DEV_DATA",
            existing.display(),
            free >> 20,
            SPACE >> 20
        )));
    }
    Ok(())
}

fn check_routes() -> Result<()> {
    let routes = run(Command::new("ip").args(["-json", "-4", "route", "show", "table", "all"]))?;
    let routes: Value = serde_json::from_str(&routes).unwrap_or_default();
    for network in [POD_NETWORK, SERVICE_NETWORK] {
        if let Some((route, device)) = conflict(&routes, network) {
            return Err(Error::Precondition(format!(
                "the addresses {network} are in use ({route} is routed to {device}): disconnect that network while the \
                 development cluster runs, or set KUBECONFIG to use another cluster"
            )));
        }
    }
    Ok(())
}

/// The route that claims addresses of `network`, if there is one besides ours and the way to everywhere.
fn conflict(routes: &Value, network: &str) -> Option<(String, String)> {
    let network = parse(network)?;
    routes.as_array()?.iter().find_map(|route| {
        let (destination, device) = (route["dst"].as_str()?, route["dev"].as_str().unwrap_or("nothing"));
        if device == BRIDGE {
            return None;
        }
        let claimed = parse(destination)?;
        overlap(network, claimed).then(|| (destination.to_owned(), device.to_owned()))
    })
}

/// Address and prefix length; `default` is nothing, a bare address is a network of one.
fn parse(network: &str) -> Option<(u32, u32)> {
    let (address, length) = network.split_once('/').unwrap_or((network, "32"));
    Some((address.parse::<Ipv4Addr>().ok()?.into(), length.parse().ok().filter(|&length| length > 0 && length <= 32)?))
}

fn overlap(one: (u32, u32), other: (u32, u32)) -> bool {
    let mask = u32::MAX << (32 - one.1.min(other.1));
    one.0 & mask == other.0 & mask
}

/// The address of the gateway as people type it.
#[must_use]
pub fn gateway_url(port: u16) -> String {
    format!("http://{}", loopback(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_route_into_our_addresses_is_a_conflict_and_the_default_route_is_none() {
        let route = |dst: &str, dev: &str| json!([{"dst": dst, "dev": dev}]);
        let found = |dst, dev| conflict(&route(dst, dev), POD_NETWORK).is_some();
        assert!(found("10.88.0.0/16", "cni-podman0"));
        assert!(found("10.0.0.0/8", "wg0"));
        assert!(found("10.88.0.7", "wg0"));
        assert!(!found("10.88.1.0/24", "wg0"));
        assert!(!found("default", "eth0"));
        assert!(!found("10.88.0.0/24", BRIDGE));
    }

    #[test]
    fn a_taken_port_is_named_with_its_owner_to_be_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check_port(Ipv4Addr::LOCALHOST, port, "the gateway").unwrap_err().to_string();
        assert!(error.contains(&port.to_string()) && error.contains("EVENTFLOW_PORT"), "{error}");
        drop(listener);
        check_port(Ipv4Addr::LOCALHOST, port, "the gateway").unwrap();
    }
}
