//! The Service of a function that serves HTTP: port 80 of `fn-{name}` is the function's port.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{function_meta, function_selector};
use crate::validate::ValidFunction;

/// The Service, if the function has a port. Every field that the API server would fill in is written out, so
/// that what exists can be compared with what is wanted.
#[must_use]
pub fn desired(function: &ValidFunction) -> Option<Service> {
    let port = function.spec.port?;
    Some(Service {
        metadata: function_meta(function),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(function_selector(function)),
            session_affinity: Some("None".to_owned()),
            internal_traffic_policy: Some("Cluster".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: 80,
                target_port: Some(IntOrString::Int(i32::from(port))),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}
