//! Services and network policies, put together from their parts. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{ServicePort, ServiceSpec},
        networking::v1::{NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

/// A Service of the pods with these labels: one port, which they have by the same name.
pub fn service(pods: BTreeMap<String, String>, port: &str, number: i32) -> ServiceSpec {
    let port = ServicePort {
        name: Some(port.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(port.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: Some(pods),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    }
}

/// Everything with these labels.
pub fn matching(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}

/// Pods of the bench's own namespace.
pub fn pods_of(selector: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

/// Every pod of some namespaces.
pub fn namespaces(selector: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

/// Lets some in, to these ports or to all.
pub fn allow_from(from: Vec<NetworkPolicyPeer>, ports: Option<Vec<NetworkPolicyPort>>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: Some(from), ports }
}

/// Ports of one protocol.
pub fn ports(protocol: &str, numbers: &[i32]) -> Vec<NetworkPolicyPort> {
    let of = |port: &i32| NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(*port)),
        end_port: None,
    };
    numbers.iter().map(of).collect()
}
