//! Watches of single objects by name, started at their first use: for objects that many may reference and few are used.

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use kube::Resource;
use tokio::sync::watch;

use crate::{
    cache::{Cache, Change},
    feed::Scope,
    keep::{Keep, Whole},
    key::Key,
    session::Session,
    slot::{Slot, SlotSet},
    watch::Query,
};

/// What is known of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Known<K> {
    /// Nothing: its watch has just started.
    NotYet,
    /// It does not exist.
    Absent,
    /// The object.
    There(Arc<K>),
}

/// Single objects of one kind. Each is watched from its first use on, until the incarnation ends.
pub struct Named<K: Resource, P: Keep<K> = Whole> {
    session: Session,
    kind: K::DynamicType,
    metadata_only: bool,
    changed: Arc<dyn Fn() + Send + Sync>,
    watched: DashMap<Key, Arc<Cache<K, P>>>,
}

impl<K, P> Named<K, P>
where
    K: Resource + Send + Sync + 'static,
    P: Keep<K>,
{
    /// Objects of a kind; `changed` is called when one is known for the first time and when it changes.
    pub fn new(session: Session, kind: K::DynamicType, changed: impl Fn() + Send + Sync + 'static) -> Self {
        Self { session, kind, metadata_only: false, changed: Arc::new(changed), watched: DashMap::new() }
    }

    /// Only the metadata of each.
    #[must_use]
    pub fn metadata_only(self) -> Self {
        Self { metadata_only: true, ..self }
    }

    /// What is known of an object.
    pub fn get(&self, key: &Key) -> Known<K> {
        let cache = match self.watched.entry(key.clone()) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => Arc::clone(&entry.insert(self.watch(key))),
        };
        match cache.get(key) {
            Some(object) => Known::There(object),
            None if *cache.synced().borrow() == SlotSet::ALL => Known::Absent,
            None => Known::NotYet,
        }
    }

    fn watch(&self, key: &Key) -> Arc<Cache<K, P>> {
        let namespace = Some(key.namespace.as_str()).filter(|it| !it.is_empty());
        let mut query = Query::of::<K>(&self.kind, namespace);
        query.fields = format!("metadata.name={}", key.name);
        query.metadata_only = self.metadata_only;
        let cache = Arc::new(Cache::<K, P>::new(|_: &P::Form| Some(Slot::new(0))));
        let changed = Arc::clone(&self.changed);
        let saw = move |_: Change<P::Form>| changed();
        let synced = self.session.feed(Scope::everything(query), Arc::clone(&cache), saw);
        // An object that does not exist makes no change: that it does not is known with the first list.
        self.session.spawn(listed(synced, Arc::clone(&self.changed)));
        cache
    }
}

/// Calls `changed` when everything is listed.
async fn listed(mut synced: watch::Receiver<SlotSet>, changed: Arc<dyn Fn() + Send + Sync>) {
    if synced.wait_for(|slots| *slots == SlotSet::ALL).await.is_ok() {
        changed();
    }
}
