//! Watches of one kind, selected by the API server for the slots that a member owns.
//!
//! Gained slots are listed and watched by a separate group, so that existing slots are not listed again. Lost slots are removed
//! from the cache at once, and from the watch later. When there are many groups and no changes of slots, they are merged into
//! one, which continues from the oldest version, without a list.

use std::{pin::Pin, task::Poll, time::Duration};

use futures::{Stream, StreamExt};
use kube::{Client, Resource};
use metrics::counter;
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    namespaces::follow_namespaces,
    slot::{Slot, SlotSet},
    watch::{Query, Read, Seen, read},
};

/// Number of groups above which they are merged.
const GROUPS_MAX: usize = 3;
/// Time without changes of slots before groups are merged.
const QUIET: Duration = Duration::from_secs(10);

/// How the API server selects objects by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// By a label with the slot.
    Label(String),
    /// By such a label, unless all slots are owned: then without selection, so that objects without the label are included.
    LabelUnlessAll(String),
    /// By ranges of the hash of the uid, if the API server supports it and the object's own uid decides.
    Shards,
    /// No selection: the kind is not sharded.
    Everything,
}

impl Selection {
    fn narrow(&self, query: &Query, slots: &SlotSet) -> Query {
        let mut query = query.clone();
        match self {
            Self::Everything => {}
            Self::LabelUnlessAll(_) if *slots == SlotSet::ALL => {}
            Self::Shards => query.shards = slots.shard_selector(),
            Self::Label(label) | Self::LabelUnlessAll(label) => {
                let selector = slots.label_selector(label);
                query.labels = if query.labels.is_empty() { selector } else { format!("{},{selector}", query.labels) };
            }
        }
        query
    }
}

/// Receiver of objects.
pub trait Sink<K>: Send {
    /// Parses an object, and drops the parts that are not needed. Default: all of it is kept.
    fn reader(&self) -> Read<K>
    where
        K: DeserializeOwned,
    {
        read
    }
    /// The slot of an object; None if it has none.
    fn slot_of(&self, object: &K) -> Option<Slot>;
    /// A complete list of these slots, at this version.
    fn listed(&self, slots: &SlotSet, objects: Vec<K>, version: &str);
    /// An object was created or changed. It may come twice, and after a newer one.
    fn applied(&self, object: K);
    /// An object was deleted.
    fn deleted(&self, object: K);
    /// These slots were lost, and their objects are dropped.
    fn dropped(&self, slots: &SlotSet);
    /// Exactly these slots are listed.
    fn synced(&self, slots: SlotSet);
}

struct Group<K> {
    /// Slots whose objects are used.
    slots: SlotSet,
    /// Slots that the API server selects.
    asked: SlotSet,
    synced: bool,
    version: String,
    stream: Pin<Box<dyn Stream<Item = Result<Seen<K>, kube::Error>> + Send>>,
}

/// The watches of one kind.
pub struct Groups<K, S> {
    client: Client,
    query: Query,
    selection: Selection,
    sink: S,
    parts: Vec<Group<K>>,
}

impl<K, S> Groups<K, S>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    S: Sink<K>,
{
    /// Watches of `query`, selected by `selection`.
    pub fn new(client: Client, query: Query, selection: Selection, sink: S) -> Self {
        Self { client, query, selection, sink, parts: Vec::new() }
    }

    /// Follows the owned slots until it is dropped.
    pub async fn run(mut self, mut owned: watch::Receiver<SlotSet>) {
        let mut quiet_at = Instant::now() + QUIET;
        loop {
            if self.follow_ownership(*owned.borrow_and_update()) {
                quiet_at = Instant::now() + QUIET;
            }
            let merges = self.should_merge();
            let (groups, selection) = (&mut self.parts, &self.selection);
            tokio::select! {
                biased;
                changed = owned.changed() => if changed.is_err() {
                    // The sender of owned slots is gone: the incarnation has ended.
                    return;
                },
                (index, item) = next(groups) => self.take(index, item),
                () = sleep_until(quiet_at), if merges => {
                    tracing::debug!(?selection, groups = groups.len(), "watches merged");
                    self.merge();
                }
            }
        }
    }

