//! Namespace and names of a site's objects. Pure.
//!
//! Volumes, Secrets and backends can only be referenced within a namespace, so the objects of a site are in its bench's namespace. If
//! that is another namespace than the site's, their names contain a hash of the site's namespace and name, long enough to make
//! collisions infeasible; and no site of the bench's namespace may have such a name.

use frappe_crds::FrappeSite;
use kube::ResourceExt;

use crate::domain::{
    key::Key,
    names::{child, hash_hex, operation_job, service_child},
};

/// Hex digits of the hash of a namespace and name. The CRD rejects names of sites with such an ending.
const SITE_HASH_DIGITS: usize = 24;
/// Characters of the site's name before the hash, so that names with any suffix need not be shortened.
const STEM_CHARACTERS: usize = 18;
/// Hex digits of the hash of a namespace in the names of older versions.
const FORMER_HASH_DIGITS: usize = 8;
/// Hex digits of the hash of a Secret's name.
const SECRET_HASH_DIGITS: usize = 8;

/// Namespace and names of a site's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Namespace of the objects: the bench's.
    pub namespace: String,
    /// Prefix of their names.
    pub stem: String,
    /// Namespace of the site.
    pub own: String,
}

impl Place {
    /// The place of a site.
    pub fn of(site: &FrappeSite) -> Self {
        let own = Key::of(site).namespace;
        let namespace = site.spec.bench_ref.namespace.clone().unwrap_or_else(|| own.clone());
        let name = site.name_any();
        let status = site.status.as_ref();
        let stem = match status.and_then(|it| it.object_prefix.clone()) {
            _ if namespace == own => name,
            Some(recorded) => recorded,
            None if status.is_some_and(|it| it.identity.is_some()) => former_stem(&own, &name),
            None => {
                let short: String = name.chars().take(STEM_CHARACTERS).collect();
                let hash = hash_hex(&format!("{own}/{name}"), SITE_HASH_DIGITS);
                format!("{}-x{hash}", short.trim_end_matches(['-', '.']))
            }
        };
        Self { namespace, stem, own }
    }

    /// Prefix and Secret of a site with this namespace and name in older versions.
    pub fn former_credentials(site: &FrappeSite) -> Option<(String, Key)> {
        let place = Self::of(site);
        let stem = former_stem(&place.own, &site.name_any());
        place.is_foreign().then(|| (stem.clone(), Self { stem, ..place }.credentials()))
    }

    /// Whether the objects are in another namespace than the site.
    pub fn is_foreign(&self) -> bool {
        self.namespace != self.own
    }

    /// Key of the object with this suffix.
    pub fn key(&self, suffix: &str) -> Key {
        Key::new(&self.namespace, child(&self.stem, suffix))
    }

    /// Key of the Job of the n-th attempt of an operation.
    pub fn job(&self, operation: &str, attempt: i32) -> Key {
        Key::new(&self.namespace, operation_job(&self.stem, operation, attempt))
    }

    /// Name of a Secret of the site's namespace for mounting: its own, or that of its copy.
    pub fn mounted(&self, secret: &str) -> String {
        if self.is_foreign() {
            child(&self.stem, &format!("copy-{}", hash_hex(secret, SECRET_HASH_DIGITS)))
        } else {
            secret.to_owned()
        }
    }

    /// Secret with the site's identity and the account of its database.
    pub fn credentials(&self) -> Key {
        self.key("db-password")
    }

    /// Secret in the site's namespace with a generated password of Administrator.
    pub fn generated_admin_password(&self, site: &str) -> Key {
        Key::new(&self.own, child(site, "admin-password"))
    }

    /// The dedicated MariaDB.
    pub fn own_server(&self) -> Key {
        Key::new(&self.namespace, service_child(&self.stem, "mariadb"))
    }

    /// Secret with the password of that MariaDB's administrator.
    pub fn own_server_root(&self) -> Key {
        self.key("mariadb-root")
    }
}

/// Prefix of the names of objects in another namespace in older versions.
fn former_stem(namespace: &str, site: &str) -> String {
    format!("{site}-{}", hash_hex(namespace, FORMER_HASH_DIGITS))
}

#[cfg(test)]
mod tests {
    use frappe_crds::FrappeSiteStatus;
    use serde_json::json;

    use super::*;

    fn of(namespace: &str, bench_namespace: Option<&str>) -> FrappeSite {
        serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {"name": "shop", "namespace": namespace},
            "spec": {"siteName": "shop", "benchRef": {"name": "b", "namespace": bench_namespace}},
        }))
        .unwrap()
    }

    fn place(namespace: &str, bench_namespace: Option<&str>) -> Place {
        Place::of(&of(namespace, bench_namespace))
    }

    #[test]
    fn objects_are_named_as_in_the_guide_where_site_and_bench_share_a_namespace() {
        for bench in [None, Some("a")] {
            let place = place("a", bench);
            assert_eq!(place.credentials(), Key::new("a", "shop-db-password"));
            assert_eq!(place.job("init", 2), Key::new("a", "shop-init-2"));
            assert_eq!(place.mounted("mine"), "mine");
            assert!(!place.is_foreign());
        }
    }

    #[test]
    fn sites_of_the_same_name_have_different_names_in_their_benchs_namespace() {
        let (first, second) = (place("a", Some("c")), place("b", Some("c")));
        assert_ne!(first.credentials(), second.credentials());
        assert_ne!(first.mounted("admin"), second.mounted("admin"));
        assert_eq!(first.generated_admin_password("shop"), Key::new("a", "shop-admin-password"));
    }

    /// Pinned: with other names, existing objects would be lost.
    #[test]
    fn objects_in_another_namespace_keep_their_names() {
        let mut site = of("a", Some("c"));
        assert_eq!(Place::of(&site).stem, "shop-xfa400b7a40712fcda833a5b7");
        site.status = Some(FrappeSiteStatus { identity: Some("1".into()), ..Default::default() });
        assert_eq!(Place::of(&site).stem, "shop-ca978112", "created by an earlier version");
        site.status = Some(FrappeSiteStatus { object_prefix: Some("as-recorded".into()), ..Default::default() });
        assert_eq!(Place::of(&site).stem, "as-recorded");
    }

    #[test]
    fn no_name_of_an_object_in_another_namespace_is_shortened() {
        let mut site = of("a", Some("c"));
        site.metadata.name = Some("long.".repeat(12));
        let place = Place::of(&site);
        for suffix in ["db-password", "admin-password", "mariadb-root", "copy-01234567", "backup-01234567-99"] {
            assert!(place.key(suffix).name.contains(&place.stem), "{}", place.key(suffix).name);
        }
    }
}
