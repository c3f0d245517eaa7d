//! Watches of single objects by name, started at their first use.

use std::sync::Arc;

use dashmap::{DashMap, Entry};
use kube::{Client, core::DynamicObject};
use kube_sharding::{Slot, SlotSet, watch::Query};
use tokio::task::AbortHandle;

use super::cache::Change;
use crate::{
    domain::{key::Key, object::Kind},
    io::{
        cache::Cache,
        compact::Compact,
        watch::{self, Scope},
    },
};

/// State of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Unknown: its watch has just started.
    NotYet,
    /// It does not exist.
    Absent,
    /// Its metadata.
    There(Arc<DynamicObject>),
}

/// Metadata of single objects of one kind. Each is watched from its first use on: they are few.
pub struct Named {
    client: Client,
    kind: Kind,
    changed: Arc<dyn Fn() + Send + Sync>,
    watched: DashMap<Key, (Arc<Cache<DynamicObject>>, AbortHandle)>,
}

impl Named {
    /// Objects of `kind`; `changed` is called when one is known for the first time and when it changes.
    pub fn new(client: Client, kind: Kind, changed: impl Fn() + Send + Sync + 'static) -> Self {
        Self { client, kind, changed: Arc::new(changed), watched: DashMap::new() }
    }

    /// What is known of an object.
    pub fn get(&self, key: &Key) -> Known {
        let cache = match self.watched.entry(key.clone()) {
            Entry::Occupied(entry) => Arc::clone(&entry.get().0),
            Entry::Vacant(entry) => {
                let watch = self.watch(key);
                Arc::clone(&entry.insert(watch).0)
            }
        };
        match cache.get(key) {
            Some(object) => Known::There(object),
            None if *cache.synced().borrow() == SlotSet::ALL => Known::Absent,
            None => Known::NotYet,
        }
    }

    fn watch(&self, key: &Key) -> (Arc<Cache<DynamicObject>>, AbortHandle) {
        let mut query = Query::of::<DynamicObject>(&self.kind.resource(), Some(&key.namespace));
        query.fields = format!("metadata.name={}", key.name);
        query.metadata_only = true;
        let cache = Arc::new(Cache::<DynamicObject>::new(|_: &Compact| Some(Slot::new(0))));
        let changed = Arc::clone(&self.changed);
        let saw = move |_: Change<Compact>| changed();
        let run = watch::run(self.client.clone(), Scope::everything(query), Arc::clone(&cache), saw);
        // An object that does not exist makes no change: that it does not is known with the first list.
        let (mut synced, changed) = (cache.synced(), Arc::clone(&self.changed));
        let task = tokio::spawn(async move {
            let known = async {
                let _ = synced.wait_for(|slots| *slots == SlotSet::ALL).await;
                changed();
                std::future::pending::<()>().await;
            };
            tokio::select! { () = run => {}, () = known => {} }
        });
        (cache, task.abort_handle())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        self.watched.iter().for_each(|entry| entry.value().1.abort());
    }
}
