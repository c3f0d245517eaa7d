//! Tells people what the sharding protocol does: report, metrics, Events.

use std::{sync::Arc, time::Instant};

use frappe_crds::FrappeSite;
use k8s_openapi::api::core::v1::ObjectReference;
use kube_sharding::{
    Incarnation, SLOTS,
    gate::Gate,
    map::{Entry, SlotMap},
    runtime::{Handle, View},
    wire::Names,
};
use metrics::{counter, gauge};
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
        let gate: &Gate = self.handle.gate();
        let opening = gate.opening().borrow().clone();
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        gauge!("frappe_operator_shard_slots").set(number(opening.slots().len()));
        gauge!("frappe_operator_shard_sites").set(number(self.sites.len()));
        gauge!("frappe_operator_shard_draining_slots").set(number(view.draining.len()));
        gauge!("frappe_operator_shard_acting").set(f64::from(u8::from(gate.acts())));
        gauge!("frappe_operator_shard_coordinator").set(f64::from(u8::from(opening.coordinates())));
        gauge!("frappe_operator_fleet_members").set(number(report.members.iter().filter(|it| it.is_alive()).count()));
        gauge!("frappe_operator_fleet_unowned_slots").set(number(report.unowned_slots));
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

    /// What this member gave away, and to whom: a line.
    fn log_given_away(&self, before: &SlotMap, now: &SlotMap) {
        let mut lost = 0_usize;
        let mut to = std::collections::BTreeSet::new();
        for (entry, _) in before.owned_by(&self.me) {
            let owner = now.content.holding(entry).and_then(|it| it.owner.as_ref());
            if owner != Some(&self.me) && usize::from(entry.0) < SLOTS {
                lost += 1;
                to.extend(owner.map(|it| it.pod().to_owned()));
            }
        }
        if lost > 0 {
            let to = to.into_iter().collect::<Vec<_>>().join(", ");
            tracing::info!(slots = lost, to, generation = now.content.generation, "handed slots over");
        }
    }

    /// What this member gained, and from whom: an Event on the slot map.
    async fn map_changed(&self, before: &SlotMap, now: &SlotMap) {
        let owner = |map: &SlotMap, entry: Entry| map.content.holding(entry).and_then(|it| it.owner.clone());
        self.log_given_away(before, now);
        let mut gained = 0_usize;
        let mut from = std::collections::BTreeSet::new();
        for (entry, _) in now.owned_by(&self.me) {
            let former = owner(before, entry);
            if former.as_ref() != Some(&self.me) {
                gained += usize::from(usize::from(entry.0) < SLOTS);
                from.extend(former.map(|it| it.pod().to_owned()));
            }
        }
        if gained == 0 {
            return;
        }
        counter!("frappe_operator_shard_gained_slots_total").increment(gained as u64);
        let from =
            if from.is_empty() { "no replica".to_owned() } else { from.into_iter().collect::<Vec<_>>().join(", ") };
        let note = format!(
            "replica {} took {gained} slots over from {from} (slot map generation {})",
            self.me.pod(),
            now.content.generation
        );
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
