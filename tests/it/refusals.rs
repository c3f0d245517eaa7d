//! What a user sees of an error: condition, reason and Event.

use std::time::Duration;

use frappe_crds::site::SitePhase;
use frappe_loadtest::{audit, process::NAMESPACE};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};

use crate::support::{World, ground, site};

/// Prints `kubectl describe` of an object, whose conditions and Events must contain the reason.
async fn described(world: &World, namespace: &str, object: &str, reason: &str) {
    let name = object.split_once('/').map_or(object, |it| it.1);
    let events: Api<Event> = Api::namespaced(world.client.clone(), namespace);
    let told = || async {
        let list = events.list(&ListParams::default()).await.ok()?;
        let about = |it: &Event| it.regarding.as_ref().and_then(|to| to.name.as_deref()) == Some(name);
        list.items.iter().any(|it| about(it) && it.reason.as_deref() == Some(reason)).then_some(())
    };
    world.until(&format!("an Event {reason} about {object}"), 60, told).await;
    let text = world.kubectl(&["describe", object, "-n", namespace]);
    let shown: String = text
        .split_once("Status:")
        .map_or(text.as_str(), |it| it.1)
        .lines()
        .filter(|line| !line.contains("Last Transition Time") && !line.contains("Observed Generation"))
        .collect::<Vec<_>>()
        .join("\n");
    println!("--- kubectl describe {object} -n {namespace}\n{shown}\n");
    assert!(text.contains(reason), "{text}");
}

/// R-8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_reported_by_conditions_and_events() {
    let world = World::start("refuse").await;
    world.with_bench("wrong").await;
    world.cluster.apply(&site("wrong", "failing-init")).unwrap();
    bad_config_value(&world).await;
    missing_bench(&world).await;
    missing_secret(&world).await;
    taken_host(&world).await;
    refused_specs(&world).await;
    refused_backup(&world).await;
    failing_init(&world).await;
    namesake(&world).await;
    deleted_namespace(&world).await;
}

/// A user's Service that has the name of a bench's Service is neither overwritten nor removed.
async fn namesake(world: &World) {
    world.cluster.apply(&ground("namesake").replace("name: bench,", "name: other,")).unwrap();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: bench-nginx, namespace: namesake}\n\
                   spec: {selector: {mine: 'true'}, ports: [{name: mine, port: 80}]}\n";
    world.cluster.apply(service).unwrap();
    let bench = "apiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {name: bench, namespace: namesake}\n\
                 spec: {frappeVersion: \"15\"}\n";
    world.cluster.apply(bench).unwrap();
    described(world, "namesake", "frappebench/bench", "WriteRejected").await;
    let message =
        world.kubectl(&["get", "fb", "bench", "-n", "namesake", "-o", "jsonpath={.status.conditions[0].message}"]);
    assert!(
        message.contains("an object of this name exists and was not created for this object: rename or remove it"),
        "{message}"
    );
    let selector =
        world.kubectl(&["get", "service", "bench-nginx", "-n", "namesake", "-o", "jsonpath={.spec.selector}"]);
    assert_eq!(selector, r#"{"mine":"true"}"#);
    world.kubectl(&["delete", "service", "bench-nginx", "-n", "namesake"]);
    let benches: Api<frappe_crds::FrappeBench> = Api::namespaced(world.client.clone(), "namesake");
    let ready = || async {
        let bench = benches.get("bench").await.ok()?;
        (bench.status?.phase == frappe_crds::bench::BenchPhase::Ready).then_some(())
    };
    world.until("the bench is Ready once the other Service is deleted", 60, ready).await;
}

/// A namespace with a bench and a site can be deleted, and the MariaDB operator drops the database.
async fn deleted_namespace(world: &World) {
    world.with_bench("going").await;
    world.cluster.apply(&site("going", "shop")).unwrap();
    world.wait_for_site_phase("going", "shop", SitePhase::Ready).await;
    world.kubectl(&["delete", "namespace", "going", "--wait=false"]);
    let gone = || async { (!world.cluster.kubectl(&["get", "namespace", "going"], "").ok()?.success).then_some(()) };
    world.until("the namespace is deleted", 180, gone).await;
    println!("a namespace with a bench and a site was deleted");
}

