//! Permissions for hosts and routes. Pure.

use frappe_crds::{
    FrappeBench,
    bench::AllowedRoutes,
    site::{GatewayReference, WildcardPolicy},
};

use crate::controllers::site::{
    annotations::{is_allowed, is_harmless_value},
    model::{Observed, Part, Refusal},
    place::Place,
    reason::Reason,
};

/// The first refusal of hosts and routes.
pub(super) fn route(observed: &Observed, bench: &FrappeBench) -> Option<Refusal> {
    annotation(observed)
        .or_else(|| host(observed, bench))
        .or_else(|| wildcard(observed, bench))
        .or_else(|| way(observed, bench))
}

fn refusal(reason: Reason, message: String) -> Refusal {
    Refusal { part: Part::Route, reason, message }
}

/// Annotations of all routes in the spec, with their field.
fn annotations(observed: &Observed) -> Vec<(&'static str, &String, &String)> {
    let spec = &observed.site.spec;
    let all = [
        ("ingress", spec.ingress.as_ref().map(|it| &it.annotations)),
        ("httpRoute", spec.http_route.as_ref().map(|it| &it.annotations)),
        ("routeConfig", spec.route_config.as_ref().map(|it| &it.annotations)),
    ];
    let each = all.into_iter().filter_map(|(field, annotations)| Some((field, annotations?)));
    each.flat_map(|(field, annotations)| annotations.iter().map(move |(name, value)| (field, name, value))).collect()
}

fn annotation(observed: &Observed) -> Option<Refusal> {
    let more = &observed.config.allowed_route_annotations;
    annotations(observed).into_iter().find_map(|(field, name, value)| {
        let message = if !is_allowed(name, more) {
            format!(
                "{field}.annotations: {name} is not allowed: remove it, or have the platform add it to \
                 allowedRouteAnnotations in the operator's ConfigMap"
            )
        } else if !is_harmless_value(name, value) {
            format!(
                "{field}.annotations: the value of {name} is too long or has characters that are not allowed: use \
                 letters, digits, spaces and . , : / _ -"
            )
        } else {
            return None;
        };
        Some(refusal(Reason::AnnotationRefused, message))
    })
}

