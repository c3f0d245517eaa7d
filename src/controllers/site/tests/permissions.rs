//! Permissions of a site, and the lists that extend them.

use super::*;

/// Sets `allowedSites` of the bench, which allows sites of every namespace.
fn allow(world: &mut Observed, mut allowed: Value) {
    allowed["namespaces"] = json!({"from": "All"});
    let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
    bench.spec.allowed_sites = serde_json::from_value(allowed).expect("allowedSites");
}

fn foreign(mut spec: Value) -> Observed {
    spec["benchRef"] = json!({"name": "bench", "namespace": "platform"});
    let mut world = observed(spec);
    let server = |name: &str| {
        object(json!({"apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {},
                      "metadata": {"name": name, "namespace": "platform"}}))
    };
    world.servers = vec![server("main"), server("apart")];
    let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
    bench.spec.db_config = serde_json::from_value(json!({"mariadbRef": {"name": "main"}})).expect("a dbConfig");
    bench.spec.domain_config =
        serde_json::from_value(json!({"allowedSuffixes": ["example.com"]})).expect("a domainConfig");
    allow(&mut world, json!({}));
    world
}

fn message(plan: &Plan) -> String {
    let status = plan.status.clone().unwrap_or_default();
    condition::find(&status.conditions, "Ready").map(|it| it.message.clone()).unwrap_or_default()
}

fn edit(world: &mut Observed, change: impl Fn(&mut frappe_crds::FrappeSiteSpec)) {
    let site = Arc::make_mut(&mut world.site);
    change(&mut site.spec);
    site.metadata.generation = site.metadata.generation.map(|it| it + 1);
    look_again(world);
}

