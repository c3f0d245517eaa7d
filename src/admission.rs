//! ValidatingAdmissionPolicies that let users reference in benches, sites, backups and SiteJobs only what they may read themselves, and run
//! code for a site only with a right of its own. Pure.
//!
//! The operator reads referenced Secrets with its own permissions. The policies therefore ask the API server's authorizer whether
//! the user may `get` each referenced Secret, ConfigMap, MariaDB and PersistentVolumeClaim, and act as each ServiceAccount. Only new and
//! changed references are checked; metadata, statuses and other fields are not.
//! The cost limit of a policy allows about 28 authorizer checks (350,000 units each of 10,000,000). Each kind has one policy, and
//! one write may add [`SECRETS_MAX`] references to Secrets.

use serde_json::{Value, json};

/// Maximum number of new references to Secrets in one write.
pub const SECRETS_MAX: usize = 20;

/// Kind of a referenced object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A Secret of the object's namespace.
    Secret,
    /// A ConfigMap of the object's namespace.
    ConfigMap,
    /// A MariaDB, in the namespace of the reference.
    MariaDb,
    /// A PersistentVolumeClaim of the object's namespace.
    Claim,
    /// A ServiceAccount of the object's namespace.
    ServiceAccount,
}

/// A field with a reference: resource, path below `spec` (`[]` for the items of a list, `*` for the values of a map), kind of the
/// referenced object, and the field whose change is checked too: with another host, a password is sent elsewhere.
pub type Reference = (&'static str, &'static str, Named, &'static str);

/// All fields with references to objects that are read or used with the operator's permissions. A test compares them with the
/// CRDs.
#[rustfmt::skip]
pub const REFERENCES: [Reference; 21] = [
    ("frappesites", "adminPasswordSecretRef.name", Named::Secret, "adminPasswordSecretRef"),
    ("frappesites", "dbConfig.connectionSecretRef.name", Named::Secret, "dbConfig"),
    ("frappesites", "tls.secretName", Named::Secret, "tls.secretName"),
    ("frappesites", "siteConfigSecretRefs.*.name", Named::Secret, "siteConfigSecretRefs"),
    ("frappesites", "dbConfig.mariadbRef.name", Named::MariaDb, "dbConfig.mariadbRef"),
    ("sitebackups", "storage.s3.credentialsSecretRef.name", Named::Secret, "storage.s3"),
    ("sitebackups", "storage.s3.caSecretRef.name", Named::Secret, "storage.s3"),
    ("sitebackups", "storage.azure.credentialsSecretRef.name", Named::Secret, "storage.azure"),
    ("sitebackups", "storage.azure.caSecretRef.name", Named::Secret, "storage.azure"),
    ("sitebackups", "storage.gcs.credentialsSecretRef.name", Named::Secret, "storage.gcs"),
    ("sitebackups", "storage.gcs.caSecretRef.name", Named::Secret, "storage.gcs"),
    ("sitebackups", "storage.encryptionKeySecretRef.name", Named::Secret, "storage"),
    ("sitebackups", "storage.persistentVolumeClaim.claimName", Named::Claim, "storage.persistentVolumeClaim"),
    ("sitebackups", "storage.serviceAccountName", Named::ServiceAccount, "storage"),
    ("sitejobs", "script.configMapRef.name", Named::ConfigMap, "script"),
    ("frappebenches", "dbConfig.connectionSecretRef.name", Named::Secret, "dbConfig"),
    ("frappebenches", "redisConfig.connectionSecretRef.name", Named::Secret, "redisConfig.connectionSecretRef"),
    ("frappebenches", "redisConfig.passwordSecretRef.name", Named::Secret, "redisConfig.passwordSecretRef"),
    ("frappebenches", "imageConfig.pullSecrets[].name", Named::Secret, "imageConfig.pullSecrets"),
    ("frappebenches", "fpmConfig.repositories[].authSecretRef.name", Named::Secret, "fpmConfig.repositories"),
    ("frappebenches", "dbConfig.mariadbRef.name", Named::MariaDb, "dbConfig.mariadbRef"),
];

/// CEL access to an optional field.
fn optional(object: &str, path: &str) -> String {
    format!("{object}.spec.?{}", path.replace('.', ".?"))
}

/// CEL list of names that are new in a field, or whose related field changed.
fn new_names(plural: &str, path: &str, named: Named, unit: &str) -> String {
    let (now, before) = (optional("object", unit), optional("oldObject", unit));
    if let Some((_, rest)) = path.split_once("[].") {
        return format!(
            "{now}.orValue([]).filter(it, oldObject == null || !(it in {before}.orValue([]))).map(it, it.?{}.orValue(''))",
            rest.replace('.', ".?")
        );
    }
    if let Some((_, rest)) = path.split_once(".*.") {
        // Entries that name the same count once.
        let all = format!("{now}.orValue({{}})");
        return format!(
            "variables.entries.filter(k, !variables.entries.exists(j, j < k && {all}[j].{rest} == {all}[k].{rest}))\
             .map(k, {all}[k].{rest})"
        );
    }
    let mut name = format!("{}.orValue('')", optional("object", path));
    if named == Named::MariaDb {
        // Without a namespace it is one of the bench's.
        let of_site = plural == "frappesites";
        let bench =
            if of_site { "object.spec.benchRef.?namespace.orValue(request.namespace)" } else { "request.namespace" };
        let namespace = format!("{now}.?namespace.orValue({bench})");
        // Of another namespace a site has what the bench, the platform or the server's owner opens: the operator judges that.
        let here = if of_site { format!(" && {namespace} == request.namespace") } else { String::new() };
        name = format!("{}.hasValue(){here} ? {namespace} + '/' + {name} : ''", optional("object", path));
    }
    format!("(oldObject != null && {now}.orValue(null) == {before}.orValue(null) ? [] : [{name}])")
}

/// Entries of a site's configuration that decide where secret entries are sent, such as the mail server.
const DESTINATIONS: [&str; 5] = ["mail_server", "mail_port", "mail_login", "use_ssl", "use_tls"];

/// CEL list of keys of a map's new or changed entries, because a Secret in another entry is sent elsewhere; all keys if the
/// destination changed.
fn new_entries(unit: &str) -> String {
    let (now, before) = (optional("object", unit), optional("oldObject", unit));
    let entry = |object: &str, name: &str| format!("{object}.spec.?siteConfig[?'{name}'].orValue(null)");
    let moved: Vec<String> =
        DESTINATIONS.iter().map(|it| format!("{} != {}", entry("object", it), entry("oldObject", it))).collect();
    format!(
        "{now}.orValue({{}}).filter(k, oldObject == null || !(k in {before}.orValue({{}})) || \
         {before}.orValue({{}})[k] != {now}.orValue({{}})[k] || {})",
        moved.join(" || ")
    )
}

fn variables(plural: &str, named: Named) -> Vec<Value> {
    let fields = || REFERENCES.iter().filter(|it| it.0 == plural && it.2 == named);
    let maps = fields().filter(|it| it.1.contains(".*."));
    let mut variables: Vec<Value> =
        maps.map(|(_, _, _, unit)| json!({"name": "entries", "expression": new_entries(unit)})).collect();
    let lists: Vec<String> = fields().map(|(_, path, _, unit)| new_names(plural, path, named, unit)).collect();
    let expression = format!("({}).filter(it, it != '')", lists.join(" + "));
    variables.push(json!({"name": variable(named), "expression": expression}));
    variables
}

fn variable(named: Named) -> &'static str {
    match named {
        Named::Secret => "secrets",
        Named::ConfigMap => "maps",
        Named::MariaDb => "servers",
        Named::Claim => "claims",
        Named::ServiceAccount => "accounts",
    }
}

