//! Which SiteBackups each site has, by what their watch shows.

use std::{collections::BTreeSet, sync::Arc};

use dashmap::DashMap;
use kube::{ResourceExt, core::DynamicObject};

use crate::{
    domain::key::Key,
    io::{compact::Compact, watch::Change},
};

/// Names of SiteBackups by site: both are in one namespace.
#[derive(Default)]
pub struct Backups(DashMap<Key, BTreeSet<String>>);

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
        if let Some(site) = site_of(backup) {
            self.0.entry(site).or_default().insert(backup.name_any());
        }
    }

    /// The SiteBackups of a site.
    pub fn of(&self, site: &Key) -> BTreeSet<String> {
        self.0.get(site).map(|entry| entry.value().clone()).unwrap_or_default()
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
