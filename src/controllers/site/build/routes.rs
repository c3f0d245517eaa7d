//! What leads the site's hosts to the bench's nginx: an Ingress, an HTTPRoute, or OpenShift's Routes.

use std::collections::BTreeMap;

use frappe_crds::site::WildcardPolicy;
use serde_json::{Value, json};

use crate::{
    controllers::{
        bench::build::NGINX_PORT,
        site::{model::Input, place::Place},
    },
    domain::{
        key::Key,
        names::{child, hash_hex},
        object::{Desired, Kind},
    },
};

/// Hex digits of the hash of a host in the name of its Route.
const HOST_HASH_DIGITS: usize = 8;

/// The Ingress.
pub fn ingress(input: &Input) -> Desired {
    let spec = &input.site.spec;
    let config = spec.ingress.clone().unwrap_or_default();
    let hosts: Vec<&String> = input.valid.hosts.all().collect();
    let mut annotations: BTreeMap<String, String> =
        [("nginx.ingress.kubernetes.io/proxy-body-size".to_owned(), "100m".to_owned())].into();
    annotations.extend(config.annotations);
    let service = json!({"name": nginx(input), "port": {"number": NGINX_PORT}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": {"service": service}}]);
    let rules: Vec<Value> = hosts.iter().map(|host| json!({"host": host, "http": {"paths": paths}})).collect();
    let mut ingress = json!({"rules": rules});
    if let Some(class) = config.class_name.as_ref().or(spec.ingress_class_name.as_ref()) {
        ingress["ingressClassName"] = json!(class);
    }
    if let Some(tls) = spec.tls.as_ref().filter(|tls| tls.enabled) {
        let place = &input.valid.place;
        // A name of another namespace's would be taken for one of the bench's.
        let named = tls.secret_name.as_ref().filter(|_| tls.issuer.is_none() || !place.is_foreign());
        let secret = named.map_or_else(|| child(&place.stem, "tls"), |name| place.mounted(name));
        ingress["tls"] = json!([{"hosts": hosts, "secretName": secret}]);
        if let Some(issuer) = &tls.issuer {
            annotations.insert("cert-manager.io/cluster-issuer".to_owned(), issuer.clone());
        }
    }
    object(input, Kind::Ingress, input.key("ingress"), &annotations, &ingress)
}

/// The Gateway API's HTTPRoute. TLS is the Gateway's.
pub fn http_route(input: &Input) -> Desired {
    let config = input.site.spec.http_route.clone().unwrap_or_default();
    let spec = json!({
        "parentRefs": config.parent_refs,
        "hostnames": input.valid.hosts.all().collect::<Vec<_>>(),
        "rules": [{"backendRefs": [{"name": nginx(input), "port": NGINX_PORT}]}],
    });
    object(input, Kind::HttpRoute, input.key("route"), &config.annotations, &spec)
}

/// OpenShift's Route of one host.
pub fn route(input: &Input, host: &str) -> Desired {
    let config = input.site.spec.route_config.clone().unwrap_or_default();
    let wildcard = match config.wildcard_policy.unwrap_or_default() {
        WildcardPolicy::None => "None",
        WildcardPolicy::Subdomain => "Subdomain",
    };
    let spec = json!({
        "host": host,
        "to": {"kind": "Service", "name": nginx(input), "weight": 100},
        "port": {"targetPort": "http"},
        "tls": {"termination": config.tls_termination.unwrap_or_default(), "insecureEdgeTerminationPolicy": "Redirect"},
        "wildcardPolicy": wildcard,
    });
    let first = *host == input.valid.hosts.primary;
    let key = route_key(&input.valid.place, (!first).then_some(host));
    object(input, Kind::Route, key, &config.annotations, &spec)
}

/// The Route of a further host, or of the first.
pub fn route_key(place: &Place, further_host: Option<&str>) -> Key {
    further_host
        .map_or_else(|| place.key("route"), |host| place.key(&format!("route-{}", hash_hex(host, HOST_HASH_DIGITS))))
}

fn nginx(input: &Input) -> String {
    child(&input.site.spec.bench_ref.name, "nginx")
}

fn object(input: &Input, kind: Kind, key: Key, annotations: &BTreeMap<String, String>, spec: &Value) -> Desired {
    let mut metadata = input.owned_metadata();
    metadata["annotations"] = json!(annotations);
    Desired::untyped(kind, key, metadata, spec)
}
