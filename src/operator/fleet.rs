//! Tells people what the sharding protocol does: report, Events; and which sites wait.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use frappe_crds::FrappeSite;
use k8s_openapi::api::core::v1::ObjectReference;
use kube_sharding::{
    changes::{Changes, Seen},
    fleet::Moved,
    map::SlotMap,
    session::Session,
};
use metrics::gauge;
use tokio::sync::watch;

use super::reason::SLOTS_TAKEN_OVER;
use crate::{
    domain::key::Key,
    fleet_report::Report,
    io::{
        cache::Cache,
        events::{Events, Notice},
    },
};

/// After this time without a reconcile of its present generation, a site is stale.
const STALE_AFTER: std::time::Duration = std::time::Duration::from_mins(2);

/// Inputs of the report.
pub(super) struct Fleet {
    pub(super) session: Session,
    pub(super) events: Events,
    pub(super) report: watch::Sender<Report>,
    pub(super) sites: Arc<Cache<FrappeSite>>,
}

impl Fleet {
    /// Tells until the incarnation ends.
    pub(super) async fn follow(self) {
        let (mut changes, mut coordinates) = (Changes::of(&self.session), false);
        let mut waiting: std::collections::HashMap<Key, (i64, Instant)> = std::collections::HashMap::new();
        while let Some(Seen { view, fleet, moved, is_look, .. }) = changes.next().await {
            if is_look {
                self.look_at_sites(&mut waiting);
            }
            self.publish(fleet.into());
            let elected = self.session.gate().opening().borrow().coordinates();
            if elected != std::mem::replace(&mut coordinates, elected) {
                tracing::info!(
                    "{}",
                    if elected { "became coordinator: reconciling benches" } else { "no longer coordinator" }
                );
            }
            if let (Some(moved), Some(map)) = (moved, &view.map) {
                self.map_changed(moved, map).await;
            }
        }
    }

    fn publish(&self, report: Report) {
        self.session.handle().count_objects(self.sites.len() as u64);
        self.report.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
    }

    /// Sites whose present generation has not been reconciled for long: alert on it.
    fn look_at_sites(&self, waiting: &mut std::collections::HashMap<Key, (i64, Instant)>) {
        let now = Instant::now();
        let mut still = std::collections::HashMap::new();
        for site in self.sites.all() {
            let generation = site.metadata.generation.unwrap_or(0);
            let observed = site.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
            if generation != observed {
                let key = Key::of(site.as_ref());
                let since =
                    waiting.get(&key).filter(|(known, _)| *known == generation).map_or(now, |(_, since)| *since);
                still.insert(key, (generation, since));
            }
        }
        *waiting = still;
        let ages = waiting.values().map(|(_, since)| since.elapsed());
        let stale = ages.clone().filter(|age| *age >= STALE_AFTER).count();
        gauge!("frappe_operator_shard_stale_sites").set(f64::from(u32::try_from(stale).unwrap_or(u32::MAX)));
        let oldest = ages.max().unwrap_or_default();
        gauge!("frappe_operator_shard_oldest_unreconciled_seconds").set(oldest.as_secs_f64());
    }

    /// What this member gave away: a line. What it gained: an Event on the slot map.
    async fn map_changed(&self, Moved { gained, from, given, to }: Moved, now: &SlotMap) {
        let generation = now.content.generation;
        let shown = |pods: BTreeSet<String>| pods.into_iter().collect::<Vec<_>>().join(", ");
        if given > 0 {
            tracing::info!(slots = given, to = shown(to), generation, "handed slots over");
        }
        if gained == 0 {
            return;
        }
        let from = if from.is_empty() { "no replica".to_owned() } else { shown(from) };
        let (pod, names) = (self.session.incarnation().pod(), self.session.names());
        let note = format!("replica {pod} took {gained} slots over from {from} (slot map generation {generation})");
        let about = ObjectReference {
            api_version: Some(format!("{}/v1alpha1", names.group)),
            kind: Some("SlotMap".to_owned()),
            namespace: Some(names.namespace.clone()),
            name: Some(names.name.clone()),
            uid: Some(now.version.uid.to_string()),
            ..ObjectReference::default()
        };
        let notice = Notice { warning: false, reason: SLOTS_TAKEN_OVER.to_owned(), note };
        self.events.publish(&about, &notice).await;
    }
}
