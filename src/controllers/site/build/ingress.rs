//! The Ingress of a site: its host leads to the bench's nginx.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Input, ingress_name};
use crate::{
    controllers::bench::build::NGINX_PORT,
    domain::{
        key::Key,
        names::child,
        object::{Desired, Kind},
    },
};

/// The Ingress.
pub fn ingress(input: &Input) -> Desired {
    let spec = &input.site.spec;
    let config = spec.ingress.clone().unwrap_or_default();
    let host = &input.valid.host;
    let mut annotations: BTreeMap<String, String> =
        [("nginx.ingress.kubernetes.io/proxy-body-size".to_owned(), "100m".to_owned())].into();
    annotations.extend(config.annotations);
    let service = json!({"name": child(&spec.bench_ref.name, "nginx"), "port": {"number": NGINX_PORT}});
    let mut ingress = json!({"rules": [{"host": host, "http": {"paths": [
        {"path": "/", "pathType": "Prefix", "backend": {"service": service}},
    ]}}]});
    if let Some(class) = config.class_name.as_ref().or(spec.ingress_class_name.as_ref()) {
        ingress["ingressClassName"] = json!(class);
    }
    if let Some(tls) = spec.tls.as_ref().filter(|tls| tls.enabled) {
        let secret = tls.secret_name.clone().unwrap_or_else(|| child(&input.name(), "tls"));
        ingress["tls"] = json!([{"hosts": [host], "secretName": secret}]);
        if let Some(issuer) = &tls.issuer {
            annotations.insert("cert-manager.io/cluster-issuer".to_owned(), issuer.clone());
        }
    }
    let mut metadata = input.owned_metadata();
    metadata["annotations"] = json!(annotations);
    let key = Key::new(input.key("").namespace, ingress_name(&input.name()));
    Desired::untyped(Kind::Ingress, key, metadata, &ingress)
}
