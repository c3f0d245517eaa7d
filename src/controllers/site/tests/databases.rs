//! Choice of a site's database.

use Kind::{Database, Domain, Grant, Ingress, MariaDb, Secret, User};

use super::*;

fn request(made: &[Desired]) -> Value {
    let job = made.iter().find(|it| it.kind == Kind::Job).expect("a Job");
    let text = job.body["spec"]["template"]["spec"]["containers"][0]["args"][1].as_str().expect("a request");
    serde_json::from_str(text).expect("JSON")
}

fn kinds(made: &[Desired]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = made.iter().map(|it| it.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn an_existing_database_needs_no_mariadb_operator() {
    for (config, engine) in [
        (json!({"provider": "external", "host": "db.example.com", "port": "3307"}), "mariadb"),
        (json!({"provider": "postgres", "host": "db.example.com", "port": "3307"}), "postgres"),
        (json!({"provider": "mariadb", "mode": "shared", "host": "db.example.com", "port": 3307}), "mariadb"),
    ] {
        let mut config = config;
        config["connectionSecretRef"] = json!({"name": "account", "namespace": "default"});
        let mut world = observed(json!({"dbConfig": config}));
        world.mariadb_installed = false;
        world.servers.clear();
        assert_eq!(reason(&plan(&world)), "ConnectionSecretMissing");
        user_secret(&mut world, "account");
        let (made, _) = converge(&mut world, "Complete");
        assert_eq!(kinds(&made), [Kind::Domain, Kind::Job, Kind::Ingress, Kind::Secret]);
        let jobs = made.iter().filter(|it| it.kind == Kind::Job).map(|it| it.key.name.as_str()).collect::<Vec<_>>();
        assert!(jobs.iter().all(|it| *it == "shop-init"), "created with all objects: {jobs:?}");
        let expected = json!({"type": engine, "own": false, "host": "db.example.com", "port": 3307});
        assert_eq!(request(&made)["database"], expected);
        let status = world.site.status.clone().expect("a status");
        assert_eq!((status.phase, status.database_name), (SitePhase::Ready, None));
        assert_eq!(status.installed_apps, ["frappe", "erpnext"]);
        assert_eq!(status.database_credentials_secret.as_deref(), Some("account"));
        let secret = made.iter().find(|it| it.key.name == "shop-db-password").expect("an identity");
        assert!(
            secret.body["stringData"].get("password").is_none()
                && secret.body["stringData"]["encryption-key"].is_string()
        );
        let job = made.iter().find(|it| it.kind == Kind::Job).expect("a Job").body.to_string();
        assert!(job.contains(r#""path":"connection/password""#));
        for desired in &made {
            assert_eq!(lint(desired), Vec::<String>::new());
        }
    }
}

/// The account in a bench's `dbConfig` is only for the bench's server: a site with another host or port needs its own account.
#[test]
fn the_password_of_a_bench_is_not_used_for_another_server() {
    for (config, expected) in [
        (json!({}), "Ready"),
        (json!({"host": "attacker.example"}), "ConnectionSecretMissing"),
        (json!({"port": 3307}), "ConnectionSecretMissing"),
    ] {
        let mut world = observed(json!({"dbConfig": config}));
        let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
        let shared =
            json!({"provider": "postgres", "host": "db.example.com", "connectionSecretRef": {"name": "account"}});
        bench.spec.db_config = serde_json::from_value(shared).expect("a dbConfig");
        user_secret(&mut world, "account");
        converge(&mut world, "Complete");
        assert_eq!(reason(&plan(&world)), expected, "{config}");
    }
}

/// The dedicated server and the site's database are created, and deleted with the site; no pod gets the administrator's password.
#[test]
fn a_dedicated_server_is_created_and_deleted_with_its_site() {
    let mut world = observed(
        json!({"dbConfig": {"mode": "dedicated", "storageSize": "100Gi", "resources": {"limits": {"cpu": "2"}}}}),
    );
    let (made, _) = converge(&mut world, "Complete");
    let server = made.iter().find(|it| it.kind == Kind::MariaDb).expect("a MariaDB");
    insta::assert_yaml_snapshot!("MariaDb-shop-mariadb", server.body);
    assert_eq!(request(&made)["database"]["host"], "shop-mariadb.default.svc");
    let user = made.iter().find(|it| it.kind == Kind::User).expect("a User");
    assert_eq!(user.body["spec"]["mariaDbRef"], json!({"name": "shop-mariadb", "namespace": "default"}));
    let jobs: String = made.iter().filter(|it| it.kind == Kind::Job).map(|it| it.body.to_string()).collect();
    assert!(!jobs.contains("mariadb-root"));
    being_deleted(&mut world);
    let mut order = Vec::new();
    for _ in 0..8 {
        let next = plan(&world);
        order
            .extend(next.steps.iter().filter_map(|it| if let Step::Delete(kind, _) = it { Some(*kind) } else { None }));
        apply(&mut world, &next, "Complete");
    }
    assert_eq!(order, [Ingress, Grant, User, Database, MariaDb, Secret, Secret, Secret, Domain]);
    assert!(world.site.finalizers().is_empty() && world.servers.len() == 1, "the shared server is not changed");
}

/// A server kept from a deleted site of the same name contains that site's data.
#[test]
fn the_server_of_a_deleted_site_of_the_same_name_is_kept() {
    let mut world = observed(json!({"dbConfig": {"mode": "dedicated"}}));
    converge(&mut world, "Complete");
    let own = world.servers.iter_mut().find(|it| it.name_any() == "shop-mariadb").expect("a MariaDB");
    Arc::make_mut(own).labels_mut().insert("frappe.vyogo.tech/site-uid".to_owned(), "former".to_owned());
    being_deleted(&mut world);
    for _ in 0..8 {
        let next = plan(&world);
        apply(&mut world, &next, "Complete");
    }
    assert!(world.site.finalizers().is_empty(), "{:?}", plan(&world).steps);
    assert!(world.servers.iter().any(|it| it.name_any() == "shop-mariadb"));
}

/// R-17: a default of the bench applies only to sites that are created later: an edit moves no data.
#[test]
fn decisions_are_kept_when_the_benchs_default_changes() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    for config in [
        json!({"mode": "dedicated"}),
        json!({"mariadbRef": {"name": "other"}}),
        json!({"provider": "postgres", "host": "a", "connectionSecretRef": {"name": "a"}}),
    ] {
        let bench = Arc::make_mut(world.bench.as_mut().expect("a bench"));
        bench.spec.db_config = Some(serde_json::from_value(config.clone()).expect("a dbConfig"));
        assert!(is_empty(&world, &plan(&world)), "{config}: {:?}", plan(&world).steps);
    }
    let mut fresh = observed(json!({}));
    Arc::make_mut(fresh.bench.as_mut().expect("a bench")).spec.db_config =
        Some(serde_json::from_value(json!({"mode": "dedicated"})).expect("a dbConfig"));
    let (made, _) = converge(&mut fresh, "Complete");
    assert!(made.iter().any(|it| it.kind == Kind::MariaDb), "a new site uses the default");
}

#[test]
fn the_operators_default_is_used_after_site_and_bench_and_before_the_only_server() {
    let default = Some(crate::domain::key::Key::new("databases", "main"));
    let config = Arc::new(crate::config::OperatorConfig { default_mariadb: default, ..Default::default() });
    let mut world = Observed { config, ..observed(json!({})) };
    assert_eq!(reason(&plan(&world)), "DatabaseServerNotFound");
    let main = json!({
        "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {"replicas": 3, "galera": null},
        "metadata": {"name": "main", "namespace": "databases"},
    });
    world.servers.push(object(main));
    let (made, _) = converge(&mut world, "Complete");
    assert_eq!(request(&made)["database"]["host"], "main-primary.databases.svc");
    let named = observed(json!({"dbConfig": {"mariadbRef": {"name": "mariadb"}}}));
    let (made, _) = converge(&mut Observed { config: world.config.clone(), ..named }, "Complete");
    assert_eq!(request(&made)["database"]["host"], "mariadb.default.svc");
}

#[test]
fn a_dedicated_server_is_not_used_by_another_site() {
    let mut world = observed(json!({}));
    let own = json!({
        "apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {},
        "metadata": {"name": "other-mariadb", "namespace": "default", "labels": {"frappe.vyogo.tech/site-uid": "other"}},
    });
    world.servers.push(object(own));
    let (made, _) = converge(&mut world, "Complete");
    assert_eq!(request(&made)["database"]["host"], "mariadb.default.svc");
}

/// Lost passwords are replaced only on request; the encryption key is not, because it is in the site's configuration.
#[test]
fn a_lost_secret_is_replaced_on_request_and_the_configuration_applied() {
    let mut world = observed(json!({}));
    converge(&mut world, "Complete");
    let before = world.site.status.clone().expect("a status");
    world.credentials = None;
    let admin = world.admin_secret_name();
    world.secrets.remove(&admin);
    assert_eq!(reason(&plan(&world)), "SecretLost");
    Arc::make_mut(&mut world.site).annotations_mut().insert("frappe.vyogo.tech/replace-secrets".into(), "1".into());
    let next = plan(&world);
    let created: Vec<_> =
        next.steps.iter().filter_map(|it| if let Step::Create(it) = it { Some(it.clone()) } else { None }).collect();
    assert_eq!(
        created.iter().map(|it| it.key.name.as_str()).collect::<Vec<_>>(),
        ["shop-db-password", "shop-admin-password"]
    );
    assert!(created[0].body["stringData"].get("encryption-key").is_none());
    let expected = before.identity.clone().expect("an identity");
    assert_eq!(created[0].body["stringData"]["identity"], json!(expected));
    let (made, _) = converge(&mut world, "Complete");
    let job = made.iter().find(|it| it.kind == Kind::Job).expect("a Job that applies the new passwords");
    assert!(job.body.to_string().contains(r#"\"set_admin_password\":true"#));
    world.credentials = None;
    assert_eq!(reason(&plan(&world)), "SecretLost", "one annotation replaces once");
}
