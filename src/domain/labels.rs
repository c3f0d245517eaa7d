//! Labels, annotations and finalizers that this operator writes.

use std::collections::BTreeMap;

use kube::{ResourceExt, core::DynamicObject};
use kube_sharding::Slot;

/// Label that marks everything this operator makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`], and the field manager of every server-side apply.
pub const MANAGER: &str = "frappe-operator";
/// Annotation by which external-dns is told the host names of a Service.
pub const EXTERNAL_DNS: &str = "external-dns.alpha.kubernetes.io/hostname";
/// Label with a site's slot, on the site and on its children: routes watches, decides nothing.
pub const SLOT: &str = "frappe.vyogo.tech/slot";
/// Label of a site with its bench's name, so that a bench's sites can be listed.
pub const BENCH_OF_SITE: &str = "frappe.vyogo.tech/bench";
/// Label of a site with its bench's namespace, where that is not its own.
pub const BENCH_NAMESPACE: &str = "frappe.vyogo.tech/bench-namespace";
/// Label with the uid of the site that a child belongs to.
pub const SITE_UID: &str = "frappe.vyogo.tech/site-uid";
/// Annotation with the hash of what was last applied: tells a field that we no longer want from one that is not ours.
pub const APPLIED_HASH: &str = "frappe.vyogo.tech/applied";
/// Annotation with a site's identity, on its Secret and its Jobs.
pub const IDENTITY: &str = "frappe.vyogo.tech/identity";
/// Annotation with a site's database name, on its Secret.
pub const DATABASE: &str = "frappe.vyogo.tech/database";
/// Annotation with the name of a site's account at its database, where it is not the database's, on its Secret.
pub const DATABASE_USER: &str = "frappe.vyogo.tech/database-user";
/// Annotation by which a user has a bench and its sites taken over from the operator that made them: `true`.
pub const ADOPT: &str = "frappe.vyogo.tech/adopt";
/// Annotation of an object that was taken over, with the generation that its bench or site had.
pub const ADOPTED: &str = "frappe.vyogo.tech/adopted";
/// Annotation with what kind of database a site has and on which server, on its Secret.
pub const DATABASE_KIND: &str = "frappe.vyogo.tech/database-kind";
/// Annotation of a copied Secret with the version of what it was copied from.
pub const COPIED_VERSION: &str = "frappe.vyogo.tech/copied-version";
/// Label of a site's objects in another namespace than its own, with that namespace.
pub const SITE_NAMESPACE: &str = "frappe.vyogo.tech/site-namespace";
/// Annotation that a user sets to any new value to have a site's configuration applied again.
pub const RECONCILE: &str = "frappe.vyogo.tech/reconcile";
/// Annotation that a user sets to any new value to have lost passwords replaced.
pub const REPLACE_SECRETS: &str = "frappe.vyogo.tech/replace-secrets";
/// Annotation by which a user lets a deletion go on that cannot: `skip-database` or `skip-job`.
pub const FORCE_DELETE: &str = "frappe.vyogo.tech/force-delete";
/// Annotation that a user sets to any new value to have a failed operation retried.
pub const RETRY: &str = "frappe.vyogo.tech/retry";
/// Annotation of a Deployment whose number of replicas another sets.
pub const REPLICAS: &str = "frappe.vyogo.tech/replicas";
/// Value of [`REPLICAS`] where it is KEDA.
pub const REPLICAS_BY_KEDA: &str = "keda";
/// Label of a user's Secret that a bench reads: by it the Secret's changes are seen.
pub const WATCHED: &str = "frappe.vyogo.tech/watched";
/// Annotation of pods with a hash of the version of the Redis Secret: another version, other pods.
pub const REDIS_SECRET: &str = "frappe.vyogo.tech/redis-secret";
/// Label of pods that must run on the node where the bench's ReadWriteOnce volume is.
pub const SINGLE_NODE: &str = "frappe.vyogo.tech/single-node";
/// Annotation of a MariaDB by which its owner lets sites of other namespaces use it: their names, or `*`.
pub const ALLOWED_NAMESPACES: &str = "frappe.vyogo.tech/allowed-namespaces";
/// Annotation of a site or bench whose spec is too large to be kept: it is only in memory. Its value is [`UNREAD_STATUS`] where
/// the status could not be read either.
pub const TOO_LARGE: &str = "frappe.vyogo.tech/too-large";
/// See [`TOO_LARGE`]: nothing is done for such an object, since what was decided about it is not known.
pub const UNREAD_STATUS: &str = "status";
/// Whether the status of an object could not be read, by its mark.
pub fn has_unread_status(object: &impl ResourceExt) -> bool {
    object.annotations().get(TOO_LARGE).is_some_and(|it| it == UNREAD_STATUS)
}

/// Label that says what an object of this operator is part of.
const PART_OF: &str = "app.kubernetes.io/part-of";
/// Every label and annotation that this operator writes or reads, by name: what others call alike is not kept.
const KNOWN: [&str; 30] = [
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
    REPLICAS,
    WATCHED,
    REDIS_SECRET,
    SINGLE_NODE,
    ALLOWED_NAMESPACES,
    TOO_LARGE,
];
/// Finalizer of a site.
pub const SITE_FINALIZER: &str = "vyogo.tech/site-finalizer";
/// Finalizer of a SiteBackup whose backups are removed with it.
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

/// Labels by which Services and Deployments find a component's pods. They are immutable, so these never change.
pub fn selector(bench: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = pods(bench);
    labels.insert("component".to_owned(), component.to_owned());
    labels
}

/// Labels by which all pods of a bench are found.
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

/// Whether an annotation of an object, a list with commas between, has a namespace; `*` stands for all.
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
        let of_values = [&finalizers[..], &["MANAGER", "REPLICAS_BY_KEDA", "UNREAD_STATUS"]].concat();
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
