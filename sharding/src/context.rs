//! What a reconcile of typed objects is given.

use std::{
    any::{Any, TypeId, type_name},
    collections::BTreeMap,
    sync::Arc,
};

use kube::{Api, Client, Resource, ResourceExt, api::ObjectMeta, core::NamespaceResourceScope};

use crate::{cache::Cache, gate::Scope, key::Key, kind::Object, session::Session, slot::Slot, uid};

/// The caches of a controller's kinds, by type.
#[derive(Default)]
pub struct Stores(BTreeMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Stores {
    pub(crate) fn insert<K: Object>(&mut self, slot_of: fn(&K) -> Option<Slot>) {
        self.0.insert(TypeId::of::<K>(), Arc::new(Cache::<K>::new(slot_of)));
    }

    /// The cache of a kind.
    ///
    /// # Panics
    /// If the builder was not told to watch the kind.
    pub fn of<K: Object>(&self) -> Arc<Cache<K>> {
        let store = self.0.get(&TypeId::of::<K>()).cloned().and_then(|it| it.downcast::<Cache<K>>().ok());
        store.unwrap_or_else(|| unwatched(type_name::<K>()))
    }
}

#[allow(clippy::panic, reason = "the builder was not told to watch a kind that a reconcile reads")]
fn unwatched(kind: &str) -> ! {
    panic!("{kind} is not watched by this controller")
}

/// What a reconcile is given: a client for its object's slot, and the caches. Cheap to clone; of no use after the reconcile.
#[derive(Clone)]
pub struct Context {
    session: Session,
    stores: Arc<Stores>,
    client: Client,
    epoch: i64,
}

impl Context {
    pub(crate) fn new(session: Session, stores: Arc<Stores>, scope: Scope, epoch: i64) -> Self {
        Self { client: session.client_of(scope), session, stores, epoch }
    }

    /// A client whose writes pass the gate as the object's owner: they are refused when this replica no longer owns it.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The API of a kind in a namespace, by that client.
    pub fn api<C>(&self, namespace: &str) -> Api<C>
    where
        C: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), namespace)
    }

    /// The epoch of this replica's ownership: it rises whenever the slot gets another owner.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The cache of a kind that is watched.
    ///
    /// # Panics
    /// If the builder was not told to watch it.
    pub fn store<C: Object>(&self) -> Arc<Cache<C>> {
        self.stores.of::<C>()
    }

    /// The objects of a kind whose controller is this object, by name.
    ///
    /// # Panics
    /// If the builder was not told to watch the kind.
    pub fn children<C: Object>(&self, of: &impl Resource) -> Vec<Arc<C>> {
        let is_child = |it: &Arc<C>| {
            it.owner_references().iter().any(|owner| owner.controller == Some(true) && owner.uid == uid::of(of))
        };
        let mut children: Vec<_> = self.store::<C>().all().into_iter().filter(is_child).collect();
        children.sort_by_cached_key(|child| Key::of(child.as_ref()));
        children
    }

    /// Metadata of a new object of this one: its namespace, owner reference, and the label of its slot, by which its watch is
    /// selected.
    pub fn child<K: Object>(&self, of: &K, name: impl Into<String>) -> ObjectMeta {
        let label = (self.session.names().slot_label(), uid::slot_of(of).to_string());
        ObjectMeta {
            labels: Some([label].into()),
            owner_references: Some(of.controller_owner_ref(&()).into_iter().collect()),
            ..Key::new(of.namespace().unwrap_or_default(), name).named(ObjectMeta::default())
        }
    }

    /// What one incarnation works with.
    pub fn session(&self) -> &Session {
        &self.session
    }
}
