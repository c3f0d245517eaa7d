//! Tells people what the sharding protocol does: report, Events; and which sites wait.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use frappe_crds::FrappeSite;
use k8s_openapi::api::core::v1::ObjectReference;
use kube_sharding::{
    Incarnation,
    fleet::Moved,
    map::SlotMap,
    runtime::{Handle, View},
    wire::Names,
};
use metrics::gauge;
use tokio::sync::watch;

use super::reason::SLOTS_TAKEN_OVER;
use crate::{
    domain::key::Key,
    fleet_report::{Report, report},
    io::{
        cache::Cache,
        events::{Events, Notice},
    },
};

/// How often what only grows older is looked at. No request is made.
const LOOK_INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);
/// After this time without a reconcile of its present generation, a site is stale.
const STALE_AFTER: std::time::Duration = std::time::Duration::from_mins(2);

/// Inputs of the report.
pub(super) struct Fleet {
    pub(super) names: Names,
    pub(super) me: Incarnation,
    pub(super) handle: Handle,
    pub(super) events: Events,
    pub(super) report: watch::Sender<Report>,
    pub(super) sites: Arc<Cache<FrappeSite>>,
}

impl Fleet {
    /// Tells until the task is dropped.
    pub(super) async fn follow(self) {
        let (mut view, mut coordinates) = (self.handle.view(), false);
        let mut map: Option<Arc<SlotMap>> = None;
        let mut waiting: std::collections::HashMap<Key, (i64, Instant)> = std::collections::HashMap::new();
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                _ = looks.tick() => self.look_at_sites(&mut waiting),
            }
            let now = view.borrow_and_update().clone();
            self.publish(&now);
            let elected = self.handle.gate().opening().borrow().coordinates();
            if elected != std::mem::replace(&mut coordinates, elected) {
                tracing::info!(
                    "{}",
                    if elected { "became coordinator: reconciling benches" } else { "no longer coordinator" }
                );
            }
            let next = now.map.clone().filter(|next| map.as_ref().is_none_or(|known| known.version != next.version));
            let Some(next) = next else { continue };
            if let Some(before) = map.replace(Arc::clone(&next)) {
                self.map_changed(&before, &next).await;
            }
        }
    }

    fn publish(&self, view: &View) {
        let leases: Vec<_> = view.peers.iter().map(|peer| (peer.lease.clone(), peer.lease_age.as_secs())).collect();
        let report = report(&self.names, view.map.as_deref(), &leases);
        self.handle.count_objects(self.sites.len() as u64);
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
    async fn map_changed(&self, before: &SlotMap, now: &SlotMap) {
        let (Moved { gained, from, given, to }, generation) =
            (Moved::of(&self.me, before, now), now.content.generation);
        let shown = |pods: BTreeSet<String>| pods.into_iter().collect::<Vec<_>>().join(", ");
        if given > 0 {
            tracing::info!(slots = given, to = shown(to), generation, "handed slots over");
        }
        if gained == 0 {
            return;
        }
        let from = if from.is_empty() { "no replica".to_owned() } else { shown(from) };
        let pod = self.me.pod();
        let note = format!("replica {pod} took {gained} slots over from {from} (slot map generation {generation})");
        let about = ObjectReference {
            api_version: Some(format!("{}/v1alpha1", self.names.group)),
            kind: Some("SlotMap".to_owned()),
            namespace: Some(self.names.namespace.clone()),
            name: Some(self.names.name.clone()),
            uid: Some(now.version.uid.to_string()),
            ..ObjectReference::default()
        };
        let notice = Notice { warning: false, reason: SLOTS_TAKEN_OVER.to_owned(), note };
        self.events.publish(&about, &notice).await;
    }
}
