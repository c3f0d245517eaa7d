//! Labels, annotations and finalizers that this operator writes.

use std::collections::BTreeMap;

use kube::{ResourceExt, core::DynamicObject};
use kube_sharding::Slot;

/// Label of every object that this operator creates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`], and the field manager of every server-side apply.
pub const MANAGER: &str = "frappe-operator";
/// Annotation of external-dns with the host names of a Service.
pub const EXTERNAL_DNS: &str = "external-dns.alpha.kubernetes.io/hostname";
/// Label with a site's slot, on the site and its objects: selects watches, decides nothing.
pub const SLOT: &str = "frappe.vyogo.tech/slot";
/// Label of a site with its bench's name, so that a bench's sites can be listed.
pub const BENCH_OF_SITE: &str = "frappe.vyogo.tech/bench";
/// Label of a site with its bench's namespace, if different.
pub const BENCH_NAMESPACE: &str = "frappe.vyogo.tech/bench-namespace";
/// Label with the uid of the site that an object belongs to.
pub const SITE_UID: &str = "frappe.vyogo.tech/site-uid";
/// Annotation with the hash of the last applied object, which distinguishes removed fields from other managers' fields.
pub const APPLIED_HASH: &str = "frappe.vyogo.tech/applied";
/// Annotation with a site's identity, on its Secret and its Jobs.
pub const IDENTITY: &str = "frappe.vyogo.tech/identity";
/// Annotation with a site's database name, on its Secret.
pub const DATABASE: &str = "frappe.vyogo.tech/database";
/// Annotation with the name of a site's database user, if different from the database's, on its Secret.
pub const DATABASE_USER: &str = "frappe.vyogo.tech/database-user";
/// Annotation that requests the adoption of another operator's bench and its sites: `true`.
pub const ADOPT: &str = "frappe.vyogo.tech/adopt";
/// Annotation of an object that was adopted, with the generation of its bench or site at that time.
pub const ADOPTED: &str = "frappe.vyogo.tech/adopted";
/// Annotation with the kind and server of a site's database, on its Secret.
pub const DATABASE_KIND: &str = "frappe.vyogo.tech/database-kind";
/// Annotation of a copied Secret with the version of the original.
pub const COPIED_VERSION: &str = "frappe.vyogo.tech/copied-version";
/// Label of a site's objects in another namespace than its own, with that namespace.
pub const SITE_NAMESPACE: &str = "frappe.vyogo.tech/site-namespace";
/// Annotation that a user sets to any new value to apply a site's configuration again.
pub const RECONCILE: &str = "frappe.vyogo.tech/reconcile";
/// Annotation that a user sets to any new value to replace lost passwords.
pub const REPLACE_SECRETS: &str = "frappe.vyogo.tech/replace-secrets";
/// Annotation that lets a blocked deletion continue: `skip-database` or `skip-job`.
pub const FORCE_DELETE: &str = "frappe.vyogo.tech/force-delete";
/// Annotation that a user sets to any new value to retry a failed operation.
pub const RETRY: &str = "frappe.vyogo.tech/retry";
/// Annotation that a user sets to any new value to migrate a site.
pub const MIGRATE: &str = "frappe.vyogo.tech/migrate";
/// Annotation that a user sets to the number of a revision to move a site to it now, whatever waves and windows say.
pub const UPDATE_NOW: &str = "frappe.vyogo.tech/update-now";
/// Annotation that a user sets to the id of a site's last update to undo it: what was written since is lost.
pub const ROLLBACK: &str = "frappe.vyogo.tech/rollback";
/// Annotation of a bench that a user sets to any new value to run the image that its tag names now.
pub const REDEPLOY: &str = "frappe.vyogo.tech/redeploy";
/// Annotation of a bench that a user sets to the number of a revision to continue its rollout now: `8`, or `8/full` for all sites at once.
/// What follows another `/` is ignored, so that the same can be requested again.
pub const PROMOTE: &str = "frappe.vyogo.tech/promote";
/// Annotation of a bench that a user sets to the number of a revision to end its rollout.
pub const ABORT: &str = "frappe.vyogo.tech/abort";
/// Annotation of a Deployment whose replicas are set by another owner.
pub const REPLICAS: &str = "frappe.vyogo.tech/replicas";
/// Value of [`REPLICAS`] for KEDA.
pub const REPLICAS_BY_KEDA: &str = "keda";
/// Its value where an autoscaler of the user's sets the number.
pub const REPLICAS_BY_USER: &str = "autoscaler";
/// Label of a user's Secret that a bench or site references, by which it is watched.
pub const WATCHED: &str = "frappe.vyogo.tech/watched";
/// Annotation of pods with a hash of the Redis Secret's version: a new version replaces the pods.
pub const REDIS_SECRET: &str = "frappe.vyogo.tech/redis-secret";
/// Label of pods that must run on the node where the bench's ReadWriteOnce volume is.
pub const SINGLE_NODE: &str = "frappe.vyogo.tech/single-node";
/// Annotation of a MariaDB or Secret with the namespaces that may use it, or `*`.
pub const ALLOWED_NAMESPACES: &str = "frappe.vyogo.tech/allowed-namespaces";
/// Annotation, only in memory, of a site or bench whose spec is too large to be kept. Its value is [`UNREAD_STATUS`] if the
/// status could not be parsed either.
pub const TOO_LARGE: &str = "frappe.vyogo.tech/too-large";
/// Value of [`TOO_LARGE`]: such an object is not reconciled, because its recorded decisions are not known.
pub const UNREAD_STATUS: &str = "status";
/// Whether the status of an object could not be parsed.
pub fn has_unread_status(object: &impl ResourceExt) -> bool {
    object.annotations().get(TOO_LARGE).is_some_and(|it| it == UNREAD_STATUS)
}