/// Whether the user may have the n-th new reference.
fn validation(named: Named, index: usize) -> Value {
    let all = format!("variables.{}", variable(named));
    let name = format!("{all}[{index}]");
    let core = |resource: &str, verb: &str| {
        format!(
            "authorizer.group('').resource('{resource}').namespace(request.namespace).name({name}).check('{verb}').allowed()"
        )
    };
    let (asked, message) = match named {
        Named::Secret => (
            core("secrets", "get"),
            format!("'the user may not get Secret ' + {name} + ', so it must not be referenced'"),
        ),
        Named::ConfigMap => (
            core("configmaps", "get"),
            format!("'the user may not get ConfigMap ' + {name} + ', so it must not be referenced'"),
        ),
        Named::Claim => (
            core("persistentvolumeclaims", "get"),
            format!("'the user may not get PersistentVolumeClaim ' + {name} + ', so it must not be referenced'"),
        ),
        Named::MariaDb => (
            format!(
                "authorizer.group('k8s.mariadb.com').resource('mariadbs').namespace({name}.split('/')[0])\
                 .name({name}.split('/')[1]).check('get').allowed()"
            ),
            format!("'the user may not get MariaDB ' + {name} + ', so it must not be referenced'"),
        ),
        Named::ServiceAccount => (
            format!(
                "({} || authorizer.group('').resource('serviceaccounts').subresource('token').namespace(request.namespace)\
                 .name({name}).check('create').allowed())",
                core("serviceaccounts", "impersonate")
            ),
            format!(
                "'the user may neither impersonate ServiceAccount ' + {name} + ' nor create tokens for it, so it must not be referenced'"
            ),
        ),
    };
    json!({"expression": format!("size({all}) <= {index} || {asked}"), "messageExpression": message, "reason": "Forbidden"})
}

