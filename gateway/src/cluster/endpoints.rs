//! Where functions answer: from the EndpointSlices of their Services to the table of pods. An address that is ready
//! is used; where none is, those that end and still serve are, since a roll-out must leave no gap.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use eventflow_api::names::FUNCTION_PREFIX;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use crate::forward::pods::Table;

/// Label that names the Service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

/// One address of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    at: SocketAddr,
    ready: bool,
}

/// Addresses by the slice that holds them.
type Slices = BTreeMap<String, Vec<Address>>;

/// The addresses of every slice, by namespace and function.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Mutex<HashMap<(String, String), Slices>>);

impl Endpoints {
    /// Takes a slice over into the table.
    pub(super) fn changed(&self, slice: &EndpointSlice, table: &Table) {
        self.put(slice, addresses(slice), table);
    }

    /// Takes a slice out of the table.
    pub(super) fn gone(&self, slice: &EndpointSlice, table: &Table) {
        self.put(slice, Vec::new(), table);
    }

    fn put(&self, slice: &EndpointSlice, addresses: Vec<Address>, table: &Table) {
        let Some(function) = slice.labels().get(SERVICE).and_then(|name| name.strip_prefix(FUNCTION_PREFIX)) else {
            return;
        };
        let key = (slice.namespace().unwrap_or_default(), function.to_owned());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slices = all.entry(key.clone()).or_default();
        match addresses.is_empty() {
            true => drop(slices.remove(&slice.name_any())),
            false => drop(slices.insert(slice.name_any(), addresses)),
        }
        table.set(&key.0, &key.1, &used(slices));
        if slices.is_empty() {
            all.remove(&key);
        }
    }
}

/// What the watch cache need not hold of a slice.
pub(super) fn trim(slice: &mut EndpointSlice) {
    slice.metadata.managed_fields = None;
    slice.metadata.annotations = None;
    slice.metadata.owner_references = None;
}

/// The addresses to use.
fn used(slices: &Slices) -> Vec<SocketAddr> {
    let all = || slices.values().flatten();
    let any_ready = all().any(|address| address.ready);
    let mut used: Vec<SocketAddr> =
        all().filter(|address| address.ready || !any_ready).map(|address| address.at).collect();
    used.sort_unstable();
    used.dedup();
    used
}

/// The addresses of a slice that serve.
fn addresses(slice: &EndpointSlice) -> Vec<Address> {
    let ports = slice.ports.iter().flatten();
    let port = ports.filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP")).find_map(|port| port.port);
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    slice.endpoints.iter().filter_map(|endpoint| address(endpoint, port)).collect()
}

fn address(endpoint: &Endpoint, port: u16) -> Option<Address> {
    let conditions = endpoint.conditions.as_ref();
    // What is not said is to be taken as ready, by the API's own words.
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    (ready || serving).then_some(Address { at: SocketAddr::new(ip, port), ready })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn slice(name: &str, service: &str, endpoints: &Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "tenant-a", "labels": {SERVICE: service}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080, "protocol": "TCP"}],
        }))
        .unwrap()
    }

    fn endpoint(address: &str, ready: bool, serving: bool) -> Value {
        json!({"addresses": [address], "conditions": {"ready": ready, "serving": serving, "terminating": !ready}})
    }

    fn at(table: &Table, function: &str) -> Vec<SocketAddr> {
        table.get("tenant-a", function).map_or_else(Vec::new, |pods| pods.addresses())
    }

    #[test]
    fn ready_addresses_are_used_and_ending_ones_for_want_of_them() {
        let (endpoints, table) = (Endpoints::default(), Table::default());
        let both =
            [endpoint("10.0.0.1", true, true), endpoint("10.0.0.2", false, true), endpoint("10.0.0.3", false, false)];
        endpoints.changed(&slice("s1", "fn-hello", &json!(both)), &table);
        assert_eq!(at(&table, "hello"), ["10.0.0.1:8080".parse().unwrap()]);
        endpoints.changed(&slice("s1", "fn-hello", &json!(both[1..])), &table);
        assert_eq!(at(&table, "hello"), ["10.0.0.2:8080".parse().unwrap()]);
        endpoints.changed(&slice("s2", "fn-hello", &json!([{"addresses": ["10.0.0.4"]}])), &table);
        assert_eq!(at(&table, "hello"), ["10.0.0.4:8080".parse().unwrap()]);
        endpoints.gone(&slice("s2", "fn-hello", &json!([])), &table);
        endpoints.gone(&slice("s1", "fn-hello", &json!([])), &table);
        assert!(at(&table, "hello").is_empty() && endpoints.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_functions_is_left_out() {
        let (endpoints, table) = (Endpoints::default(), Table::default());
        endpoints.changed(&slice("s", "hello", &json!([endpoint("10.0.0.1", true, true)])), &table);
        endpoints.changed(&slice("s", "fn-odd", &json!([endpoint("no-address", true, true)])), &table);
        assert!(at(&table, "hello").is_empty() && at(&table, "odd").is_empty());
    }
}
