//! The admission policies for references, on a real API server: a user can reference only objects that the user may read.

use std::{collections::BTreeSet, process::Command};

use frappe_crds::site::SitePhase;
use frappe_operator::parts::{Named, REFERENCES, SECRETS_MAX};
use serde_json::{Value, json};

use crate::support::{World, program};

const SPACE: &str = "named";
/// Name of every referenced object; also of a MariaDB in another namespace.
const NAME: &str = "treasure";

/// Kind of a resource, and its smallest valid spec.
fn base(plural: &str) -> (&'static str, Value) {
    match plural {
        "frappesites" => ("FrappeSite", json!({"siteName": "a.example.com", "benchRef": {"name": "bench"}})),
        "sitebackups" => ("SiteBackup", json!({"siteRef": {"name": "shop"}, "storage": {"s3": {"bucket": "backups"}}})),
        "sitejobs" => ("SiteJob", json!({"siteRef": {"name": "shop"}, "command": {"name": "doctor"}})),
        _ => ("FrappeBench", json!({"frappeVersion": "15"})),
    }
}

/// The storage of a SiteBackup in a container of Azure, with a reference.
fn azure(reference: &Value) -> Value {
    let mut azure = json!({"account": "frappe", "container": "backups"});
    json_patch::merge(&mut azure, reference);
    json!({"storage": {"s3": null, "azure": azure}})
}

/// The storage of a SiteBackup in a bucket of Google, with a reference.
fn gcs(reference: &Value) -> Value {
    let mut gcs = json!({"bucket": "backups"});
    json_patch::merge(&mut gcs, reference);
    json!({"storage": {"s3": null, "gcs": gcs}})
}

/// The change of a spec that sets a reference.
fn change(plural: &str, path: &str, name: &str) -> Value {
    match (plural, path) {
        (_, "adminPasswordSecretRef.name") => json!({"adminPasswordSecretRef": {"name": name}}),
        (_, "dbConfig.connectionSecretRef.name") => json!({"dbConfig": {"connectionSecretRef": {"name": name}}}),
        ("frappesites", "dbConfig.mariadbRef.name") => json!({"dbConfig": {"mariadbRef": {"name": name}}}),
        (_, "dbConfig.mariadbRef.name") => json!({"dbConfig": {"mariadbRef": {"name": name, "namespace": "vault"}}}),
        (_, "tls.secretName") => json!({"tls": {"enabled": true, "secretName": name}}),
        (_, "siteConfigSecretRefs.*.name") => {
            json!({"siteConfigSecretRefs": {"mail_password": {"name": name, "key": "k"}, "mail_login": {"name": name, "key": "l"}}})
        }
        (_, "storage.s3.credentialsSecretRef.name") => {
            json!({"storage": {"s3": {"credentialsSecretRef": {"name": name}}}})
        }
        (_, "storage.s3.caSecretRef.name") => json!({"storage": {"s3": {"caSecretRef": {"name": name}}}}),
        (_, "storage.azure.credentialsSecretRef.name") => azure(&json!({"credentialsSecretRef": {"name": name}})),
        (_, "storage.azure.caSecretRef.name") => azure(&json!({"caSecretRef": {"name": name}})),
        (_, "storage.gcs.credentialsSecretRef.name") => gcs(&json!({"credentialsSecretRef": {"name": name}})),
        (_, "storage.gcs.caSecretRef.name") => gcs(&json!({"caSecretRef": {"name": name}})),
        (_, "storage.encryptionKeySecretRef.name") => json!({"storage": {"encryptionKeySecretRef": {"name": name}}}),
        (_, "storage.persistentVolumeClaim.claimName") => {
            json!({"storage": {"s3": null, "persistentVolumeClaim": {"claimName": name}}})
        }
        (_, "storage.serviceAccountName") => json!({"storage": {"serviceAccountName": name}}),
        (_, "redisConfig.connectionSecretRef.name") => json!({"redisConfig": {"connectionSecretRef": {"name": name}}}),
        (_, "redisConfig.passwordSecretRef.name") => json!({"redisConfig": {"passwordSecretRef": {"name": name}}}),
        (_, "imageConfig.pullSecrets[].name") => json!({"imageConfig": {"pullSecrets": [{"name": name}]}}),
        (_, "fpmConfig.repositories[].authSecretRef.name") => {
            json!({"fpmConfig": {"repositories": [{"name": "open", "url": "https://a"},
                                                  {"name": "own", "url": "https://b", "authSecretRef": {"name": name}}]}})
        }
        (_, "script.configMapRef.name") => {
            json!({"command": null, "script": {"configMapRef": {"name": name, "key": "k"}}})
        }
        other => panic!("no row for {other:?}"),
    }
}

