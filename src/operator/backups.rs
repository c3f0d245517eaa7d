//! The watches of SiteBackups: those of the shard, and those that have no label yet.

use std::sync::Arc;

use kube_sharding::{groups::Selection, watch::Query};

use super::watches::{Starter, one_slot, slot_of_child};
use crate::{
    controllers::{
        backup::index::{Backups, site_of},
        context::{ChildCache, Children},
    },
    domain::{labels, object::Kind},
    io::{cache::Change, compact::Compact, watch::Scope as WatchScope},
};

impl Starter<'_> {
    /// SiteBackups of the shard's sites.
    pub(super) fn watch_backups(&mut self, children: &mut Children) {
        let selection = Selection::Label(labels::SLOT.to_owned());
        let scope = WatchScope { query: self.query(Kind::SiteBackup), selection, owned: self.ownership.held.clone() };
        let changed = self.backup_changed(Arc::clone(&self.wake.backups.labelled));
        children.insert(Kind::SiteBackup, self.spawn(slot_of_child, scope, None, changed));
    }

    /// SiteBackups that are new have no label yet: every member looks, and the owner of their site gives it to them. One
    /// whose site does not exist is told so by the coordinator.
    pub(super) fn watch_new_backups(&mut self) -> Arc<ChildCache> {
        let query = Query { labels: format!("!{}", labels::SLOT), ..self.query(Kind::SiteBackup) };
        let changed = self.backup_changed(Arc::clone(&self.wake.backups.new));
        self.spawn(one_slot, WatchScope::everything(query), None, changed)
    }

    fn backup_changed(&self, index: Arc<Backups>) -> impl Fn(Change<Compact>) + Send + Sync + 'static {
        let wake = self.wake.clone();
        move |change: Change<Compact>| {
            index.saw(&change);
            if let Some(site) = site_of(change.object()) {
                wake.backups_of(&site);
            }
        }
    }
}