/// Whether a host is one of these suffixes or a subdomain of one.
fn is_under(host: &str, suffixes: &[String]) -> bool {
    let mut suffixes = suffixes.iter().map(|suffix| suffix.trim_start_matches('.'));
    suffixes.any(|suffix| host == suffix || host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')))
}

fn suffixes_of(bench: &FrappeBench) -> Vec<String> {
    bench.spec.domain_config.clone().unwrap_or_default().allowed_suffixes
}

/// A host must be in the platform's list for the site's namespace, if there is one, and in the bench's, if it has one. A site of
/// another namespace needs one of the lists, unless the host has the suffix of the bench or the operator.
fn host(observed: &Observed, bench: &FrappeBench) -> Option<Refusal> {
    let place = Place::of(&observed.site);
    let of_bench = suffixes_of(bench);
    let of_platform = observed.config.suffixes_of(&place.own);
    let hosts = &observed.hosts;
    let is_made = |host: &String| *host == hosts.primary && hosts.source.contains("-suffix");
    let is_platforms = |host: &String| *host == hosts.primary && hosts.source == "default-suffix";
    // The site's directory, which nginx uses for hosts without an entry, until the site is created.
    let made = observed.site.status.as_ref().is_some_and(|status| status.initialized);
    let name = &observed.site.spec.site_name;
    let name = Some(name).filter(|it| place.is_foreign() && !made && it.contains('.'));
    hosts.all().chain(name).find_map(|host| {
        let within_bench = is_under(host, &of_bench);
        let within_platform = of_platform.as_ref().map(|list| is_under(host, list) || is_platforms(host));
        let message = if within_platform == Some(false) {
            format!(
                "host {host} is not under one of the suffixes of namespace {}: choose another, or have the platform add it to \
                 allowedDomainSuffixes of the operator's ConfigMap",
                place.own
            )
        } else if !of_bench.is_empty() && !within_bench {
            format!("host {host} is not under one of the bench's allowedSuffixes ({})", of_bench.join(", "))
        } else if place.is_foreign() && !within_bench && within_platform != Some(true) && !is_made(host) {
            format!(
                "host {host} is not allowed for a site of another namespace: have the bench's owner add its domain to \
                 domainConfig.allowedSuffixes, or the platform to allowedDomainSuffixes of the operator's ConfigMap"
            )
        } else {
            return None;
        };
        Some(refusal(Reason::HostNotAllowed, message))
    })
}

/// A Route with wildcardPolicy subdomain serves hosts that no site has claimed: all of them must be allowed.
fn wildcard(observed: &Observed, bench: &FrappeBench) -> Option<Refusal> {
    let route = observed.site.spec.route_config.as_ref().filter(|it| it.enabled)?;
    if route.wildcard_policy != Some(WildcardPolicy::Subdomain) {
        return None;
    }
    let own = Place::of(&observed.site).own;
    let lists = [observed.config.suffixes_of(&own), Some(suffixes_of(bench)).filter(|it| !it.is_empty())];
    let parent = |host: &String| host.split_once('.').map_or_else(|| host.clone(), |it| it.1.to_owned());
    let listed = |domain: &String| {
        let mut lists = lists.iter().flatten().peekable();
        lists.peek().is_some() && lists.all(|list| is_under(domain, list))
    };
    let domain = observed.hosts.all().map(parent).find(|it| !listed(it))?;
    let message = format!(
        "routeConfig.wildcardPolicy: subdomain serves every host below {domain}, which is not allowed for this site: \
         remove it, or have {domain} added to domainConfig.allowedSuffixes of the bench"
    );
    Some(refusal(Reason::RouteNotAllowed, message))
}

/// The issuer in an annotation. An annotation that selects another kind of issuer, or cert-manager's default issuer, counts as
/// an issuer with the annotation's name.
fn issuer(name: &str, value: &str) -> Option<String> {
    match name {
        "cert-manager.io/cluster-issuer" | "cert-manager.io/issuer" => Some(value.to_owned()),
        "cert-manager.io/issuer-group" | "cert-manager.io/issuer-kind" | "kubernetes.io/tls-acme" => {
            Some(name.to_owned())
        }
        _ => None,
    }
}

/// Ingress class, issuers and Gateways must be in the platform's list, if there is one; for a site of another namespace, in one
/// of the lists.
fn way(observed: &Observed, bench: &FrappeBench) -> Option<Refusal> {
    let spec = &observed.site.spec;
    let config = &observed.config;
    let place = Place::of(&observed.site);
    let allowed: AllowedRoutes = bench.spec.allowed_sites.clone().unwrap_or_default().routes.unwrap_or_default();
    let class = spec.ingress.as_ref().and_then(|it| it.class_name.as_ref()).or(spec.ingress_class_name.as_ref());
    let tls = spec.tls.as_ref().filter(|tls| tls.enabled).and_then(|tls| tls.issuer.as_ref());
    let issuers = annotations(observed).into_iter().filter_map(|(_, name, value)| issuer(name, value));
    let key = |it: &GatewayReference| format!("{}/{}", it.namespace.as_ref().unwrap_or(&place.namespace), it.name);
    let parents = spec.http_route.iter().filter(|it| it.enabled).flat_map(|it| &it.parent_refs);
    let classes = (
        ["IngressClass", "ingressClasses", "allowedIngressClasses"],
        &allowed.ingress_classes,
        &config.allowed_ingress_classes,
    );
    let all_issuers = (["issuer", "issuers", "allowedIssuers"], &allowed.issuers, &config.allowed_issuers);
    let gateways = (["Gateway", "gateways", "allowedGateways"], &allowed.gateways, &config.allowed_gateways);
    let mut asked: Vec<(String, _)> = class.into_iter().map(|it| (it.clone(), classes)).collect();
    asked.extend(tls.cloned().into_iter().chain(issuers).map(|it| (it, all_issuers)));
    asked.extend(parents.map(|it| (key(it), gateways)));
    asked.into_iter().find_map(|(name, ([kind, field, list], of_bench, of_platform))| {
        let within = of_platform.as_ref().map(|it| it.contains(&name));
        let refused = within == Some(false) || (place.is_foreign() && within.is_none() && !of_bench.contains(&name));
        let message = || {
            format!(
                "{kind} {name} is not allowed for this site: remove it, or have the bench's owner add it to \
                 allowedSites.routes.{field}, or the platform to {list} of the operator's ConfigMap"
            )
        };
        refused.then(|| refusal(Reason::RouteNotAllowed, message()))
    })
}