/// A new site with a setting that is not allowed is not created; with the bench's list, it is.
#[test]
fn a_list_on_the_bench_allows_what_a_site_may_not_request() {
    let dedicated = |more: Value| {
        let mut config = json!({"mode": "dedicated"});
        config.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        json!({"dbConfig": config})
    };
    let with = |more: Value| {
        let mut databases = json!({"dedicated": true});
        databases.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        json!({"databases": databases})
    };
    let table = [
        (
            json!({"siteConfig": {"extra_config": "a.b"}}),
            "SiteConfigRefused",
            json!({"siteConfigKeys": ["extra_config"]}),
        ),
        (dedicated(json!({})), "DatabaseNotAllowed", with(json!({}))),
        (dedicated(json!({"image": "evil:1"})), "DatabaseNotAllowed", with(json!({"images": ["evil:1"]}))),
        (dedicated(json!({"storageSize": "20Gi"})), "DatabaseNotAllowed", with(json!({"maxStorageSize": "20480Mi"}))),
        (
            dedicated(json!({"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "2"}}})),
            "DatabaseNotAllowed",
            with(json!({"maxResources": {"cpu": "2"}})),
        ),
        (
            json!({"dbConfig": {"mariadbRef": {"name": "apart"}}}),
            "DatabaseNotAllowed",
            json!({"databases": {"servers": ["apart"]}}),
        ),
    ];
    for (spec, reason_of_refusal, allowed) in table {
        let mut world = foreign(spec.clone());
        if spec["dbConfig"]["mode"] == "dedicated" && spec["dbConfig"].as_object().is_some_and(|it| it.len() > 1) {
            allow(&mut world, with(json!({})));
        }
        let refused = plan(&world);
        assert_eq!(reason(&refused), reason_of_refusal, "{spec}");
        assert!(refused.steps.is_empty() && refused.job.is_none(), "{spec}");
        allow(&mut world, allowed);
        converge(&mut world, "Complete");
        assert_eq!(reason(&plan(&world)), "Ready", "{spec}: {}", message(&plan(&world)));
    }
}

/// The guide's settings need no permission if site and bench share a namespace, except the image of a server.
#[test]
fn beside_its_bench_a_site_chooses_size_and_server_but_no_image() {
    for config in [
        json!({"mode": "dedicated", "storageSize": "50Ti", "resources": {"limits": {"cpu": "64"}}}),
        json!({"mode": "dedicated", "image": "docker.io/library/mariadb:10.6"}),
        json!({"mariadbRef": {"name": "mariadb", "namespace": "default"}}),
    ] {
        let mut world = observed(json!({"dbConfig": config}));
        converge(&mut world, "Complete");
        assert_eq!(reason(&plan(&world)), "Ready", "{config}");
    }
    let mut world = observed(json!({"dbConfig": {"mode": "dedicated", "image": "evil:1"}}));
    assert_eq!(reason(&plan(&world)), "DatabaseNotAllowed");
    let images = vec!["evil:1".to_owned()];
    world.config = Arc::new(crate::config::OperatorConfig { allowed_database_images: images, ..Default::default() });
    converge(&mut world, "Complete");
    assert_eq!(reason(&plan(&world)), "Ready");
    for limits in [json!({"maxStorageSize": "10Gi"}), json!({"maxResources": {"memory": "1Gi"}})] {
        let mut world = observed(
            json!({"dbConfig": {"mode": "dedicated", "storageSize": "11Gi", "resources": {"limits": {"cpu": "1"}}}}),
        );
        allow(&mut world, json!({"databases": limits}));
        assert_eq!(reason(&plan(&world)), "DatabaseNotAllowed", "{limits}: a bench's limit applies to all sites");
    }
}

/// A server of another namespace may be used if its owner allows the site's namespace; another site's dedicated server never.
#[test]
fn a_server_of_another_namespace_needs_its_owners_permission() {
    let mut world = observed(json!({"dbConfig": {"mariadbRef": {"name": "main", "namespace": "elsewhere"}}}));
    let server = |annotation: &str, labels: Value| {
        object(json!({"apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {}, "metadata": {
            "name": "main", "namespace": "elsewhere", "labels": labels,
            "annotations": {"frappe.vyogo.tech/allowed-namespaces": annotation}}}))
    };
    assert_eq!(reason(&plan(&world)), "DatabaseNotAllowed");
    let absent = message(&plan(&world));
    for (annotation, labels, expected) in [
        ("", json!({}), "DatabaseNotAllowed"),
        ("defaults, other", json!({}), "DatabaseNotAllowed"),
        ("default", json!({"frappe.vyogo.tech/site-uid": "another"}), "DatabaseNotAllowed"),
        ("other, default", json!({}), "CreatingDatabase"),
        ("*", json!({}), "CreatingDatabase"),
    ] {
        world.servers = vec![server(annotation, labels)];
        assert_eq!(reason(&plan(&world)), expected, "{annotation}");
        if expected == "DatabaseNotAllowed" {
            assert_eq!(message(&plan(&world)), absent, "the message does not reveal whether the object exists");
        }
    }
}

/// After its bench allows less, an existing site is kept as it is and reports it; an edit is not applied.
#[test]
fn an_existing_site_keeps_what_it_was_granted_and_gets_no_more() {
    let mut world =
        observed(json!({"siteConfig": {"developer_mode": 1}, "dbConfig": {"mode": "dedicated", "image": "old:1"}}));
    allow(&mut world, json!({"siteConfigKeys": ["developer_mode"], "databases": {"images": ["old:1"]}}));
    converge(&mut world, "Complete");
    assert_eq!(reason(&plan(&world)), "Ready");
    allow(&mut world, json!({}));
    let (made, _) = converge(&mut world, "Complete");
    assert!(made.iter().all(|it| it.kind != Kind::Job && it.kind != Kind::MariaDb), "nothing is changed");
    let told = plan(&world);
    assert_eq!(reason(&told), "SiteConfigRefused");
    let status = world.site.status.clone().expect("a status");
    assert_eq!(status.phase, SitePhase::Ready);
    assert!(condition::is_true(&status.conditions, "Ready"));

    edit(&mut world, |spec| drop(spec.site_config.insert("extra_config".to_owned(), json!("a.b"))));
    let refused = plan(&world);
    assert!(
        refused.job.is_none()
            && refused.steps.iter().all(|it| !matches!(it, Step::Ensure(it) if it.kind == Kind::MariaDb))
    );
    apply(&mut world, &refused, "Complete");
    assert!(is_empty(&world, &plan(&world)));
    let status = world.site.status.clone().expect("a status");
    assert!(!condition::is_true(&status.conditions, "Ready") && status.initialized);
    assert!(message(&refused).contains("the site keeps its current configuration"), "{}", message(&refused));

    edit(&mut world, |spec| {
        spec.site_config.clear();
        spec.db_config.as_mut().expect("a dbConfig").image = None;
    });
    converge(&mut world, "Complete");
    assert_eq!(reason(&plan(&world)), "Ready");
}

/// A setting that is not allowed does not prevent backups of the site.
#[test]
fn a_site_with_a_rejected_setting_is_backed_up() {
    let mut world = observed(json!({"siteConfig": {"developer_mode": 1}}));
    allow(&mut world, json!({"siteConfigKeys": ["developer_mode"]}));
    converge(&mut world, "Complete");
    allow(&mut world, json!({}));
    converge(&mut world, "Complete");
    let backup = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup",
        "metadata": {"name": "once", "namespace": "default", "uid": "backup-uid", "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": {"siteRef": {"name": "shop"}, "storage": {"persistentVolumeClaim": {"claimName": "backups"}}}});
    world.backups = vec![Arc::new(serde_json::from_value(backup).expect("a SiteBackup"))];
    let labelled = plan(&world);
    apply(&mut world, &labelled, "Running");
    let job = backup_plan(&world).job.expect("a Job");
    assert!(job.key.name.starts_with("shop-backup-"), "{}", job.key);
}

/// Hosts and routes, across namespaces and with lists of the platform.
#[test]
fn hosts_and_ways_are_of_the_lists_above_the_site() {
    let class = json!({"ingress": {"className": "internal"}});
    let issuer = json!({"tls": {"enabled": true, "issuer": "corporate"}});
    let annotated = json!({"ingress": {"annotations": {"cert-manager.io/cluster-issuer": "corporate"}}});
    let acme = json!({"ingress": {"annotations": {"kubernetes.io/tls-acme": "true"}}});
    let gateway = json!({"httpRoute": {"enabled": true, "parentRefs": [{"name": "public", "namespace": "gateways"}]}});
    let host = json!({"domain": "login.bank.example"});
    for (spec, routes, list) in [
        (&class, json!({"ingressClasses": ["internal"]}), ["allowedIngressClasses", "internal"]),
        (&issuer, json!({"issuers": ["corporate"]}), ["allowedIssuers", "corporate"]),
        (&annotated, json!({"issuers": ["corporate"]}), ["allowedIssuers", "corporate"]),
        (&acme, json!({"issuers": ["kubernetes.io/tls-acme"]}), ["allowedIssuers", "kubernetes.io/tls-acme"]),
        (&gateway, json!({"gateways": ["gateways/public"]}), ["allowedGateways", "gateways/public"]),
    ] {
        let mut world = foreign(spec.clone());
        assert_eq!(reason(&plan(&world)), "RouteNotAllowed", "{spec}");
        let configure = |world: &mut Observed, value: &str| {
            let data = [(list[0].to_owned(), value.to_owned())].into();
            world.config = Arc::new(crate::config::parse(&data, &crate::config::OperatorConfig::default()).0);
        };
        allow(&mut world, json!({"routes": routes}));
        assert_eq!(reason(&plan(&world)), "CreatingDatabase", "{spec}: by the bench");
        configure(&mut world, "others");
        assert_eq!(reason(&plan(&world)), "RouteNotAllowed", "{spec}: the platform's list comes before the bench's");
        allow(&mut world, json!({}));
        configure(&mut world, list[1]);
        assert_eq!(reason(&plan(&world)), "CreatingDatabase", "{spec}: by the platform");
        let mut local = observed(spec.clone());
        assert_eq!(reason(&plan(&local)), "CreatingDatabase", "{spec}: beside its bench");
        configure(&mut local, "others");
        assert_eq!(reason(&plan(&local)), "RouteNotAllowed", "{spec}: where the platform has a list");
    }
    assert_eq!(reason(&plan(&foreign(host.clone()))), "HostNotAllowed");
    let mut local = observed(host);
    assert_eq!(reason(&plan(&local)), "CreatingDatabase");
    let data = [("allowedDomainSuffixes".to_owned(), "default: example.com".to_owned())].into();
    local.config = Arc::new(crate::config::parse(&data, &crate::config::OperatorConfig::default()).0);
    assert_eq!(reason(&plan(&local)), "HostNotAllowed");
    let wildcard = json!({"routeConfig": {"enabled": true, "wildcardPolicy": "subdomain"}});
    let mut local = observed(wildcard);
    assert_eq!(reason(&plan(&local)), "RouteNotAllowed", "hosts without a claim");
    let bench = Arc::make_mut(local.bench.as_mut().expect("a bench"));
    bench.spec.domain_config = serde_json::from_value(json!({"allowedSuffixes": ["example.com"]})).expect("suffixes");
    assert_eq!(reason(&plan(&local)), "CreatingDatabase");
}

/// A site's name is its directory, which serves a host without an entry: a site of another namespace may only have a name that is
/// allowed as its host. An existing site keeps its name.
#[test]
fn a_sites_name_must_be_allowed_as_its_host() {
    let spec = json!({"siteName": "shop.customer.example.org", "domain": "shop.example.com"});
    let mut world = foreign(spec.clone());
    assert_eq!(reason(&plan(&world)), "HostNotAllowed");
    let mut site = (*world.site).clone();
    site.status.get_or_insert_default().initialized = true;
    world.site = Arc::new(site);
    assert_ne!(reason(&plan(&world)), "HostNotAllowed");
    assert_eq!(reason(&plan(&observed(spec))), "CreatingDatabase", "in the bench's namespace");
}

/// A Secret's annotation decides whether it is copied to another namespace; Secrets that an operator created are never read.
#[test]
fn secrets_are_copied_by_key_with_their_owners_permission_except_those_of_operators() {
    let refs = json!({"siteConfigSecretRefs": {"mail_password": {"name": "mail", "key": "password"}}});
    let secret = |metadata: Value| {
        let mut whole = json!({"name": "mail", "namespace": "default", "resourceVersion": "1"});
        whole.as_object_mut().expect("an object").extend(metadata.as_object().cloned().expect("an object"));
        object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": whole}))
    };
    let with = |base: fn(Value) -> Observed, metadata: Value| {
        let mut world = base(refs.clone());
        world.secrets.insert("mail".to_owned(), secret(metadata));
        world
    };
    let says = |namespace: &str| json!({"annotations": {"frappe.vyogo.tech/allowed-namespaces": namespace}});
    for (metadata, expected) in [
        (json!({}), "SecretCopyRefused"),
        (says("platforms"), "SecretCopyRefused"),
        (says("platform"), "CreatingDatabase"),
        (
            json!({"annotations": {"frappe.vyogo.tech/allowed-namespaces": "*"},
                "labels": {"app.kubernetes.io/managed-by": "frappe-operator"}}),
            "SecretRefused",
        ),
    ] {
        let world = with(foreign, metadata.clone());
        let next = plan(&world);
        assert_eq!(reason(&next), expected, "{metadata}");
        let copies: Vec<_> = next
            .steps
            .iter()
            .chain(&next.last)
            .filter_map(|it| if let Step::CopySecret(_, it) = it { Some(it.clone()) } else { None })
            .collect();
        assert_eq!(copies.len(), usize::from(expected == "CreatingDatabase"), "{metadata}");
        for copy in copies {
            assert_eq!(copy.body["data"], json!({"password": null}), "only the referenced key");
        }
    }
    for metadata in [
        json!({"labels": {"app.kubernetes.io/managed-by": "frappe-operator"}}),
        json!({"annotations": {"frappe.vyogo.tech/identity": "of-another"}}),
        json!({"ownerReferences": [{"apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "name": "m", "uid": "u"}]}),
    ] {
        let next = plan(&with(observed, metadata.clone()));
        assert_eq!(reason(&next), "SecretRefused", "{metadata}");
        assert!(next.steps.is_empty(), "{metadata}");
    }
    let mut world = with(observed, json!({}));
    world.root_secrets.insert("mail".to_owned());
    assert_eq!(reason(&plan(&world)), "SecretRefused", "it has the password of a server's administrator");
}

/// A Secret that a SiteBackup's storage references is copied only if its owner allows it.
#[test]
fn the_secret_of_a_storage_is_copied_only_if_its_owner_allows_it() {
    let mut world = foreign(json!({}));
    converge(&mut world, "Complete");
    let storage = json!({"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "keys"}}});
    world.backups = vec![super::backups::backup("once", json!({"storage": storage}))];
    for (namespace, wanted) in [("another", 0), ("platform", 1)] {
        let metadata = json!({"name": "keys", "namespace": "default", "resourceVersion": "1",
                              "annotations": {"frappe.vyogo.tech/allowed-namespaces": namespace}});
        let secret = object(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}));
        world.secrets.insert("keys".to_owned(), secret);
        let copies = |step: &&BackupStep| matches!(step, BackupStep::For(_, write) if matches!(**write, BackupStep::CopySecret(..)));
        assert_eq!(backup_plan(&world).prepare.iter().filter(copies).count(), wanted, "{namespace}");
    }
}

/// Objects of the bench's namespace that a SiteBackup references, and a Job without keys.
#[test]
fn volumes_and_accounts_of_backups_are_of_the_benchs_list() {
    let backup = |storage: Value| {
        let backup = json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup",
            "metadata": {"name": "once", "namespace": "default", "uid": "u"},
            "spec": {"siteRef": {"name": "shop"}, "storage": storage}});
        serde_json::from_value::<SiteBackup>(backup).expect("a SiteBackup")
    };
    let refused = |world: &Observed, storage: &Value| {
        crate::controllers::backup::storage::storage(world, &backup(storage.clone())).is_err()
    };
    let volume = json!({"persistentVolumeClaim": {"claimName": "archive"}});
    let account = json!({"s3": {"bucket": "backups"}, "serviceAccountName": "writer"});
    let keyless = json!({"s3": {"bucket": "backups"}});
    let listed = json!({"backups": {"persistentVolumeClaims": ["archive"], "serviceAccounts": ["writer"],
                                    "stagingStorageClasses": ["fast"]}});
    let others = json!({"backups": {"persistentVolumeClaims": ["other"], "serviceAccounts": ["other"]}});
    let mut tenant = foreign(json!({}));
    for storage in [&volume, &account, &keyless] {
        assert!(refused(&tenant, storage), "{storage}");
    }
    allow(&mut tenant, listed);
    assert!(!refused(&tenant, &volume) && !refused(&tenant, &account) && refused(&tenant, &keyless));
    let staged = |class: &str| {
        json!({"persistentVolumeClaim": {"claimName": "archive"},
                                       "stagingVolume": {"storageClassName": class, "size": "1Gi"}})
    };
    let default = json!({"persistentVolumeClaim": {"claimName": "archive"}, "stagingVolume": {"size": "1Gi"}});
    assert!(!refused(&tenant, &staged("fast")) && refused(&tenant, &staged("slow")) && refused(&tenant, &default));
    for keyless in [json!({"azure": {"account": "a", "container": "b"}}), json!({"gcs": {"bucket": "b"}})] {
        assert!(refused(&tenant, &keyless), "{keyless}");
    }
    let mut local = observed(json!({}));
    for storage in [&volume, &account, &keyless] {
        assert!(!refused(&local, storage), "{storage}");
    }
    assert!(!refused(&local, &staged("slow")) && !refused(&local, &default));
    local.taken_claims.insert("archive".to_owned());
    assert!(refused(&local, &volume), "a volume of a bench or a server");
    local.taken_claims.clear();
    allow(&mut local, others);
    assert!(refused(&local, &volume) && refused(&local, &account), "a list applies to all sites");
}
