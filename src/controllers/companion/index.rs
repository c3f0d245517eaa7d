//! Index of SiteBackups or SiteJobs by site, from their watches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use frappe_crds::{backup_storage::BackupStorage, common::LocalReference};
use kube::{ResourceExt, core::DynamicObject};
use kube_sharding::index::{By, Index};

use crate::{
    controllers::site::references::of_storage,
    domain::{key::Key, live},
    io::compact::Compact,
};

/// Objects by site, with the Secrets that the storages of SiteBackups reference; all are in one namespace.
pub struct BySite;

/// Objects of a kind by site.
pub type Companions = Index<BySite>;

impl By for BySite {
    type Form = Compact;
    type Of = Key;
    type Note = BTreeSet<String>;

    /// The site, and the names of the Secrets that the storage references; none if that cannot be parsed.
    fn of(backup: &Compact) -> Option<(Key, BTreeSet<String>)> {
        let backup = backup.open();
        let storage: Option<BackupStorage> = live::field(&backup, "/spec/storage");
        Some((site(&backup)?, storage.iter().flat_map(of_storage).map(|it| it.name).collect()))
    }
}

/// The site of such an object. One that references a site of another namespace is indexed under the site of that name in its own
/// namespace, which rejects it.
fn site(backup: &DynamicObject) -> Option<Key> {
    Some(Key::new(backup.namespace()?, live::field::<LocalReference>(backup, "/spec/siteRef")?.name))
}

/// The objects of a kind of each of the two watches.
#[derive(Clone, Default)]
pub struct Indexes {
    /// Those with the label of their site's slot.
    pub labelled: Arc<Companions>,
    /// Those without the label, of all members.
    pub new: Arc<Companions>,
}

impl Indexes {
    /// The sites with a SiteBackup whose storage references this Secret.
    pub fn reading(&self, secret: &Key) -> Vec<Key> {
        self.filter(|site, backups| {
            site.namespace == secret.namespace && backups.values().any(|names| names.contains(&secret.name))
        })
    }

    /// The sites with such objects.
    pub fn sites(&self) -> Vec<Key> {
        self.filter(|_, _| true)
    }

    fn filter(&self, is_meant: impl Fn(&Key, &BTreeMap<Key, BTreeSet<String>>) -> bool) -> Vec<Key> {
        [&self.labelled, &self.new].into_iter().flat_map(|index| index.filter(&is_meant)).collect()
    }

    /// Whether a site has such objects.
    pub fn has(&self, site: &Key) -> bool {
        self.labelled.has(site) || self.new.has(site)
    }

    /// Names of the objects of a site.
    pub fn of(&self, site: &Key) -> BTreeSet<String> {
        let found = [self.labelled.of(site), self.new.of(site)];
        found.into_iter().flat_map(BTreeMap::into_keys).map(|key| key.name).collect()
    }
}

/// The site of such an object.
pub fn site_of(backup: &Compact) -> Option<Key> {
    site(&backup.open())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::io::{cache::Change, cached::Cached as _};

    #[test]
    fn sites_are_found_by_a_secret_of_their_storages() {
        let indexes = Indexes::default();
        let backup = |name: &str, site: &str, secret: &str| {
            let made = json!({
                "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "metadata": {"name": name, "namespace": "a"},
                "spec": {"siteRef": {"name": site}, "storage": {
                    "s3": {"bucket": "b", "credentialsSecretRef": {"name": secret}}}},
            });
            let now = Arc::new(serde_json::from_value::<DynamicObject>(made).expect("a SiteBackup").close());
            indexes.labelled.update(&Change::Applied { now, before: None });
        };
        backup("one", "shop", "keys");
        backup("two", "shop", "others");
        backup("three", "store", "others");
        let (keys, others) = (Key::new("a", "keys"), Key::new("a", "others"));
        assert_eq!(indexes.reading(&keys), [Key::new("a", "shop")]);
        assert_eq!(indexes.reading(&others).len(), 2);
        assert_eq!(indexes.reading(&Key::new("b", "keys")), []);
        backup("one", "shop", "others");
        assert_eq!(indexes.reading(&keys), [], "another is named now");
    }
}
