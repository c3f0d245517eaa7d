//! Metrics that controller-runtime has no name for.

use metrics::gauge;

/// Names of these metrics.
#[derive(Clone, Copy, Debug)]
pub struct MetricNames {
    /// Gauge, label `name`: lanes of a queue with keys that wait or run.
    pub lanes: &'static str,
    /// Gauge, label `name`: age of the key that has waited longest in a queue.
    pub oldest_pending_seconds: &'static str,
    /// Gauge: running watches.
    pub watches: &'static str,
    /// Gauge: slots of this member.
    pub slots: &'static str,
    /// Gauge: objects in these slots.
    pub objects: &'static str,
    /// Gauge: slots that this member is handing over.
    pub draining_slots: &'static str,
    /// Gauge: 1 while this member may act.
    pub acting: &'static str,
    /// Gauge: 1 while this member is the coordinator.
    pub coordinator: &'static str,
    /// Gauge: members that may own slots, as seen by this one.
    pub members: &'static str,
    /// Gauge: slots without a live owner.
    pub unowned_slots: &'static str,
    /// Counter: slots that this member took over.
    pub gained_slots: &'static str,
    /// Counter: how often this replica was fenced and joined again.
    pub fenced: &'static str,
}

impl Default for MetricNames {
    fn default() -> Self {
        Self {
            lanes: "sharding_lanes",
            oldest_pending_seconds: "sharding_oldest_pending_seconds",
            watches: "sharding_watches",
            slots: "sharding_slots",
            objects: "sharding_objects",
            draining_slots: "sharding_draining_slots",
            acting: "sharding_acting",
            coordinator: "sharding_coordinator",
            members: "sharding_members",
            unowned_slots: "sharding_unowned_slots",
            gained_slots: "sharding_gained_slots_total",
            fenced: "sharding_fenced_total",
        }
    }
}

/// Counts a running watch.
pub(crate) struct Watching(&'static str);

impl Watching {
    pub(crate) fn new(names: MetricNames) -> Self {
        gauge!(names.watches).increment(1.0);
        Self(names.watches)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        gauge!(self.0).decrement(1.0);
    }
}
