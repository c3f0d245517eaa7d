//! The NetworkPolicy of the bench's pods, if the bench enables it.

use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicySpec};

use super::redis;
use crate::{
    controllers::bench::model::Input,
    domain::{
        labels,
        network::{allow_from, matching, namespaces, pods_of, ports},
        object::Desired,
        typed::entry,
    },
};

/// Default namespace of the ingress controller.
const INGRESS_NAMESPACE: &str = "ingress-nginx";
/// Port of MariaDB and of PostgreSQL.
const DATABASE_PORTS: [i32; 2] = [3306, 5432];

/// The policy. Ingress: from the ingress controller to nginx, between the bench's pods, and from KEDA to Redis. Egress: to the
/// bench's pods, DNS and database servers. The bench can add rules.
pub(super) fn policy(input: &Input) -> Option<Desired> {
    let config = input.bench.spec.network_policy.clone().unwrap_or_default();
    if !config.enabled.unwrap_or(false) {
        return None;
    }
    let pods = matching(labels::pods(&input.name()));
    let own = vec![pods_of(pods.clone())];
    let named = input.config.ingress_controller_namespace.as_deref().unwrap_or(INGRESS_NAMESPACE);
    let controller = config.ingress_namespace_selector.unwrap_or_else(|| matching(entry(redis::NAMESPACE_NAME, named)));
    let databases = config.database_namespace_selector.unwrap_or_default();
    let mut incoming = vec![
        allow_from(vec![namespaces(controller)], Some(ports("TCP", &[NGINX_PORT]))),
        allow_from(own.clone(), None),
    ];
    if input.capabilities.keda {
        incoming.push(allow_from(vec![redis::keda(input)], Some(ports("TCP", &[redis::PORT]))));
    }
    let names = [ports("UDP", &[53]), ports("TCP", &[53])].concat();
    let mut outgoing = vec![
        NetworkPolicyEgressRule { to: Some(own), ports: None },
        NetworkPolicyEgressRule { to: None, ports: Some(names) },
        NetworkPolicyEgressRule { to: Some(vec![namespaces(databases)]), ports: Some(ports("TCP", &DATABASE_PORTS)) },
    ];
    incoming.extend(config.ingress);
    outgoing.extend(config.egress);
    let spec = NetworkPolicySpec {
        pod_selector: Some(pods),
        policy_types: Some(["Ingress", "Egress"].map(str::to_owned).into()),
        ingress: Some(incoming),
        egress: Some(outgoing),
    };
    Some(input.object("pods", "network-policy", spec).into())
}

/// Port of the websocket server.
pub(super) const SOCKETIO_PORT: i32 = 9000;

/// Port of nginx, the backend of routes.
pub(in crate::controllers) const NGINX_PORT: i32 = 8080;