/// Fields of a template of pods by which a pod gets what belongs to others: whoever may create pods in the namespace has that already.
const OF_PODS: [&str; 5] = ["serviceAccountName", "envFrom", "volumes", "initContainers", "sidecars"];

/// Whether the user may create pods, if a bench's templates name objects for them.
fn templates_validation() -> Value {
    let templates = |object: &str| format!("{}.orValue({{}})", optional(object, "componentTemplates"));
    let (now, before) = (templates("object"), templates("oldObject"));
    let fields: Vec<String> = OF_PODS.iter().map(|it| format!("{now}[k].?{it}.hasValue()")).collect();
    let of_env = format!("{now}[k].?env.orValue([]).exists(it, it.?valueFrom.hasValue())");
    let named = format!("{now}.exists(k, {} || {of_env})", fields.join(" || "));
    let same = format!("(oldObject != null && {now} == {before})");
    let allowed = "authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()";
    json!({
        "expression": format!("{same} || !{named} || {allowed}"),
        "message": "componentTemplates with accounts, volumes, containers, or variables from other objects need the right to create pods \
                    in the namespace",
        "reason": "Forbidden",
    })
}

/// Whether the user may run code for a site. RBAC knows no fields, so a subresource that does not exist stands for two of them.
fn right_to_run_code() -> Value {
    let asked = "authorizer.group('vyogo.tech').resource('sitejobs').subresource('script').namespace(request.namespace)\
                 .check('create').allowed()";
    json!({
        "expression": format!("!has(object.spec.method) && !has(object.spec.script) || {asked}"),
        "message": "a method or a script runs code for the site: that requires the right to create sitejobs/script",
        "reason": "Forbidden",
    })
}

