//! Where the objects of a site live, and how they are named. Pure.
//!
//! A volume, a Secret and a backend can only be named within one namespace, so the objects of a site are in its bench's
//! namespace. Where that is not the site's own, their names carry a hash of the site's, so that two sites of one name
//! never meet.

use frappe_crds::FrappeSite;
use kube::ResourceExt;

use crate::domain::{
    key::Key,
    names::{child, hash_hex, operation_job},
};

/// Hex digits of the hash of a namespace.
const NAMESPACE_HASH_DIGITS: usize = 8;
/// Hex digits of the hash of a Secret's name.
const SECRET_HASH_DIGITS: usize = 8;

/// Where the objects of a site live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Namespace of the objects: the bench's.
    pub namespace: String,
    /// What their names begin with.
    pub stem: String,
    /// Namespace of the site.
    pub own: String,
}

impl Place {
    /// The place of a site.
    pub fn of(site: &FrappeSite) -> Self {
        let own = site.namespace().unwrap_or_default();
        let namespace = site.spec.bench_ref.namespace.clone().unwrap_or_else(|| own.clone());
        let name = site.name_any();
        let stem = if namespace == own { name } else { format!("{name}-{}", hash_hex(&own, NAMESPACE_HASH_DIGITS)) };
        Self { namespace, stem, own }
    }

    /// Whether the objects are in another namespace than the site.
    pub fn is_foreign(&self) -> bool {
        self.namespace != self.own
    }

    /// The object of this suffix.
    pub fn key(&self, suffix: &str) -> Key {
        Key::new(&self.namespace, child(&self.stem, suffix))
    }

    /// The Job that does an operation for the n-th time.
    pub fn job(&self, operation: &str, attempt: i32) -> Key {
        Key::new(&self.namespace, operation_job(&self.stem, operation, attempt))
    }

    /// Name under which a Secret of the site's namespace can be mounted: its own, or that of its copy.
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

    /// Secret in the site's own namespace with a generated password for Administrator.
    pub fn generated_admin_password(&self, site: &str) -> Key {
        Key::new(&self.own, child(site, "admin-password"))
    }

    /// The MariaDB of a site that has its own.
    pub fn own_server(&self) -> Key {
        self.key("mariadb")
    }

    /// Secret with the password of that MariaDB's administrator.
    pub fn own_server_root(&self) -> Key {
        self.key("mariadb-root")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(namespace: &str, bench_namespace: Option<&str>) -> Place {
        let site: FrappeSite = serde_json::from_value(json!({
            "apiVersion": "vyogo.tech/v1alpha1", "kind": "FrappeSite", "metadata": {"name": "shop", "namespace": namespace},
            "spec": {"siteName": "shop", "benchRef": {"name": "b", "namespace": bench_namespace}},
        }))
        .unwrap();
        Place::of(&site)
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
    fn two_sites_of_one_name_never_meet_in_their_benchs_namespace() {
        let (first, second) = (place("a", Some("c")), place("b", Some("c")));
        assert_ne!(first.credentials(), second.credentials());
        assert_ne!(first.mounted("admin"), second.mounted("admin"));
        assert_eq!(first.generated_admin_password("shop"), Key::new("a", "shop-admin-password"));
    }
}