fn object(plural: &str, name: &str, change: &Value) -> String {
    let (kind, mut spec) = base(plural);
    json_patch::merge(&mut spec, change);
    let metadata = json!({"name": name, "namespace": SPACE});
    json!({"apiVersion": "vyogo.tech/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}).to_string()
}

/// Two roles: both write every kind of this API; one may also read the referenced objects.
fn users() -> String {
    let role = |name: &str, namespace: &str, rules: Value| {
        let subject = |kind: &str, name: &str| {
            let mut subject = json!({"kind": kind, "name": name});
            if kind == "User" {
                subject["apiGroup"] = json!("rbac.authorization.k8s.io");
            } else {
                subject["namespace"] = json!(SPACE);
            }
            subject
        };
        let metadata = json!({"name": name, "namespace": namespace});
        let mut subjects = vec![subject("User", "reader"), subject("ServiceAccount", "gitops")];
        if name == "writes" {
            subjects.push(subject("User", "siteonly"));
        }
        let api = "rbac.authorization.k8s.io/v1";
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
        let role = json!({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": rules});
        let binding = json!({"apiVersion": api, "kind": "RoleBinding", "metadata": metadata, "roleRef": reference, "subjects": subjects});
        format!("---\n{role}\n---\n{binding}\n")
    };
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let all = ["get", "list", "create", "update", "patch", "delete"];
    let writes = json!([rule(
        "vyogo.tech",
        &["frappesites", "sitebackups", "sitejobs", "sitejobs/script", "frappebenches"],
        &all
    )]);
    let reads = json!([
        rule("", &["secrets", "configmaps", "persistentvolumeclaims"], &["get"]),
        rule("", &["serviceaccounts"], &["impersonate"]),
        rule("", &["pods"], &["create"]),
    ]);
    let servers = json!([rule("k8s.mariadb.com", &["mariadbs"], &["get"])]);
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: vault}}\n---\napiVersion: v1\nkind: ServiceAccount\n\
         metadata: {{name: gitops, namespace: {SPACE}}}\n{}{}{}{}",
        role("writes", SPACE, writes),
        role("reads", SPACE, reads),
        role("reads-servers", SPACE, servers.clone()),
        role("reads-servers", "vault", servers)
    )
}

struct Users<'a>(&'a World);

impl Users<'_> {
    /// Writes as a user; fails with the API server's message.
    fn write(&self, user: &str, arguments: &[&str], text: &str) -> Result<(), String> {
        let output = self.0.cluster.kubectl(&[arguments, &["--as", user, "-n", SPACE]].concat(), text).unwrap();
        if output.success { Ok(()) } else { Err(output.errors.trim().to_owned()) }
    }

    /// Creates as a user, as a dry run; fails with the API server's message.
    fn try_create(&self, user: &str, text: &str) -> Result<(), String> {
        self.write(user, &["create", "--dry-run=server", "-f", "-"], text)
    }
}

async fn world() -> World {
    let world = World::start("admission").await;
    world.with_bench(SPACE).await;
    world.cluster.apply(&users()).unwrap();
    let printed = Command::new(program()).arg("admission-references").output().unwrap();
    world.cluster.apply(&String::from_utf8(printed.stdout).unwrap()).unwrap();
    let text = object("frappesites", "probe", &change("frappesites", "tls.secretName", NAME));
    let enforced = || async { Users(&world).try_create("siteonly", &text).is_err().then_some(()) };
    world.until("the policies are enforced", 30, enforced).await;
    world
}