/// Label that says what an object of this operator is part of.
const PART_OF: &str = "app.kubernetes.io/part-of";
/// Names of all labels and annotations that this operator writes or reads: others with its prefix are not kept.
const KNOWN: [&str; 36] = [
    "app",
    "bench",
    "component",
    "site",
    PART_OF,
    MANAGED_BY,
    EXTERNAL_DNS,
    SLOT,
    BENCH_OF_SITE,
    BENCH_NAMESPACE,
    SITE_UID,
    APPLIED_HASH,
    IDENTITY,
    DATABASE,
    DATABASE_USER,
    ADOPT,
    ADOPTED,
    DATABASE_KIND,
    COPIED_VERSION,
    SITE_NAMESPACE,
    RECONCILE,
    REPLACE_SECRETS,
    FORCE_DELETE,
    RETRY,
    REDEPLOY,
    PROMOTE,
    ABORT,
    MIGRATE,
    UPDATE_NOW,
    ROLLBACK,
    REPLICAS,
    WATCHED,
    REDIS_SECRET,
    SINGLE_NODE,
    ALLOWED_NAMESPACES,
    TOO_LARGE,
];
/// Finalizer of a site.
pub const SITE_FINALIZER: &str = "vyogo.tech/site-finalizer";
/// Finalizer of a SiteBackup whose backups are deleted with it.
pub const BACKUP_FINALIZER: &str = "vyogo.tech/backup-finalizer";
/// Finalizer of a bench.
pub const BENCH_FINALIZER: &str = "vyogo.tech/bench-finalizer";

/// Whether a label or an annotation is one of ours by its name.
pub fn is_own(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Labels of every object of a bench.
pub fn bench(bench: &str) -> BTreeMap<String, String> {
    [("app", "frappe"), ("bench", bench), (MANAGED_BY, MANAGER), (PART_OF, "frappe")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Labels of one component of a bench.
pub fn component(bench_name: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = bench(bench_name);
    labels.insert("component".to_owned(), component.to_owned());
    labels
}

/// Selector labels of a component's pods in Services and Deployments. They are immutable, so these never change.
pub fn selector(bench: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = pods(bench);
    labels.insert("component".to_owned(), component.to_owned());
    labels
}

/// Selector labels of all pods of a bench.
pub fn pods(bench: &str) -> BTreeMap<String, String> {
    [("app", "frappe"), ("bench", bench)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Labels of every object of a site.
pub fn site(bench_name: &str, site: &str, site_uid: &str) -> BTreeMap<String, String> {
    let mut labels = bench(bench_name);
    labels.insert("site".to_owned(), site.to_owned());
    labels.insert(SLOT.to_owned(), Slot::of_uid(site_uid).to_string());
    labels.insert(SITE_UID.to_owned(), site_uid.to_owned());
    labels
}

/// Whether an annotation of an object, a comma-separated list, contains a namespace; `*` stands for all.
pub fn names_namespace(object: &DynamicObject, annotation: &str, namespace: &str) -> bool {
    let list = object.annotations().get(annotation).map(String::as_str).unwrap_or_default();
    list.split(',').map(str::trim).any(|it| it == namespace || it == "*")
}

/// Whether an object has these labels.
pub fn has_labels(object: &impl ResourceExt, wanted: &[(&str, String)]) -> bool {
    wanted.iter().all(|(key, value)| object.labels().get(*key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A label that is added here and not to the list would be taken off what arrives.
    #[test]
    fn every_label_and_annotation_of_this_file_is_known() {
        let finalizers = ["SITE_FINALIZER", "BACKUP_FINALIZER", "BENCH_FINALIZER"];
        let of_values =
            [&finalizers[..], &["MANAGER", "REPLICAS_BY_KEDA", "REPLICAS_BY_USER", "UNREAD_STATUS"]].concat();
        let constants = include_str!("labels.rs").lines().filter_map(|line| line.strip_prefix("pub const "));
        let mut count = 0;
        for (name, value) in constants.filter_map(|line| line.split_once(": &str = \"")) {
            let value = value.trim_end_matches("\";");
            assert_eq!(is_own(value), !of_values.contains(&name), "{name}");
            count += 1;
        }
        assert_eq!(count, KNOWN.len() - ["app", "bench", "component", "site", PART_OF].len() + of_values.len());
        assert!(!is_own("frappe.vyogo.tech/anything"));
        let made = site("b", "s", "u").into_keys().chain(component("b", "nginx").into_keys());
        assert!(made.into_iter().all(|name| is_own(&name)));
    }
}
