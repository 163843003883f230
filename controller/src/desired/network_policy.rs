//! Whom a tenant's functions may talk to, and who may talk to them: nobody but the gateway comes in; DNS and
//! what the tier allows goes out; the platform's own addresses are out of reach whatever the tier says.

use eventflow_api::labels;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Surroundings, tenant_meta, text_map};
use crate::cidr::Cidr;
use crate::validate::{Egress, ValidTenant};

/// Label that the API server puts on every namespace: its own name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Where the cluster's DNS runs.
const DNS_NAMESPACE: &str = "kube-system";

/// The tenant's network policy.
#[must_use]
pub fn desired(tenant: &ValidTenant, surroundings: &Surroundings) -> NetworkPolicy {
    let gateways = surroundings.gateways.iter().map(|cidr| block_peer(*cidr, &[]));
    let ingress = NetworkPolicyIngressRule {
        from: Some(std::iter::once(namespace_peer(labels::PLATFORM, "true")).chain(gateways).collect()),
        ports: None,
    };
    let dns = NetworkPolicyEgressRule {
        to: Some(vec![namespace_peer(NAMESPACE_NAME, DNS_NAMESPACE)]),
        ports: Some(vec![port_53("UDP"), port_53("TCP")]),
    };
    let allowed = reachable(&tenant.egress, &surroundings.protected)
        .into_iter()
        .map(|egress| NetworkPolicyEgressRule { to: Some(vec![block_peer(egress.cidr, &egress.except)]), ports: None });
    NetworkPolicy {
        metadata: tenant_meta(tenant, labels::TENANT_NETWORK),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![ingress]),
            egress: Some(std::iter::once(dns).chain(allowed).collect()),
        }),
    }
}

/// The rules with every protected address taken out: a rule inside a protected block or an exception of its own goes, a protected block
/// inside a rule becomes an exception of it. Exceptions within others are left out.
#[must_use]
pub fn reachable(rules: &[Egress], protected: &[Cidr]) -> Vec<Egress> {
    let closed = |rule: &Egress| rule.except.iter().chain(protected).any(|closed| closed.contains(&rule.cidr));
    let open = rules.iter().filter(|rule| !closed(rule));
    let mut reachable = Vec::new();
    for rule in open {
        let mut except: Vec<Cidr> =
            rule.except.iter().chain(protected).copied().filter(|e| rule.cidr.contains(e)).collect();
        except.sort_unstable();
        except.dedup();
        let all = except.clone();
        except.retain(|e| !all.iter().any(|other| other != e && other.contains(e)));
        reachable.push(Egress { cidr: rule.cidr, except });
    }
    reachable
}

fn namespace_peer(key: &str, value: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some(text_map([(key, value)])),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn block_peer(cidr: Cidr, except: &[Cidr]) -> NetworkPolicyPeer {
    let except: Vec<String> = except.iter().map(Cidr::to_string).collect();
    NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.to_string(), except: (!except.is_empty()).then_some(except) }),
        ..NetworkPolicyPeer::default()
    }
}

fn port_53(protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(53)),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn cidrs(texts: &[&str]) -> Vec<Cidr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn rule(cidr: &str, except: &[&str]) -> Egress {
        Egress { cidr: cidr.parse().unwrap(), except: cidrs(except) }
    }

    #[test]
    fn protected_blocks_become_exceptions() {
        let protected = cidrs(&["169.254.0.0/16", "10.96.0.1/32", "fd00:ec2::254"]);
        let rules = [rule("0.0.0.0/0", &["10.0.0.0/8"]), rule("::/0", &[])];
        let expected = [rule("0.0.0.0/0", &["10.0.0.0/8", "169.254.0.0/16"]), rule("::/0", &["fd00:ec2::254"])];
        assert_eq!(reachable(&rules, &protected), expected);
    }

    #[test]
    fn a_rule_inside_a_protected_block_goes() {
        let protected = cidrs(&["169.254.0.0/16"]);
        let rules = [rule("169.254.169.254", &[]), rule("169.254.0.0/16", &[]), rule("8.8.8.8", &[])];
        assert_eq!(reachable(&rules, &protected), [rule("8.8.8.8", &[])]);
    }

    #[test]
    fn an_exception_outside_its_rule_is_left_out() {
        assert_eq!(reachable(&[rule("10.0.0.0/8", &["11.0.0.0/8"])], &[]), [rule("10.0.0.0/8", &[])]);
    }

    #[test]
    fn an_exception_as_large_as_its_rule_or_larger_closes_it() {
        assert_eq!(reachable(&[rule("10.0.0.0/8", &["0.0.0.0/0"])], &[]), []);
        assert_eq!(reachable(&[rule("10.0.0.0/8", &["10.0.0.0/8"])], &[]), []);
    }

    proptest! {
        #[test]
        fn no_protected_address_is_ever_reachable(
            rules in prop::collection::vec((any::<u32>(), 0u8..=32, prop::collection::vec((any::<u32>(), 0u8..=32), 0..3)), 0..4),
            protected in prop::collection::vec((any::<u32>(), 0u8..=32), 0..4),
            probe: u32,
        ) {
            let cidr = |(a, p): (u32, u8)| -> Cidr { format!("{}/{p}", IpAddr::V4(a.into())).parse().unwrap() };
            let protected: Vec<Cidr> = protected.into_iter().map(cidr).collect();
            let rules: Vec<Egress> = rules.into_iter()
                .map(|(a, p, except)| Egress { cidr: cidr((a, p)), except: except.into_iter().map(cidr).collect() })
                .collect();
            let probe = Cidr::single(IpAddr::V4(probe.into()));
            let inside = |blocks: &[Cidr]| blocks.iter().any(|b| b.contains(&probe));
            let open = |rules: &[Egress]| rules.iter().any(|r| r.cidr.contains(&probe) && !inside(&r.except));
            let after = reachable(&rules, &protected);
            prop_assert_eq!(open(&after), open(&rules) && !inside(&protected));
        }
    }
}