async fn bad_config_value(world: &World) {
    let map = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: frappe-operator-config, namespace: {NAMESPACE}}}\n\
             data: {{maxConcurrentSiteReconciles: \"{value}\"}}\n"
        )
    };
    let limit =
        |number: u32| format!("controller_runtime_max_concurrent_reconciles{{controller=\"frappesite\"}} {number}\n");
    let shows = async |text: String| {
        let found = || async { world.operator.http("/metrics").await.ok()?.contains(&text).then_some(()) };
        world.until(&text, 10, found).await;
    };
    shows(limit(10)).await;
    world.cluster.apply(&map("25")).unwrap();
    shows(limit(25)).await;
    world.cluster.apply(&map("plenty")).unwrap();
    described(world, NAMESPACE, "configmap/frappe-operator-config", "InvalidValue").await;
    let metrics = world.operator.http("/metrics").await.unwrap();
    assert!(metrics.contains("frappe_operator_config_bad_values 1"), "{metrics}");
    assert!(metrics.contains(&limit(25)), "the last valid value stays in effect");
    world.cluster.apply(&map("25")).unwrap();
    let good = || async {
        world.operator.http("/metrics").await.ok()?.contains("frappe_operator_config_bad_values 0").then_some(())
    };
    world.until("the value is valid again", 10, good).await;
}

async fn missing_bench(world: &World) {
    let other = site("wrong", "lonely").replace("{name: bench}", "{name: nowhere}");
    world.cluster.apply(&other).unwrap();
    let message = world.wait_for_site_reason("wrong", "lonely", "BenchNotFound").await;
    assert!(message.contains("FrappeBench nowhere does not exist"), "{message}");
    described(world, "wrong", "frappesite/lonely", "BenchNotFound").await;
    let bench = "apiVersion: vyogo.tech/v1alpha1\nkind: FrappeBench\nmetadata: {name: nowhere, namespace: wrong}\n\
                 spec: {frappeVersion: \"15\"}\n";
    world.cluster.apply(bench).unwrap();
    world.wait_for_site_phase("wrong", "lonely", SitePhase::Ready).await;
}

async fn missing_secret(world: &World) {
    let secret_site = format!("{}  adminPasswordSecretRef: {{name: my-admin}}\n", site("wrong", "keyless"));
    world.cluster.apply(&secret_site).unwrap();
    let message = world.wait_for_site_reason("wrong", "keyless", "AdminPasswordSecretMissing").await;
    assert!(message.contains("Secret my-admin does not exist: create it with the key password"), "{message}");
    described(world, "wrong", "frappesite/keyless", "AdminPasswordSecretMissing").await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: my-admin, namespace: wrong}\nstringData: {password: chosen-by-me}\n";
    world.cluster.apply(secret).unwrap();
    world.wait_for_site_phase("wrong", "keyless", SitePhase::Ready).await;
    let made = world.cluster.kubectl(&["get", "secret", "keyless-admin-password", "-n", "wrong"], "").unwrap();
    assert!(!made.success, "a password was generated although the user set one");
    world.kubectl(&["delete", "frappesite", "keyless", "-n", "wrong"]);
    world.kubectl(&["get", "secret", "my-admin", "-n", "wrong"]);
}

async fn taken_host(world: &World) {
    world.cluster.apply(&site("wrong", "first")).unwrap();
    world.wait_for_site_phase("wrong", "first", SitePhase::Ready).await;
    let thief = site("wrong", "second").replace("second.wrong.example.com", "first.wrong.example.com");
    world.cluster.apply(&thief).unwrap();
    let message = world.wait_for_site_reason("wrong", "second", "HostClaimed").await;
    assert!(message.contains("host first.wrong.example.com is already used by FrappeSite wrong/first"), "{message}");
    described(world, "wrong", "frappesite/second", "HostClaimed").await;
    let none = world.cluster.kubectl(&["get", "secret", "second-db-password", "-n", "wrong"], "").unwrap();
    assert!(!none.success, "an object was created for a site without a host");
    world.kubectl(&["delete", "frappesite", "first", "-n", "wrong"]);
    world.wait_for_site_phase("wrong", "second", SitePhase::Ready).await;
}

