//! The hosts of a site. Pure.

use frappe_crds::{FrappeBench, FrappeSite, FrappeSiteSpec};

use crate::config::OperatorConfig;

/// The hosts of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// The host of its URL.
    pub primary: String,
    /// Source of that host, for the status.
    pub source: &'static str,
    /// Additional hosts.
    pub additional: Vec<String>,
}

impl Hosts {
    /// Every host, the primary one first.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.primary).chain(&self.additional)
    }
}

/// The guide's order: `domain`; else siteName with the bench's suffix, the operator's, or the one that was detected;
/// else siteName. A siteName with a dot is a whole host and gets no suffix.
pub fn resolve(spec: &FrappeSiteSpec, bench: Option<&FrappeBench>, config: &OperatorConfig) -> Hosts {
    let (primary, source) = primary(spec, bench, config);
    let of_route = spec.route_config.iter().filter(|route| route.enabled).filter_map(|route| route.host.as_ref());
    let mut additional: Vec<String> = Vec::new();
    for host in of_route.chain(&spec.additional_domains) {
        if *host != primary && !additional.contains(host) {
            additional.push(host.clone());
        }
    }
    Hosts { primary, source, additional }
}

fn primary(spec: &FrappeSiteSpec, bench: Option<&FrappeBench>, config: &OperatorConfig) -> (String, &'static str) {
    if let Some(domain) = &spec.domain {
        return (domain.clone(), "explicit");
    }
    let name = &spec.site_name;
    if name.contains('.') {
        return (name.clone(), "sitename-default");
    }
    let of_bench = bench.and_then(|bench| bench.spec.domain_config.clone()).unwrap_or_default();
    let detected = bench.and_then(|bench| bench.status.as_ref()?.detected_domain_suffix.clone());
    let detected = detected.filter(|_| of_bench.auto_detect.unwrap_or(true));
    let suffixes = [
        (of_bench.suffix, "bench-suffix"),
        (config.default_domain_suffix.clone(), "default-suffix"),
        (detected, "auto-detected"),
    ];
    let found = suffixes.into_iter().find_map(|(suffix, source)| Some((suffix?, source)));
    found.map_or_else(
        || (name.clone(), "sitename-default"),
        |(suffix, source)| (format!("{name}.{}", suffix.trim_start_matches('.')), source),
    )
}

/// Whether a site may use this host, whatever its bench's settings; true for all sites that do.
pub fn may_want(site: &FrappeSite, host: &str) -> bool {
    let spec = &site.spec;
    let suffixed =
        host.strip_prefix(spec.site_name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    suffixed
        || spec.domain.as_deref() == Some(host)
        || spec.additional_domains.iter().any(|it| it == host)
        || spec.route_config.as_ref().is_some_and(|route| route.host.as_deref() == Some(host))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::needless_pass_by_value, reason = "json! makes a value for each call")]

    use serde_json::{Value, json};

    use super::*;

    fn resolved(site: Value, bench: Value, operator_suffix: Option<&str>) -> Hosts {
        let mut spec = json!({"siteName": "shop", "benchRef": {"name": "b"}});
        spec.as_object_mut().unwrap().extend(site.as_object().cloned().unwrap());
        let mut whole = json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeBench", "metadata": {"name": "b"},
            "spec": {"frappeVersion": "15"}, "status": {"detectedDomainSuffix": ".detected.com"},
        });
        whole["spec"]["domainConfig"] = bench;
        let bench = serde_json::from_value(whole).unwrap();
        let config = OperatorConfig { default_domain_suffix: operator_suffix.map(str::to_owned), ..Default::default() };
        resolve(&serde_json::from_value(spec).unwrap(), Some(&bench), &config)
    }

    #[test]
    fn the_guides_order_is_kept() {
        let domain = json!({"domain": "shop.com"});
        let bench = json!({"suffix": ".bench.com"});
        let of = |hosts: Hosts| (hosts.primary, hosts.source);
        assert_eq!(of(resolved(domain, bench.clone(), Some(".op.com"))), ("shop.com".into(), "explicit"));
        assert_eq!(of(resolved(json!({}), bench.clone(), Some(".op.com"))), ("shop.bench.com".into(), "bench-suffix"));
        assert_eq!(
            of(resolved(json!({}), json!({"suffix": "bench.com"}), None)),
            ("shop.bench.com".into(), "bench-suffix")
        );
        assert_eq!(of(resolved(json!({}), json!({}), Some(".op.com"))), ("shop.op.com".into(), "default-suffix"));
        assert_eq!(of(resolved(json!({}), json!({}), None)), ("shop.detected.com".into(), "auto-detected"));
        assert_eq!(of(resolved(json!({}), json!({"autoDetect": false}), None)), ("shop".into(), "sitename-default"));
        let whole = json!({"siteName": "shop.example.com"});
        assert_eq!(of(resolved(whole, bench, Some(".op.com"))), ("shop.example.com".into(), "sitename-default"));
    }

    #[test]
    fn additional_hosts_are_listed_once() {
        let site = json!({"siteName": "a.com", "additionalDomains": ["www.a.com", "a.com", "r.com"],
                          "routeConfig": {"enabled": true, "host": "r.com"}});
        let hosts = resolved(site, json!({}), None);
        assert_eq!(hosts.additional, ["r.com", "www.a.com"]);
        assert_eq!(hosts.all().count(), 3);
    }
}
