//! The watches of SiteBackups: those of the shard, those that are new, and those whose site does not exist.

use std::{sync::Arc, time::Duration};

use frappe_crds::{FrappeSite, SiteBackup, backup::BackupPhase};
use kube::{Api, Client, ResourceExt, core::DynamicObject};
use kube_sharding::{SlotSet, gate::Scope, groups::Selection, watch::Query};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::watches::{Starter, one_slot, slot_of_child};
use crate::{
    controllers::{
        context::{ChildCache, Children},
        site::backups::{
            Reason, Report, ended_once,
            index::{Backups, site_of, site_of_open},
            removal, without_site,
        },
    },
    domain::{key::Key, labels, object::Kind},
    io::{
        cache::Cache,
        compact::Compact,
        live,
        watch::{Change, Scope as WatchScope},
        writer::Writer,
    },
};

/// Shortest and longest wait for a site that is going.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_mins(1);

impl Starter<'_> {
    /// SiteBackups of the shard's sites.
    pub(super) fn watch_backups(&mut self, children: &mut Children) -> Arc<Backups> {
        let (wake, backups) = (self.wake.clone(), Arc::new(Backups::default()));
        let (index, client) = (Arc::clone(&backups), self.client.clone());
        let changed = move |change: Change<Compact>| {
            index.saw(&change);
            let Some(site) = site_of(change.object()) else { return };
            if let (None, Change::Applied { now, .. }) = (wake.sites.get(&site), &change) {
                let_go(&client, now, site);
            } else {
                wake.site(&site);
            }
        };
        let selection = Selection::Label(labels::SLOT.to_owned());
        let scope = WatchScope { query: self.query(Kind::SiteBackup), selection, owned: self.ownership.held.clone() };
        children.insert(Kind::SiteBackup, self.spawn(slot_of_child, scope, None, changed));
        backups
    }

    /// SiteBackups that are new have no label yet: every member looks, and the owner of their site gives it to them. One
    /// whose site does not exist is told so by the coordinator.
    pub(super) fn watch_new_backups(&mut self) -> (Arc<ChildCache>, Arc<Backups>) {
        let (wake, backups) = (self.wake.clone(), Arc::new(Backups::default()));
        let (seen, orphans) = mpsc::unbounded_channel();
        let index = Arc::clone(&backups);
        let changed = move |change: Change<Compact>| {
            index.saw(&change);
            if let (Change::Applied { now, .. }, Some(site)) = (&change, site_of(change.object())) {
                wake.site(&site);
                // Nobody listens any more when the process ends.
                let _ = seen.send(Key::of(now.as_ref()));
            }
        };
        let query = Query { labels: format!("!{}", labels::SLOT), ..self.query(Kind::SiteBackup) };
        let cache = self.spawn(one_slot, WatchScope::everything(query), None, changed);
        let (sites, coordinating) = (self.wake.sites.clone(), self.ownership.coordinating.clone());
        self.tasks.spawn(follow(self.client.clone(), sites, cache.clone(), coordinating, orphans));
        (cache, backups)
    }
}

/// Lets a SiteBackup go that waits for its backups to be removed and has no site any more: nothing is removed.
fn let_go(client: &Client, backup: &Compact, site: Key) {
    let scope = slot_of_child(backup).map_or(Scope::Coordinator, Scope::Slot);
    let Ok(backup) = backup.open().try_parse::<SiteBackup>() else { return };
    if backup.metadata.deletion_timestamp.is_none() || !removal::holds(&backup) {
        return;
    }
    let (client, writer, key) = (client.clone(), Writer::new(client.clone(), scope), Key::of(&backup));
    tokio::spawn(async move {
        let gone = matches!(live::site_metadata(&client, &site).await, Ok(None));
        let metadata = json!({"uid": backup.uid(), "finalizers": removal::others(&backup)});
        if gone && let Err(error) = writer.patch_metadata(Kind::SiteBackup, &key, &metadata).await {
            tracing::warn!(%error, backup = %key, "finalizer of a SiteBackup without a site not removed");
        }
    });
}

/// Tells SiteBackups without a site so, for as long as this member coordinates: those that it is sent, and when it begins to
/// coordinate all that `known` has.
async fn follow(
    client: Client,
    sites: Arc<Cache<FrappeSite>>,
    known: Arc<ChildCache>,
    mut coordinating: watch::Receiver<SlotSet>,
    mut changed: mpsc::UnboundedReceiver<Key>,
) {
    loop {
        let keys = tokio::select! {
            Some(key) = changed.recv() => vec![key],
            Ok(()) = coordinating.changed() => known.all().iter().map(|it| Key::of(it.as_ref())).collect(),
            else => return,
        };
        if *coordinating.borrow_and_update() != SlotSet::ALL {
            continue;
        }
        for backup in keys.iter().filter_map(|key| known.get(key)) {
            let stays = |site: &Key| sites.get(site).is_some_and(|it| it.metadata.deletion_timestamp.is_none());
            let Some(site) = site_of_open(&backup).filter(|site| !stays(site)) else { continue };
            let client = client.clone();
            tokio::spawn(async move {
                if let Err(error) = tell(&client, &backup, &site).await {
                    tracing::warn!(%error, backup = %Key::of(backup.as_ref()), "status of a SiteBackup without a site not written");
                }
            });
        }
    }
}

/// Tells a SiteBackup that its site does not exist, if that is so, or once it is.
async fn tell(client: &Client, backup: &DynamicObject, site: &Key) -> anyhow::Result<()> {
    let mut wait = FIRST_LOOK;
    while let Some(found) = live::site_metadata(client, site).await? {
        if found.metadata.deletion_timestamp.is_none() {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_LOOK);
    }
    // It may have waited for long, and its last backup be written down since.
    let backups: Api<SiteBackup> = Api::namespaced(client.clone(), &backup.namespace().unwrap_or_default());
    let Some(mut backup) = backups.get_opt(&backup.name_any()).await? else { return Ok(()) };
    let over = backup.spec.schedule.is_none() && ended_once(&backup).is_some();
    if over || backup.labels().contains_key(labels::SLOT) {
        return Ok(());
    }
    let message = format!("FrappeSite {site} not found; the backup starts once it exists");
    let report = Report::new(BackupPhase::Pending, Reason::SiteNotFound, message);
    let next = without_site(&backup, &report);
    if backup.status.as_ref() == Some(&next) {
        return Ok(());
    }
    backup.status = Some(next);
    let body = serde_json::to_value(&backup)?;
    let key = Key::new(backup.namespace().unwrap_or_default(), backup.name_any());
    Writer::new(client.clone(), Scope::Coordinator).replace_status(Kind::SiteBackup, &key, &body).await?;
    Ok(())
}
