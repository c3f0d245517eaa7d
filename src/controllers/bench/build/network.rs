//! What may reach the bench's pods and what they may reach, where the bench asks for it.

use serde_json::{Value, json};

use super::redis;
use crate::{
    controllers::bench::model::Input,
    domain::{
        labels,
        object::{Desired, Kind},
    },
};

/// Namespace of the ingress controller where neither bench nor operator names one.
const INGRESS_NAMESPACE: &str = "ingress-nginx";
/// Port of MariaDB and of PostgreSQL.
const DATABASE_PORTS: [i32; 2] = [3306, 5432];

/// The policy: in from the ingress controller to nginx, between the bench's own pods, and from KEDA to Redis; out to the
/// bench's own pods, DNS and database servers; and what the bench adds.
pub(super) fn policy(input: &Input) -> Option<Desired> {
    let config = input.bench.spec.network_policy.clone().unwrap_or_default();
    if !config.enabled.unwrap_or(false) {
        return None;
    }
    let pods = json!({"matchLabels": labels::pods(&input.name())});
    let own = json!({"podSelector": pods});
    let ingress_namespace = input.config.ingress_controller_namespace.as_deref().unwrap_or(INGRESS_NAMESPACE);
    let controller = config
        .ingress_namespace_selector
        .map_or_else(|| json!({"matchLabels": {redis::NAMESPACE_NAME: ingress_namespace}}), |selector| json!(selector));
    let databases = config.database_namespace_selector.map_or_else(|| json!({}), |selector| json!(selector));
    let mut incoming = vec![
        json!({"from": [{"namespaceSelector": controller}], "ports": ports("TCP", &[NGINX_PORT])}),
        json!({"from": [own]}),
    ];
    if input.capabilities.keda {
        incoming.push(json!({"from": [redis::keda(input)], "ports": ports("TCP", &[redis::PORT])}));
    }
    let names = [ports("UDP", &[53]), ports("TCP", &[53])].concat();
    let mut outgoing = vec![
        json!({"to": [own]}),
        json!({"ports": names}),
        json!({"to": [{"namespaceSelector": databases}], "ports": ports("TCP", &DATABASE_PORTS)}),
    ];
    incoming.extend(config.ingress.iter().map(|rule| json!(rule)));
    outgoing.extend(config.egress.iter().map(|rule| json!(rule)));
    let spec = json!({
        "podSelector": pods,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": incoming,
        "egress": outgoing,
    });
    Some(input.object(Kind::NetworkPolicy, "pods", "network-policy", &spec))
}

fn ports(protocol: &str, numbers: &[i32]) -> Vec<Value> {
    numbers.iter().map(|port| json!({"protocol": protocol, "port": port})).collect()
}

/// Port of the websocket server.
pub(super) const SOCKETIO_PORT: i32 = 9000;

/// Port of nginx, which routes go to.
pub(in crate::controllers) const NGINX_PORT: i32 = 8080;
