//! Routes of the site's hosts to the bench's nginx: an Ingress, an HTTPRoute, or OpenShift Routes.

use std::collections::BTreeMap;

use frappe_crds::site::WildcardPolicy;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressTLS,
    ServiceBackendPort,
};

use crate::{
    controllers::{
        bench::build::NGINX_PORT,
        site::{model::Input, place::Place},
    },
    domain::{
        foreign::{BackendReference, HttpRouteRule, HttpRouteSpec, RoutePort, RouteSpec, RouteTarget, RouteTls},
        key::Key,
        names::{child, hash_hex},
        object::Desired,
        typed::Spec,
    },
};

/// Hex digits of the hash of a host in the name of its Route.
const HOST_HASH_DIGITS: usize = 8;

/// Default maximum size of a request's body in the Ingress: more than the bench's nginx lets pass by default.
const BODY_SIZE: &str = "100m";
/// Annotation of an OpenShift Route with the longest time of a request.
const ROUTE_TIMEOUT: &str = "haproxy.router.openshift.io/timeout";

/// The Ingress.
pub fn ingress(input: &Input) -> Desired {
    let spec = &input.site.spec;
    let config = spec.ingress.clone().unwrap_or_default();
    let hosts: Vec<String> = input.valid.hosts.all().cloned().collect();
    let limits = &input.valid.limits;
    let nginx_ingress = |name: &str, value: String| (format!("nginx.ingress.kubernetes.io/{name}"), value);
    let body_size = limits.body_size.clone().unwrap_or_else(|| BODY_SIZE.to_owned());
    let mut annotations: BTreeMap<String, String> = [nginx_ingress("proxy-body-size", body_size)].into();
    let timeouts =
        |seconds: i32| ["proxy-read-timeout", "proxy-send-timeout"].map(|it| nginx_ingress(it, seconds.to_string()));
    annotations.extend(limits.seconds.into_iter().flat_map(timeouts));
    annotations.extend(config.annotations);
    let service = IngressServiceBackend {
        name: nginx(input),
        port: Some(ServiceBackendPort { number: Some(NGINX_PORT), name: None }),
    };
    let path = HTTPIngressPath {
        path: Some("/".to_owned()),
        path_type: "Prefix".to_owned(),
        backend: IngressBackend { service: Some(service), resource: None },
    };
    let http = HTTPIngressRuleValue { paths: vec![path] };
    let rules = hosts.iter().map(|host| IngressRule { host: Some(host.clone()), http: Some(http.clone()) });
    let mut ingress = IngressSpec {
        rules: Some(rules.collect()),
        ingress_class_name: config.class_name.or_else(|| spec.ingress_class_name.clone()),
        ..IngressSpec::default()
    };
    if let Some(tls) = spec.tls.as_ref().filter(|tls| tls.enabled) {
        let place = &input.valid.place;
        // A Secret of the site's namespace would be looked up in the bench's namespace.
        let named = tls.secret_name.as_ref().filter(|_| tls.issuer.is_none() || !place.is_foreign());
        let secret = named.map_or_else(|| child(&place.stem, "tls"), |name| place.mounted(name));
        ingress.tls = Some(vec![IngressTLS { hosts: Some(hosts), secret_name: Some(secret) }]);
        if let Some(issuer) = &tls.issuer {
            annotations.insert("cert-manager.io/cluster-issuer".to_owned(), issuer.clone());
        }
    }
    annotated(input, input.key("ingress"), annotations, ingress)
}

/// The Gateway API's HTTPRoute. The Gateway terminates TLS.
pub fn http_route(input: &Input) -> Desired {
    let config = input.site.spec.http_route.clone().unwrap_or_default();
    let spec = HttpRouteSpec {
        parent_refs: config.parent_refs,
        hostnames: input.valid.hosts.all().cloned().collect(),
        rules: vec![HttpRouteRule { backend_refs: vec![BackendReference { name: nginx(input), port: NGINX_PORT }] }],
    };
    annotated(input, input.key("route"), config.annotations, spec)
}

/// The OpenShift Route of one host.
pub fn route(input: &Input, host: &str) -> Desired {
    let config = input.site.spec.route_config.clone().unwrap_or_default();
    let wildcard = match config.wildcard_policy.unwrap_or_default() {
        WildcardPolicy::None => "None",
        WildcardPolicy::Subdomain => "Subdomain",
    };
    let spec = RouteSpec {
        host: host.to_owned(),
        to: RouteTarget { kind: "Service", name: nginx(input), weight: 100 },
        port: RoutePort { target_port: "http" },
        tls: RouteTls {
            termination: config.tls_termination.unwrap_or_default(),
            insecure_edge_termination_policy: "Redirect",
        },
        wildcard_policy: wildcard,
    };
    let first = *host == input.valid.hosts.primary;
    let key = route_key(&input.valid.place, (!first).then_some(host));
    let timeout = input.valid.limits.seconds.map(|it| (ROUTE_TIMEOUT.to_owned(), format!("{it}s")));
    let annotations = timeout.into_iter().chain(config.annotations).collect();
    annotated(input, key, annotations, spec)
}

/// Key of the Route of an additional host, or of the primary one.
pub fn route_key(place: &Place, further_host: Option<&str>) -> Key {
    further_host
        .map_or_else(|| place.key("route"), |host| place.key(&format!("route-{}", hash_hex(host, HOST_HASH_DIGITS))))
}

fn nginx(input: &Input) -> String {
    child(&input.site.spec.bench_ref.name, "nginx")
}

fn annotated<S: Spec>(input: &Input, key: Key, annotations: BTreeMap<String, String>, spec: S) -> Desired {
    let mut object = input.owned(key, spec);
    object.metadata.annotations = Some(annotations);
    object.into()
}