/// Invalid specs and references to missing objects are reported with a reason, and nothing is created.
async fn refused_specs(world: &World) {
    let table = [
        ("  dbConfig: {provider: postgres, connectionSecretRef: {name: a}}\n", "ConnectionSecretMissing"),
        ("  siteConfig: {db_password: x}\n", "SiteConfigRefused"),
        ("  siteConfigSecretRefs: {mail_password: {name: none, key: password}}\n", "SiteConfigSecretMissing"),
        ("  adminPasswordSecretRef: {name: a, namespace: kube-system}\n", "SecretNamespaceRefused"),
        ("  apps: [hrms]\n", "AppNotOnBench"),
        ("  dbConfig: {mariadbRef: {name: none}}\n", "DatabaseServerNotFound"),
        ("  ingress: {annotations: {nginx.ingress.kubernetes.io/server-snippet: evil}}\n", "AnnotationRefused"),
    ];
    for (number, (spec, reason)) in table.iter().enumerate() {
        let name = format!("refused-{number}");
        world.cluster.apply(&format!("{}{spec}", site("wrong", &name))).unwrap();
        let message = world.wait_for_site_reason("wrong", &name, reason).await;
        println!("{reason}: {message}");
        let listed =
            world.kubectl(&["get", "secrets,jobs,ingresses,databases.k8s.mariadb.com", "-n", "wrong", "-o", "name"]);
        assert!(!listed.contains(&name), "{name} left {listed}");
    }
    let foreign = site("wrong", "foreign").replace("{name: bench}", "{name: bench, namespace: elsewhere}");
    world.cluster.apply(&foreign).unwrap();
    println!("BenchNotPermitted: {}", world.wait_for_site_reason("wrong", "foreign", "BenchNotPermitted").await);
}

/// A write for a backup that the API server rejects is reported on the SiteBackup: the site stays Ready, and its operation ends
/// with the SiteBackup.
async fn refused_backup(world: &World) {
    let policy = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: no-backups}\n\
                  spec:\n  matchConstraints: {resourceRules: [{apiGroups: [batch], apiVersions: [v1], operations: [CREATE], resources: [jobs]}]}\n\
                  \x20 validations: [{expression: \"!object.metadata.name.contains('-backup-')\", message: no backups here}]\n\
                  ---\napiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {name: no-backups}\n\
                  spec: {policyName: no-backups, validationActions: [Deny]}\n";
    world.cluster.apply(policy).unwrap();
    let probe = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a-backup-b, namespace: wrong}\nspec: {template: {spec: \
                 {restartPolicy: Never, containers: [{name: a, image: a}]}}}\n";
    let in_force = || async {
        let answer = world.cluster.kubectl(&["create", "--dry-run=server", "-f", "-"], probe).ok()?;
        (!answer.success).then_some(())
    };
    world.until("the policy is enforced", 60, in_force).await;
    let once = "apiVersion: vyogo.tech/v1alpha1\nkind: SiteBackup\nmetadata: {name: once, namespace: wrong}\n\
                spec: {siteRef: {name: second}, storage: {s3: {bucket: backups, region: us-east-1}}}\n";
    world.cluster.apply(once).unwrap();
    described(world, "wrong", "sitebackup/once", "WriteRejected").await;
    let message =
        world.kubectl(&["get", "sitebackup", "once", "-n", "wrong", "-o", "jsonpath={.status.conditions[0].message}"]);
    assert!(message.contains("no backups here"), "{message}");
    let site = world.sites("wrong").get("second").await.unwrap().status.unwrap();
    assert_eq!(site.phase, SitePhase::Ready, "{:?}", site.conditions);
    world.kubectl(&["delete", "sitebackup", "once", "-n", "wrong"]);
    let free = || async { world.sites("wrong").get("second").await.ok()?.status?.backup.is_none().then_some(()) };
    world.until("no operation is recorded", 60, free).await;
    world.kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "no-backups"]);
}

/// Three attempts, then Failed with the runner's message; the annotation starts the operation again.
async fn failing_init(world: &World) {
    let site = world.wait_for_site_phase("wrong", "failing-init", SitePhase::Failed).await;
    let operation = site.status.unwrap().operation.unwrap();
    assert_eq!((operation.attempt, operation.first_attempt), (3, 1));
    let message = world.wait_for_site_reason("wrong", "failing-init", "InitFailed").await;
    assert!(
        message.contains("Job failing-init-init-3 failed: step new-site: stand-in: the database refused the import"),
        "{message}"
    );
    described(world, "wrong", "frappesite/failing-init", "InitFailed").await;
    // Events of earlier attempts may still be sent.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = Timestamp::now();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let made: Vec<_> = audit::requests(&world.cluster.logs, begun).unwrap();
    let made: Vec<_> = made.iter().filter(|it| it.name.starts_with("failing-init") && it.verb != "watch").collect();
    assert!(made.is_empty(), "requests of a site that has failed permanently: {made:?}");
    world.kubectl(&["annotate", "frappesite", "failing-init", "-n", "wrong", "frappe.vyogo.tech/retry=1"]);
    let again = || async {
        let operation = world.sites("wrong").get("failing-init").await.ok()?.status?.operation?;
        (operation.attempt == 4 && operation.first_attempt == 4).then_some(())
    };
    world.until("the annotation starts the operation again", 60, again).await;
}