    /// Returns whether slots were gained or lost.
    fn follow_ownership(&mut self, owned: SlotSet) -> bool {
        let have = self.slots();
        let (lost, gained) = (have.difference(&owned), owned.difference(&have));
        if !lost.is_empty() {
            self.parts.iter_mut().for_each(|group| group.slots = group.slots.difference(&lost));
            self.parts.retain(|group| !group.slots.is_empty());
            self.sink.dropped(&lost);
        }
        if !gained.is_empty() {
            let group = self.group(gained, None);
            self.parts.push(group);
        }
        if lost.is_empty() && gained.is_empty() {
            return false;
        }
        self.publish_synced();
        true
    }

    fn group(&self, slots: SlotSet, from: Option<&str>) -> Group<K> {
        let query = self.selection.narrow(&self.query, &slots);
        let version = from.unwrap_or_default().to_owned();
        let stream = follow_namespaces(self.client.clone(), &query, self.sink.reader(), from.map(str::to_owned));
        Group { slots, asked: slots, synced: from.is_some(), version, stream }
    }

    fn slots(&self) -> SlotSet {
        self.parts.iter().fold(SlotSet::NONE, |all, group| all.union(&group.slots))
    }

    fn publish_synced(&self) {
        let synced = self.parts.iter().filter(|group| group.synced);
        self.sink.synced(synced.fold(SlotSet::NONE, |all, group| all.union(&group.slots)));
    }

    /// Whether there are many groups, or one that selects more than an eighth beyond the slots that are used. Groups of several
    /// namespaces are not merged, because there is no version from which all could continue.
    fn should_merge(&self) -> bool {
        if self.query.namespaces.len() > 1 {
            return false;
        }
        let wasteful = |group: &Group<K>| group.slots.len() * 9 < group.asked.len() * 8;
        self.parts.iter().all(|group| group.synced)
            && (self.parts.len() > GROUPS_MAX || self.parts.iter().any(wasteful))
    }

    fn merge(&mut self) {
        let number = |group: &&Group<K>| group.version.parse::<u64>().unwrap_or(0);
        let oldest = self.parts.iter().min_by_key(number).map(|group| group.version.clone());
        let group = self.group(self.slots(), oldest.as_deref());
        self.parts = vec![group];
    }

    fn take(&mut self, index: usize, item: Result<Seen<K>, kube::Error>) {
        let group = &mut self.parts[index];
        let mine = |object: &K| self.sink.slot_of(object).is_some_and(|slot| group.slots.contains(slot));
        match item {
            Ok(Seen::Listed(objects, version)) => {
                let objects = objects.into_iter().filter(mine).collect();
                self.sink.listed(&group.slots, objects, &version);
                group.version = version;
                group.synced = true;
                self.publish_synced();
            }
            Ok(Seen::Applied(object)) => {
                group.version = object.meta().resource_version.clone().unwrap_or_default();
                if mine(&object) {
                    self.sink.applied(object);
                }
            }
            Ok(Seen::Deleted(object)) => {
                group.version = object.meta().resource_version.clone().unwrap_or_default();
                if mine(&object) {
                    self.sink.deleted(object);
                }
            }
            Ok(Seen::UpTo(version)) => group.version = version,
            Err(error) => {
                counter!("sharding_watch_errors_total").increment(1);
                tracing::debug!(%error, path = self.query.path, "watch interrupted");
            }
        }
    }
}

/// The next event of any group.
async fn next<K>(groups: &mut [Group<K>]) -> (usize, Result<Seen<K>, kube::Error>) {
    std::future::poll_fn(|context| {
        for (index, group) in groups.iter_mut().enumerate() {
            if let Poll::Ready(Some(item)) = group.stream.poll_next_unpin(context) {
                return Poll::Ready((index, item));
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
