//! Routes of hosts to a site.

use super::*;
use crate::domain::capabilities::Capabilities;

fn edit(world: &mut Observed, spec: Value) {
    let mut whole = serde_json::to_value(&world.site.spec).expect("JSON");
    whole.as_object_mut().expect("an object").extend(spec.as_object().cloned().expect("an object"));
    let site = Arc::make_mut(&mut world.site);
    site.spec = serde_json::from_value(whole).expect("a spec");
    site.metadata.generation = site.metadata.generation.map(|it| it + 1);
    look_again(world);
}

fn held(world: &Observed) -> Vec<String> {
    let mut hosts: Vec<String> =
        world.claims.iter().filter_map(|it| it.object.as_ref()).map(|it| it.name_any()).collect();
    hosts.extend(world.former_claims.iter().map(|it| it.name_any()));
    hosts.sort();
    hosts
}

#[test]
fn a_site_claims_its_hosts_and_releases_former_ones() {
    let mut world = observed(json!({"domain": "shop.com", "additionalDomains": ["www.shop.com"]}));
    converge(&mut world, "Complete");
    let status = world.site.status.clone().expect("a status");
    assert_eq!(status.site_url.as_deref(), Some("http://shop.com"));
    assert_eq!(
        (status.resolved_domain.as_deref(), status.domain_source.as_deref()),
        (Some("shop.com"), Some("explicit"))
    );
    assert_eq!(held(&world), ["shop.com", "www.shop.com"]);
    let rules = world.routes.ingress.as_ref().expect("an Ingress").data["spec"]["rules"].clone();
    assert_eq!((rules[0]["host"].clone(), rules[1]["host"].clone()), (json!("shop.com"), json!("www.shop.com")));

    edit(&mut world, json!({"domain": "shop.org", "additionalDomains": []}));
    let (made, _) = converge(&mut world, "Complete");
    assert_eq!(held(&world), ["shop.org"]);
    assert_eq!(world.site.status.as_ref().and_then(|it| it.site_url.clone()).as_deref(), Some("http://shop.org"));
    let job = made.iter().find(|it| it.kind == Kind::Job).expect("a Job that writes the hosts for nginx");
    assert_eq!(job.key.name, "shop-apply");
    assert!(job.body.to_string().contains(r#"\"hosts\":[\"shop.org\"]"#));
}

#[test]
fn a_host_of_another_site_stops_the_creation_before_anything_is_created() {
    let mut world = observed(json!({"additionalDomains": ["taken.com"]}));
    world.claims[1].holder = Holder::Other(crate::domain::key::Key::new("tenant", "other"));
    let next = plan(&world);
    assert_eq!(reason(&next), "HostClaimed");
    assert!(next.steps.is_empty());
    let text = &next.notices.first().expect("a notice").note;
    assert!(text.contains("taken.com") && !text.contains("tenant"), "{text}");
}

/// A request that the bench's web servers allow is not rejected before it reaches them; a site's own annotation has precedence.
#[test]
fn routes_let_pass_what_the_bench_allows() {
    let mut world = observed(json!({"routeConfig": {"enabled": true, "host": "shop.apps.com"}}));
    let set = |world: &mut Observed, web: Value| {
        let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
        bench.spec.web = serde_json::from_value(web).expect("settings");
    };
    let nginx = |world: &Observed| {
        let ingress = world.routes.ingress.as_ref().expect("an Ingress").annotations().clone();
        ["proxy-body-size", "proxy-read-timeout", "proxy-send-timeout"]
            .map(|it| ingress.get(&format!("nginx.ingress.kubernetes.io/{it}")).cloned().unwrap_or_default())
    };
    converge(&mut world, "Complete");
    assert_eq!(nginx(&world), ["100m", "", ""]);
    set(&mut world, json!({"maxBodySize": "500m", "requestTimeoutSeconds": 900}));
    converge(&mut world, "Complete");
    assert_eq!(nginx(&world), ["500m", "900", "900"]);
    edit(&mut world, json!({"ingress": {"annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "1g"}}}));
    converge(&mut world, "Complete");
    assert_eq!(nginx(&world), ["1g", "900", "900"]);
    world.capabilities = Capabilities { routes: true, ..Capabilities::default() };
    converge(&mut world, "Complete");
    let route = world.routes.routes.values().next().expect("a Route").annotations().clone();
    assert_eq!(route["haproxy.router.openshift.io/timeout"], "900s");
    set(&mut world, json!({}));
    converge(&mut world, "Complete");
    assert!(
        !world.routes.routes.values().any(|it| it.annotations().contains_key("haproxy.router.openshift.io/timeout"))
    );
}

#[test]
fn one_kind_of_route_is_used_depending_on_spec_and_cluster() {
    let spec = json!({
        "routeConfig": {"enabled": true, "host": "shop.apps.com", "annotations": {"haproxy.router.openshift.io/timeout": "300s"}},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
        "ingress": {"enabled": true},
    });
    let mut world = observed(spec);
    let routed = |world: &mut Observed, capabilities: Capabilities| {
        world.capabilities = capabilities;
        converge(world, "Complete");
        let status = world.site.status.clone().expect("a status");
        let ready = condition::find(&status.conditions, "RouteReady").expect("a condition").message.clone();
        (status.route.expect("a route"), ready, status.site_url.expect("a URL"))
    };
    let all = Capabilities { routes: true, gateway: true, ..Capabilities::default() };
    let (route, message, url) = routed(&mut world, all);
    assert_eq!((route.as_str(), url.as_str()), ("Route", "https://shop.example.com"));
    assert!(message.contains("httpRoute is not used") && message.contains("ingress is not used"), "{message}");
    assert_eq!(world.routes.routes.len(), 2, "one for each host");
    for route in world.routes.routes.values() {
        insta::assert_yaml_snapshot!(route.name_any(), route.data["spec"]);
    }

    let (route, message, _) = routed(&mut world, Capabilities { gateway: true, ..Capabilities::default() });
    assert_eq!(route, "HTTPRoute");
    assert!(message.contains("routeConfig is not used: the cluster has no Route API"), "{message}");
    assert!(world.routes.routes.is_empty());
    insta::assert_yaml_snapshot!(
        "HTTPRoute-shop-route",
        world.routes.http_route.as_ref().expect("an HTTPRoute").data["spec"]
    );

    let (route, _, url) = routed(&mut world, Capabilities::default());
    assert_eq!((route.as_str(), url.as_str()), ("Ingress", "http://shop.example.com"));
    assert!(world.routes.http_route.is_none() && world.routes.ingress.is_some());
}

#[test]
fn a_rejected_or_impossible_route_is_not_reported_as_ready() {
    let gateway = Capabilities { gateway: true, ..Capabilities::default() };
    let spec =
        json!({"httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}]}, "ingress": {"enabled": false}});
    let mut world = observed(spec);
    world.capabilities = gateway;
    converge(&mut world, "Complete");
    let mut route = DynamicObject::clone(world.routes.http_route.as_ref().expect("an HTTPRoute"));
    route.data["status"] = json!({"parents": [{"conditions": [
        {"type": "Accepted", "status": "False", "reason": "NotAllowedByListeners", "message": "namespace"},
    ]}]});
    world.routes.http_route = Some(Arc::new(route));
    let next = plan(&world);
    assert_eq!(reason(&next), "RouteRefused");
    assert!(next.notices.first().expect("a notice").note.contains("NotAllowedByListeners"));
    world.capabilities = Capabilities::default();
    assert_eq!(reason(&plan(&world)), "RouteApiMissing");
}

/// Tenants are isolated: another namespace's bench must allow the site, and no objects collide.
#[test]
fn a_bench_in_another_namespace_must_allow_the_site() {
    let mut world = observed(
        json!({"benchRef": {"name": "bench", "namespace": "platform"}, "dbConfig": {"mariadbRef": {"name": "mariadb", "namespace": "default"}}}),
    );
    let allow = |world: &mut Observed, allowed: Value| {
        let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
        bench.spec.allowed_sites = serde_json::from_value(json!({"namespaces": allowed})).expect("allowedSites");
        bench.spec.domain_config =
            serde_json::from_value(json!({"allowedSuffixes": ["example.com"]})).expect("suffixes");
    };
    let namespace = |labels: Value| {
        Some(object(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": labels}}),
        ))
    };
    let selector = json!({"from": "Selector", "selector": {"matchLabels": {"tier": "gold"}}});
    for (allowed, labels, expected) in [
        (json!({}), json!({}), "BenchNotPermitted"),
        (json!({"from": "Same"}), json!({}), "BenchNotPermitted"),
        (selector.clone(), json!({"tier": "silver"}), "BenchNotPermitted"),
        (selector, json!({"tier": "gold"}), "CreatingDatabase"),
        (json!({"from": "All"}), json!({}), "CreatingDatabase"),
    ] {
        allow(&mut world, allowed.clone());
        world.namespace = namespace(labels);
        assert_eq!(reason(&plan(&world)), expected, "{allowed}");
    }
    let (made, _) = converge(&mut world, "Complete");
    for desired in &made {
        let in_site = desired.key.name == "shop-admin-password";
        let expected = if desired.kind == Kind::Domain {
            ""
        } else if in_site {
            "default"
        } else {
            "platform"
        };
        assert_eq!(desired.key.namespace, expected, "{:?} {}", desired.kind, desired.key);
        assert!(desired.body["metadata"].get("ownerReferences").is_none(), "an owner cannot be in another namespace");
        assert!(
            in_site || desired.kind == Kind::Domain || desired.key.name.starts_with("shop-x5be479caf0c09a3b1ddc133b-"),
            "{}",
            desired.key
        );
    }
    assert_eq!(world.copies.len(), 1, "the Administrator's password, in the namespace of the Job");
    being_deleted(&mut world);
    for _ in 0..8 {
        let next = plan(&world);
        apply(&mut world, &next, "Complete");
    }
    assert!(world.site.finalizers().is_empty() && world.copies.is_empty() && world.jobs.is_empty());
}