/// A template names objects for pods: only who may create pods in the namespace may have one.
fn a_template_with_objects_needs_the_right_to_create_pods(users: &Users, gitops: &str) {
    let bench = |template: Value| object("frappebenches", "probe", &json!({"componentTemplates": {"jobs": template}}));
    let container = json!([{"name": "a", "image": "a"}]);
    for (template, allowed) in [
        (json!({"nodeSelector": {"a": "b"}, "env": [{"name": "A", "value": "b"}]}), true),
        (json!({"serviceAccountName": NAME}), false),
        (json!({"envFrom": [{"secretRef": {"name": NAME}}]}), false),
        (json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "a"}}}]}), false),
        (json!({"volumes": [{"name": "a", "secret": {"secretName": NAME}}]}), false),
        (json!({"initContainers": container}), false),
        (json!({"sidecars": container}), false),
    ] {
        let text = bench(template);
        let said = users.try_create("siteonly", &text);
        assert_eq!(said.is_ok(), allowed, "{text}: {said:?}");
        assert!(said.err().is_none_or(|it| it.contains("need the right to create pods")), "{text}");
        users.try_create(gitops, &text).expect("who may create pods");
    }
    let message =
        users.try_create(gitops, &object("frappebenches", "probe", &json!({"componentTemplates": {"web": {}}})));
    assert!(message.expect_err("an unknown component").contains("keys of componentTemplates are all, jobs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_references_only_readable_objects() {
    let world = world().await;
    let users = Users(&world);
    let gitops = format!("system:serviceaccount:{SPACE}:gitops");
    a_template_with_objects_needs_the_right_to_create_pods(&users, &gitops);
    for (plural, path, named, _) in REFERENCES {
        let text = object(plural, "probe", &change(plural, path, NAME));
        let message = users.try_create("siteonly", &text).expect_err(path);
        let verb = if named == Named::ServiceAccount { "impersonate" } else { "get" };
        assert!(
            message.contains(NAME) && message.contains(verb) && message.contains("must not be referenced"),
            "{path}: {message}"
        );
        println!("{plural} {path}: {}", message.rsplit(": ").next().unwrap_or_default());
        for user in ["reader", gitops.as_str()] {
            assert_eq!(users.try_create(user, &text), Ok(()), "{path} as {user}");
        }
    }
    for plural in REFERENCES.iter().map(|it| it.0).collect::<BTreeSet<_>>() {
        assert_eq!(
            users.try_create("siteonly", &object(plural, "plain", &json!({}))),
            Ok(()),
            "{plural} without references"
        );
    }
    let elsewhere = json!({"dbConfig": {"mariadbRef": {"name": NAME, "namespace": "vault"}}});
    let result = users.try_create("siteonly", &object("frappesites", "elsewhere", &elsewhere));
    assert_eq!(
        result,
        Ok(()),
        "which MariaDBs of other namespaces a site may use is decided by the lists of the bench and the platform"
    );
    only_new_references_are_checked(&world, &users);
    fields_beside_a_reference_are_checked(&world, &users);
    references_are_limited_by_the_cost_budget(&users);
    a_site_created_by_gitops_becomes_ready(&world, &users, &gitops).await;
}

/// A user who may not read the objects that are already referenced can change metadata, the status and other fields.
fn only_new_references_are_checked(world: &World, users: &Users<'_>) {
    let named = json!({"adminPasswordSecretRef": {"name": NAME}, "suspend": true});
    world.cluster.apply(&object("frappesites", "kept", &named)).unwrap();
    let patch =
        |spec: Value| users.write("siteonly", &["patch", "fs", "kept", "--type", "merge", "-p", &spec.to_string()], "");
    assert_eq!(patch(json!({"metadata": {"labels": {"a": "b"}}})), Ok(()));
    assert_eq!(patch(json!({"spec": {"maintenanceMode": true}})), Ok(()));
    let other = patch(json!({"spec": {"adminPasswordSecretRef": {"name": "another"}}}));
    assert!(other.expect_err("another name").contains("the user may not get Secret another"));
    let elsewhere = patch(json!({"spec": {"siteConfigSecretRefs": {"mail_password": {"name": NAME, "key": "k"}}}}));
    assert!(elsewhere.is_err(), "the same name in another field is another reference");
    assert_eq!(patch(json!({"spec": {"adminPasswordSecretRef": null}})), Ok(()), "a removed reference");
}

/// A referenced password is not sent to another server, and no other key of its Secret is read.
fn fields_beside_a_reference_are_checked(world: &World, users: &Users<'_>) {
    let account = json!({"provider": "postgres", "host": "db.example.com", "connectionSecretRef": {"name": NAME}});
    let entries = json!({"mail_password": {"name": NAME, "key": "k"}});
    let spec = json!({"dbConfig": account, "siteConfigSecretRefs": entries, "suspend": true});
    world.cluster.apply(&object("frappesites", "beside", &spec)).unwrap();
    let patch = |user: &str, spec: Value| {
        users.write(user, &["patch", "fs", "beside", "--type", "merge", "-p", &json!({"spec": spec}).to_string()], "")
    };
    for spec in [
        json!({"dbConfig": {"host": "attacker.example"}}),
        json!({"siteConfigSecretRefs": {"mail_password": {"key": "other"}}}),
        json!({"siteConfigSecretRefs": {"mail_login": {"name": NAME, "key": "third"}}}),
        // A key of the same Secret in an entry that every visitor reads.
        json!({"siteConfigSecretRefs": {"email_sender_name": {"name": NAME, "key": "third"}}}),
        // The password is sent to another mail server.
        json!({"siteConfig": {"mail_server": "attacker.example"}}),
        json!({"siteConfig": {"use_tls": 0}}),
    ] {
        let message = patch("siteonly", spec.clone()).expect_err("a field beside a reference");
        assert!(message.contains("the user may not get Secret treasure"), "{spec}: {message}");
        assert_eq!(patch("reader", spec.clone()), Ok(()), "{spec}");
    }
    assert_eq!(patch("siteonly", json!({"maintenanceMode": true, "siteConfig": {"mute_emails": 1}})), Ok(()));
}

/// The checks of the largest allowed write are within the API server's cost budget; one more Secret is rejected with a message.
fn references_are_limited_by_the_cost_budget(users: &Users<'_>) {
    let entries = |number: usize| {
        let entries: serde_json::Map<String, Value> = (0..number)
            .map(|it| (format!("entry_{it}"), json!({"name": format!("secret-{it}"), "key": "k"})))
            .collect();
        let mut spec = change("frappesites", "dbConfig.mariadbRef.name", NAME);
        json_patch::merge(&mut spec, &json!({"siteConfigSecretRefs": entries}));
        object("frappesites", "many", &spec)
    };
    assert_eq!(users.try_create("reader", &entries(SECRETS_MAX)), Ok(()));
    let message = users.try_create("reader", &entries(SECRETS_MAX + 1)).expect_err("too many");
    assert!(message.contains("at most 20 references to Secrets"), "{message}");
    let message = users.try_create("siteonly", &entries(SECRETS_MAX)).expect_err("not readable");
    assert!(message.contains("the user may not get Secret secret-"), "{message}");
    let pulls: Vec<Value> = (0..16).map(|it| json!({"name": format!("pull-{it}")})).collect();
    let bench = json!({"imageConfig": {"pullSecrets": pulls}, "redisConfig": {"passwordSecretRef": {"name": "redis"}}});
    assert_eq!(users.try_create("reader", &object("frappebenches", "many", &bench)), Ok(()));
}

/// A ServiceAccount with the permissions creates a site, and the operator's own writes are admitted.
async fn a_site_created_by_gitops_becomes_ready(world: &World, users: &Users<'_>, gitops: &str) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "namespace": SPACE}, "stringData": {"password": "p"}});
    world.cluster.apply(&secret.to_string()).unwrap();
    let text = object(
        "frappesites",
        "brought",
        &json!({"adminPasswordSecretRef": {"name": NAME}, "siteName": "brought.example.com"}),
    );
    assert_eq!(users.write(gitops, &["apply", "-f", "-"], &text), Ok(()));
    world.wait_for_site_phase(SPACE, "brought", SitePhase::Ready).await;
}
