//! Which SiteBackups each site has, by what their watch shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dashmap::DashMap;
use frappe_crds::backup::BackupStorage;
use kube::{ResourceExt, core::DynamicObject};

use crate::{
    controllers::site::references::of_storage,
    domain::key::Key,
    io::{cache::Change, compact::Compact},
};

/// SiteBackups by site, and the Secrets that the storage of each names: all are in one namespace.
#[derive(Default)]
pub struct Backups(DashMap<Key, BTreeMap<String, BTreeSet<String>>>);

impl Backups {
    /// Takes a change in. A SiteBackup's site never changes.
    pub fn saw(&self, change: &Change<Compact>) {
        match change {
            Change::Applied { now, .. } => self.add(now),
            Change::Deleted(gone) => self.remove(gone),
        }
    }

    /// Takes one in that no watch shows with a label yet.
    pub fn add(&self, backup: &Compact) {
        let open = backup.open();
        if let Some(site) = site_of_open(&open) {
            self.0.entry(site).or_default().insert(backup.name_any(), secrets_of(&open));
        }
    }

    /// The SiteBackups of a site.
    pub fn of(&self, site: &Key) -> BTreeSet<String> {
        self.0.get(site).map(|entry| entry.value().keys().cloned().collect()).unwrap_or_default()
    }

    fn has(&self, site: &Key) -> bool {
        self.0.get(site).is_some_and(|names| !names.is_empty())
    }

    /// The sites of whose SiteBackups the storage of one names this Secret.
    pub fn reading(&self, secret: &Key) -> Vec<Key> {
        let here = self.0.iter().filter(|entry| entry.key().namespace == secret.namespace);
        let reads = here.filter(|entry| entry.value().values().any(|names| names.contains(&secret.name)));
        reads.map(|entry| entry.key().clone()).collect()
    }

    /// The sites that have SiteBackups.
    pub fn sites(&self) -> Vec<Key> {
        self.0.iter().map(|entry| entry.key().clone()).collect()
    }

    fn remove(&self, backup: &Compact) {
        let Some(site) = site_of(backup) else { return };
        if let Some(mut names) = self.0.get_mut(&site) {
            names.remove(&backup.name_any());
        }
        self.0.remove_if(&site, |_, names| names.is_empty());
    }
}

/// The SiteBackups that each of the two watches shows.
#[derive(Clone, Default)]
pub struct Indexes {
    /// Those with the label of their site's slot.
    pub labelled: Arc<Backups>,
    /// Those without, of all members.
    pub new: Arc<Backups>,
}

impl Indexes {
    /// Whether a site has SiteBackups.
    pub fn has(&self, site: &Key) -> bool {
        self.labelled.has(site) || self.new.has(site)
    }

    /// Names of the SiteBackups of a site.
    pub fn of(&self, site: &Key) -> BTreeSet<String> {
        let mut names = self.labelled.of(site);
        names.extend(self.new.of(site));
        names
    }
}

/// The site that a SiteBackup is of. One that names a site of another namespace is looked at by a site of that name in its
/// own, which refuses it; where there is none, nobody has it.
pub fn site_of(backup: &Compact) -> Option<Key> {
    site_of_open(&backup.open())
}

/// Likewise, of the whole object.
pub fn site_of_open(backup: &DynamicObject) -> Option<Key> {
    Some(Key::new(backup.namespace()?, backup.data["spec"]["siteRef"]["name"].as_str()?))
}

/// Names of the Secrets that its storage names. What cannot be read names none.
fn secrets_of(backup: &DynamicObject) -> BTreeSet<String> {
    let storage = serde_json::from_value::<BackupStorage>(backup.data["spec"]["storage"].clone());
    storage.iter().flat_map(of_storage).map(|it| it.name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::io::cached::Cached as _;

    #[test]
    fn a_secret_is_of_those_whose_storage_names_it() {
        let index = Backups::default();
        let backup = |name: &str, site: &str, secret: &str| {
            let made = json!({
                "apiVersion": "vyogo.tech/v1alpha1", "kind": "SiteBackup", "metadata": {"name": name, "namespace": "a"},
                "spec": {"siteRef": {"name": site}, "storage": {
                    "s3": {"bucket": "b", "credentialsSecretRef": {"name": secret}}}},
            });
            serde_json::from_value::<DynamicObject>(made).expect("a SiteBackup").close()
        };
        index.add(&backup("one", "shop", "keys"));
        index.add(&backup("two", "shop", "others"));
        index.add(&backup("three", "store", "others"));
        let (keys, others) = (Key::new("a", "keys"), Key::new("a", "others"));
        assert_eq!(index.reading(&keys), [Key::new("a", "shop")]);
        assert_eq!(index.reading(&others).len(), 2);
        assert_eq!(index.reading(&Key::new("b", "keys")), []);
        index.add(&backup("one", "shop", "others"));
        assert_eq!(index.reading(&keys), [], "another is named now");
    }
}