/// The policy of one kind and its binding.
fn policy(plural: &str) -> [Value; 2] {
    let name = format!("frappe-operator-references-of-{plural}");
    let api_version = "admissionregistration.k8s.io/v1";
    let kinds = [Named::Secret, Named::ConfigMap, Named::MariaDb, Named::Claim, Named::ServiceAccount];
    let used: Vec<Named> = kinds
        .into_iter()
        .filter(|it| REFERENCES.iter().any(|(of, _, named, _)| *of == plural && named == it))
        .collect();
    let number = || {
        json!({
            "expression": format!("size(variables.secrets) <= {SECRETS_MAX}"),
            "message": format!("one write may add at most {SECRETS_MAX} references to Secrets: split it"),
        })
    };
    let mut validations: Vec<Value> = used.contains(&Named::Secret).then(number).into_iter().collect();
    validations.extend((plural == "sitejobs").then(right_to_run_code));
    for named in &used {
        let most = if *named == Named::Secret { SECRETS_MAX } else { 1 };
        validations.extend((0..most).map(|index| validation(*named, index)));
    }
    validations.extend((plural == "frappebenches").then(templates_validation));
    let policy = json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["vyogo.tech"], "apiVersions": ["*"], "resources": [plural], "scope": "Namespaced",
                "operations": ["CREATE", "UPDATE"],
            }]},
            "matchConditions": [{"name": "spec-changes", "expression": "oldObject == null || object.spec != oldObject.spec"}],
            "variables": used.iter().flat_map(|it| variables(plural, *it)).collect::<Vec<_>>(),
            "validations": validations,
        },
    });
    let binding = json!({
        "apiVersion": api_version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    [policy, binding]
}

/// All policies with their bindings.
pub fn policies() -> Vec<Value> {
    ["frappesites", "sitebackups", "sitejobs", "frappebenches"].into_iter().flat_map(policy).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Fields that name an object and are no one's to read by: who may use it is judged otherwise.
    const OTHERS: [&str; 5] = [
        // The bench's `allowedSites`.
        "benchRef.name",
        // Always beside the SiteBackup or SiteJob.
        "siteRef.name",
        // Names of Kubernetes' public kinds; `allowedSites.routes`.
        "httpRoute.parentRefs[].name",
        // One annotation of a Service.
        "domainConfig.ingressControllerRef.name",
        // A list of names, not a reference.
        "allowedSites.databases.servers",
    ];

    /// Paths of fields that name another object, by how such fields are called.
    fn named(schema: &Value, path: &str, parent: &str, found: &mut BTreeSet<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let here = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let lower = name.to_lowercase();
            let by_itself = ["secretname", "claimname", "serviceaccountname", "servers"].contains(&lower.as_str());
            let in_reference =
                name == "name" && ["ref", "refs", "secrets"].iter().any(|it| parent.to_lowercase().ends_with(it));
            if by_itself || in_reference {
                found.insert(here.clone());
            }
            named(field, &here, name, found);
            named(&field["items"], &format!("{here}[]"), name, found);
            named(&field["additionalProperties"], &format!("{here}.*"), name, found);
        }
    }

    #[test]
    fn every_field_that_names_an_object_is_asked_about() {
        let mut all = BTreeSet::new();
        for definition in frappe_crds::manifest::definitions() {
            let plural = definition.spec.names.plural.clone();
            let json = serde_json::to_value(&definition).expect("JSON");
            let spec = &json["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            let mut found = BTreeSet::new();
            named(spec, "", "", &mut found);
            // Of templates, whether the user may create pods.
            found.retain(|it| !OTHERS.contains(&it.as_str()) && !it.starts_with("componentTemplates."));
            all.extend(found.into_iter().map(|path| format!("{plural} {path}")));
        }
        let listed: BTreeSet<String> = REFERENCES.iter().map(|(plural, path, ..)| format!("{plural} {path}")).collect();
        assert_eq!(all, listed);
    }

    #[test]
    fn a_policy_stays_within_the_budget_of_questions() {
        for it in policies().iter().filter(|it| it["kind"] == "ValidatingAdmissionPolicy") {
            let text = it["spec"]["validations"].to_string();
            let questions = text.matches(".check(").count();
            assert!((2..=28).contains(&questions), "{questions} in {}", it["metadata"]["name"]);
        }
    }
}
