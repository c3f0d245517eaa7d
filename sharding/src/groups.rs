//! Watches of one kind, narrowed by the API server to the slots that a member owns.
//!
//! Slots that are gained are listed and watched by a group of their own, so that what is kept is not listed again. Slots
//! that are lost go from the cache at once, and from the watch later. When there are many groups and it is quiet they
//! become one, which goes on from the oldest version: again without a list.

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
    Slot, SlotSet,
    namespaces::follow_namespaces,
    watch::{Query, Read, Seen, read},
};

/// Groups that may stand before they are merged.
const GROUPS_MAX: usize = 3;
/// How long nothing must have been gained or lost before groups are merged.
const QUIET: Duration = Duration::from_secs(10);

/// How the API server is asked for slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// By a label that holds the slot.
    Label(String),
    /// By such a label, unless all slots are owned: then not at all, so that objects without it are seen too.
    LabelUnlessAll(String),
    /// By ranges of the hash of the uid: for servers that select them, and objects whose own uid decides.
    Shards,
    /// Not at all: the kind is not shared.
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

/// Where objects go.
pub trait Sink<K>: Send {
    /// How an object is read, and what of it is kept: all of it unless told otherwise.
    fn reader(&self) -> Read<K>
    where
        K: DeserializeOwned,
    {
        read
    }
    /// The slot of an object; one without is nobody's.
    fn slot_of(&self, object: &K) -> Option<Slot>;
    /// Everything there is of these slots, at this version.
    fn listed(&self, slots: &SlotSet, objects: Vec<K>, version: &str);
    /// An object is new or changed. It may come twice, and after a newer one.
    fn applied(&self, object: K);
    /// An object is gone.
    fn deleted(&self, object: K);
    /// These slots are lost: their objects are nobody's here any more.
    fn dropped(&self, slots: &SlotSet);
    /// These slots, and no others, were listed.
    fn synced(&self, slots: SlotSet);
}

struct Group<K> {
    /// Slots whose objects are taken from it.
    slots: SlotSet,
    /// Slots that the server was asked for.
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
    /// Watches of what `query` selects, narrowed by `selection`.
    pub fn new(client: Client, query: Query, selection: Selection, sink: S) -> Self {
        Self { client, query, selection, sink, parts: Vec::new() }
    }

    /// Follows what is owned, for ever.
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
                    // Nobody tells any more what is owned: the incarnation has ended.
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

    /// Answers whether anything was gained or lost.
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
        self.tell_synced();
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

    fn tell_synced(&self) {
        let synced = self.parts.iter().filter(|group| group.synced);
        self.sink.synced(synced.fold(SlotSet::NONE, |all, group| all.union(&group.slots)));
    }

    /// Many groups, or one that is asked for more than an eighth above what is taken from it. Several namespaces have no
    /// version that all of them could go on from: their groups stay.
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
                self.tell_synced();
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

/// The next thing that any group sees.
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
