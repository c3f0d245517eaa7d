//! Controllers of typed objects: [`sharded`] and [`coordinated`], for whom what they watch is all there is to say.

use std::{
    any::{TypeId, type_name},
    collections::BTreeSet,
    error::Error,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use tokio::sync::watch;
use tracing::Instrument as _;

use crate::{
    cache::Change,
    client::Connection,
    context::{Context, Stores},
    controller::Controller,
    feed,
    gate::Scope,
    groups::Selection,
    key::Key,
    kind::{Kind, Object},
    lanes::{Priority, rates::Rates, runner::Outcome},
    readiness::{Awaits, Source},
    session::Session,
    sharded::{Settings, Sharded, Work},
    slot::{Slot, SlotSet},
    uid,
};

/// Reconciles at once, unless the builder says another number.
const IN_FLIGHT_MAX: usize = 16;

/// A controller whose objects of this kind are shared between its replicas by the hash of their uid.
pub fn sharded<K: Object>(kind: Kind<K>, connection: impl Into<Connection>, settings: Settings) -> Builder<K> {
    Builder::new(kind, connection.into(), settings, Role::Sharded)
}

/// A controller whose objects of this kind are all reconciled by one replica, the coordinator.
pub fn coordinated<K: Object>(kind: Kind<K>, connection: impl Into<Connection>, settings: Settings) -> Builder<K> {
    Builder::new(kind, connection.into(), settings, Role::Coordinated)
}

/// Who reconciles the objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sharded,
    Coordinated,
}

impl Role {
    fn scope<K: Object>(self, object: &K) -> Scope {
        match self {
            Self::Sharded => Scope::Slot(uid::slot_of(object)),
            Self::Coordinated => Scope::Coordinator,
        }
    }
}

type Lane<K> = Arc<dyn Fn(&K) -> Key + Send + Sync>;
type Limit = Arc<dyn Fn(&Key) -> usize + Send + Sync>;
/// Makes the caches of a kind, at the start of an incarnation.
type Prepare = Box<dyn Fn(&mut Stores) + Send + Sync>;
/// Starts a watch.
type Start = Box<dyn Fn(&Arc<Objects>, &Session) -> Source + Send + Sync>;
/// Queues the objects of these slots, or all of the coordinator.
type Requeue = Box<dyn Fn(&Objects, &SlotSet) + Send + Sync>;
/// Plans a watch that queues objects of a controller.
type Watch<K> = Box<dyn FnOnce(&Queued<K>, &mut Plan)>;

/// What is watched, and what is queued again when it becomes ready.
#[derive(Default)]
struct Plan {
    /// The kinds that are watched, by type.
    kinds: Vec<(TypeId, &'static str)>,
    prepare: Vec<Prepare>,
    start: Vec<Start>,
    gained: Vec<Requeue>,
    coordinates: Vec<Requeue>,
}

/// What an incarnation of a controller of typed objects works with.
pub struct Objects {
    session: Session,
    stores: Arc<Stores>,
    plan: Arc<Plan>,
}

impl Work for Objects {
    fn watches(self: &Arc<Self>, session: &Session) -> Vec<Source> {
        self.plan.start.iter().map(|start| start(self, session)).collect()
    }

    fn gained(&self, slots: &SlotSet) {
        self.plan.gained.iter().for_each(|requeue| requeue(self, slots));
    }

    fn coordinates(&self) {
        self.plan.coordinates.iter().for_each(|requeue| requeue(self, &SlotSet::ALL));
    }
}

/// Where objects of a kind are queued.
struct Queued<K> {
    name: &'static str,
    role: Role,
    lane: Lane<K>,
}

impl<K> Clone for Queued<K> {
    fn clone(&self) -> Self {
        Self { lane: Arc::clone(&self.lane), ..*self }
    }
}

impl<K: Object> Queued<K> {
    /// Queues an object, if this replica owns it.
    fn push(&self, objects: &Objects, object: &K, priority: Priority) {
        if !objects.session.gate().owns(self.role.scope(object)) {
            return;
        }
        let Some(queue) = objects.session.queue(self.name) else { return };
        let (lane, key) = ((self.lane)(object), Key::of(object));
        match priority {
            // What no user waits for waits until no more changes follow.
            Priority::Normal => queue.settle(lane, key),
            _ => queue.push(lane, key, priority),
        }
    }

    /// Queues the object of this key, since something that it depends on changed.
    fn wake(&self, objects: &Objects, key: &Key) {
        if let Some(object) = objects.stores.of::<K>().get(key) {
            self.push(objects, &object, Priority::Normal);
        }
    }

    fn wake_all(&self, objects: &Objects, slots: &SlotSet) {
        let mine = |object: &Arc<K>| self.role == Role::Coordinated || slots.contains(uid::slot_of(object.as_ref()));
        let mut all = objects.stores.of::<K>().all();
        all.retain(mine);
        // Always in the same order, so that a test can be repeated.
        all.sort_by_cached_key(|object| Key::of(object.as_ref()));
        for object in &all {
            self.push(objects, object, Priority::Low);
        }
    }
}

/// Builds a controller. [`Builder::reconcile`] ends it.
#[must_use = "it does nothing until it is run"]
pub struct Builder<K> {
    kind: Kind<K>,
    connection: Connection,
    settings: Settings,
    queued: Queued<K>,
    limit: Limit,
    rates: Rates,
    in_flight_max: usize,
    watched: Vec<Watch<K>>,
    plan: Plan,
    others: Vec<Controller<Objects>>,
}

/// Name of a kind's controller in metrics, as controller-runtime has it.
fn name<K: Object>() -> &'static str {
    // One for each controller of a process.
    Box::leak(K::kind(&()).to_lowercase().into_boxed_str())
}

impl<K: Object> Builder<K> {
    fn new(kind: Kind<K>, connection: Connection, settings: Settings, role: Role) -> Self {
        let queued = Queued { name: name::<K>(), role, lane: Arc::new(|_: &K| Key::default()) };
        Self {
            kind,
            connection,
            settings,
            queued,
            limit: Arc::new(|_| usize::MAX),
            rates: Rates::default(),
            in_flight_max: IN_FLIGHT_MAX,
            watched: Vec::new(),
            plan: Plan::default(),
            others: Vec::new(),
        }
    }

    /// Groups objects into lanes, which take turns; each starts at most `limit` reconciles at once, read when it starts one;
    /// 0 counts as 1. Default: one lane without a limit.
    pub fn lanes(
        mut self,
        lane: impl Fn(&K) -> Key + Send + Sync + 'static,
        limit: impl Fn(&Key) -> usize + Send + Sync + 'static,
    ) -> Self {
        (self.queued.lane, self.limit) = (Arc::new(lane), Arc::new(limit));
        self
    }

    /// Reconciles that may start in a second. Default: no limit.
    #[cfg(feature = "rates")]
    pub fn rates(self, rates: Rates) -> Self {
        Self { rates, ..self }
    }

    /// Most reconciles of each kind at once in this replica, over all lanes. Default: 16.
    pub fn at_once(self, in_flight_max: usize) -> Self {
        Self { in_flight_max, ..self }
    }

    /// Watches objects that have an object of this controller as their controller, and the slot label that
    /// [`Context::child`] sets: a change reconciles the owner. The API server selects those of this replica's slots.
    pub fn owns<C: Object>(mut self, kind: Kind<C>) -> Self {
        self.watched.push(Box::new(move |queued, plan| {
            let (queued, role) = (queued.clone(), queued.role);
            plan.keep::<C>(if role == Role::Sharded { slot_of_owner::<K, C> } else { one_slot });
            plan.start.push(Box::new(move |objects, session| {
                let selection = match role {
                    Role::Sharded => Selection::Label(session.names().slot_label()),
                    Role::Coordinated => Selection::Everything,
                };
                let (queued, woken) = (queued.clone(), Arc::clone(objects));
                let changed = move |change: Change<C>| {
                    for key in owner_keys::<K, C>(change.object()) {
                        queued.wake(&woken, &key);
                    }
                };
                let scope = feed::Scope { query: kind.query.clone(), selection, owned: owned(session, role) };
                watch::<C>(objects, session, role, scope, changed)
            }));
        }));
        self
    }

    /// Watches objects that several objects of this controller may read, in every replica: a change reconciles those that `keys`
    /// names.
    pub fn watches<C: Object>(mut self, kind: Kind<C>, keys: impl Fn(&C) -> Vec<Key> + Send + Sync + 'static) -> Self {
        self.watched.push(Box::new(move |queued, plan| {
            let (queued, keys) = (queued.clone(), Arc::new(keys));
            plan.keep::<C>(one_slot);
            plan.start.push(Box::new(move |objects, session| {
                let (queued, woken, keys) = (queued.clone(), Arc::clone(objects), Arc::clone(&keys));
                let changed = move |change: Change<C>| {
                    for key in keys(change.object()) {
                        queued.wake(&woken, &key);
                    }
                };
                let scope = feed::Scope::everything(kind.query.clone());
                Source::new(session.feed(scope, objects.stores.of::<C>(), changed), [Awaits::Member])
            }));
        }));
        self
    }

    /// Adds a kind whose objects only the coordinator reconciles.
    pub fn coordinates<C, F, R, E>(mut self, kind: Kind<C>, reconcile: F) -> Self
    where
        C: Object,
        F: Fn(Arc<C>, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Outcome, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let queued = Queued { name: name::<C>(), role: Role::Coordinated, lane: Arc::new(|_: &C| Key::default()) };
        self.plan.add(kind, queued.clone());
        self.others.push(controller(&queued, self.in_flight_max, reconcile));
        self
    }

    /// Reconciles an object with this function: after a change of it or of what it depends on, only in the replica that owns it,
    /// and never twice at once. An error is retried with backoff, by its cause ([`Outcome::of_error`]).
    pub fn reconcile<F, R, E>(self, reconcile: F) -> Sharded<Objects>
    where
        F: Fn(Arc<K>, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Outcome, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (limit, rates) = (self.limit, self.rates);
        let controller = controller(&self.queued, self.in_flight_max, reconcile)
            .limit(move |_, lane| limit(lane))
            .with_rates(move |_| watch::channel(rates).1);
        let probe = match self.queued.role {
            Role::Sharded => self.kind.query.each().into_iter().map(|it| it.path).collect(),
            Role::Coordinated => Vec::new(),
        };
        let mut plan = self.plan;
        for watch in self.watched {
            watch(&self.queued, &mut plan);
        }
        plan.add(self.kind, self.queued);
        let invalid = plan.watched_twice().map(crate::sharded::Error::WatchedTwice);
        let plan = Arc::new(plan);
        let begin = move |session: &Session| {
            let mut stores = Stores::default();
            plan.prepare.iter().for_each(|prepare| prepare(&mut stores));
            Objects { session: session.clone(), stores: Arc::new(stores), plan: Arc::clone(&plan) }
        };
        let built = Sharded::new(self.connection, self.settings, begin).by_hash(probe).controller(controller);
        // `at_once` may have been called after `coordinates`.
        let others = self.others.into_iter().map(|it| it.at_once(self.in_flight_max));
        others.fold(built, Sharded::controller).invalid(invalid)
    }
}

impl Plan {
    /// Makes a cache of a kind in each incarnation.
    fn keep<K: Object>(&mut self, slot_of: fn(&K) -> Option<Slot>) {
        self.kinds.push((TypeId::of::<K>(), type_name::<K>()));
        self.prepare.push(Box::new(move |stores| stores.insert::<K>(slot_of)));
    }

    /// The type that is watched twice, if there is one.
    fn watched_twice(&self) -> Option<&'static str> {
        let mut seen = BTreeSet::new();
        self.kinds.iter().find(|(kind, _)| !seen.insert(*kind)).map(|(_, name)| *name)
    }

    /// Watches the objects of a controller.
    fn add<K: Object>(&mut self, kind: Kind<K>, queued: Queued<K>) {
        let role = queued.role;
        self.keep::<K>(if role == Role::Sharded { own_slot } else { one_slot });
        let all = queued.clone();
        let requeue: Requeue = Box::new(move |objects, slots| all.wake_all(objects, slots));
        match role {
            Role::Sharded => self.gained.push(requeue),
            Role::Coordinated => self.coordinates.push(requeue),
        }
        self.start.push(Box::new(move |objects, session| {
            let by_hash = role == Role::Sharded && session.selects_shards();
            let selection = if by_hash { Selection::Shards } else { Selection::Everything };
            let scope = feed::Scope { query: kind.query.clone(), selection, owned: owned(session, role) };
            let (queued, woken) = (queued.clone(), Arc::clone(objects));
            let changed = move |change: Change<K>| {
                if let Change::Applied { now, .. } = &change {
                    queued.push(&woken, now, priority(&change));
                }
                if role == Role::Sharded {
                    let known = woken.stores.of::<K>().len();
                    woken.session.handle().count_objects(known as u64);
                }
            };
            watch::<K>(objects, session, role, scope, changed)
        }));
    }
}

/// Starts the watch of a kind; what waits for it follows from who reconciles.
fn watch<K: Object>(
    objects: &Arc<Objects>,
    session: &Session,
    role: Role,
    scope: feed::Scope,
    changed: impl Fn(Change<K>) + Send + 'static,
) -> Source {
    let awaits = match role {
        Role::Sharded => Awaits::Slots,
        Role::Coordinated => Awaits::Coordinator,
    };
    Source::new(session.feed(scope, objects.stores.of::<K>(), changed), [awaits])
}

/// The controller of a kind.
fn controller<K, F, R, E>(queued: &Queued<K>, in_flight_max: usize, reconcile: F) -> Controller<Objects>
where
    K: Object,
    F: Fn(Arc<K>, Context) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Outcome, E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let (name, role, reconcile) = (queued.name, queued.role, Arc::new(reconcile));
    let known = |objects: &Objects, key: &Key| objects.stores.of::<K>().get(key);
    let each = move |objects: Arc<Objects>, key: Key, scope: Scope, epoch: i64| {
        let span = tracing::info_span!("reconcile", controller = name, %key);
        let object = known(&objects, &key).filter(|object| role.scope(object.as_ref()) == scope);
        let reconcile = Arc::clone(&reconcile);
        let work = async move {
            let Some(object) = object else { return Outcome::Done };
            let context = Context::new(objects.session.clone(), Arc::clone(&objects.stores), scope, epoch);
            match reconcile(object, context).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    let error: Box<dyn Error + Send + Sync> = error.into();
                    tracing::warn!(error = error.as_ref(), "reconcile failed, will be retried");
                    Outcome::of_error(error.as_ref())
                }
            }
        };
        work.instrument(span)
    };
    Controller::new(name, in_flight_max, each)
        .scopes(move |objects, key| known(objects, key).iter().map(|object| role.scope(object.as_ref())).collect())
}

/// While what is owned a watch runs.
fn owned(session: &Session, role: Role) -> watch::Receiver<SlotSet> {
    match role {
        Role::Sharded => session.ownership().held.clone(),
        Role::Coordinated => session.ownership().coordinates.clone(),
    }
}

/// High if a user changed it: then generation or deletion time differ.
fn priority<K: Object>(change: &Change<K>) -> Priority {
    let Change::Applied { now, before: Some(before) } = change else { return Priority::Normal };
    let edited = |object: &K| (object.meta().generation, object.meta().deletion_timestamp.clone());
    if edited(now) == edited(before) { Priority::Normal } else { Priority::High }
}

#[allow(clippy::unnecessary_wraps, reason = "the form that a cache wants")]
fn own_slot<K: Object>(object: &K) -> Option<Slot> {
    Some(uid::slot_of(object))
}

/// Kinds that are not shared are all in one.
#[allow(clippy::unnecessary_wraps, reason = "the form that a cache wants")]
fn one_slot<K: Object>(_: &K) -> Option<Slot> {
    Some(Slot::new(0))
}

/// The controller of an object, if it is a `K`.
fn owner<K: Object, C: Object>(child: &C) -> Option<&OwnerReference> {
    let is_owner = |it: &&OwnerReference| {
        it.controller == Some(true) && it.kind == K::kind(&()) && it.api_version == K::api_version(&())
    };
    child.owner_references().iter().find(is_owner)
}

fn slot_of_owner<K: Object, C: Object>(child: &C) -> Option<Slot> {
    owner::<K, C>(child).map(|it| Slot::of_uid(&it.uid))
}

/// An owner is in the namespace of its object, or cluster-scoped.
fn owner_keys<K: Object, C: Object>(child: &C) -> Vec<Key> {
    let namespaces = [child.namespace().unwrap_or_default(), String::new()];
    owner::<K, C>(child).map(|it| namespaces.map(|namespace| Key::new(namespace, &it.name)).into()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use kube::api::ObjectMeta;

    use super::*;

    fn child(kind: &str, api_version: &str, controller: Option<bool>) -> Secret {
        let (kind, api_version) = (kind.to_owned(), api_version.to_owned());
        let owner = OwnerReference {
            kind,
            api_version,
            name: "map".into(),
            uid: "u".into(),
            controller,
            ..OwnerReference::default()
        };
        let metadata =
            ObjectMeta { namespace: Some("n".into()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
        Secret { metadata, ..Secret::default() }
    }

    #[test]
    fn a_child_is_of_its_controller_of_that_kind() {
        let keys = owner_keys::<ConfigMap, Secret>;
        assert_eq!(keys(&child("ConfigMap", "v1", Some(true))), [Key::new("n", "map"), Key::new("", "map")]);
        for other in [
            child("Secret", "v1", Some(true)),
            child("ConfigMap", "example.com/v1", Some(true)),
            child("ConfigMap", "v1", Some(false)),
            child("ConfigMap", "v1", None),
        ] {
            assert_eq!((keys(&other), slot_of_owner::<ConfigMap, Secret>(&other)), (Vec::new(), None));
        }
    }

    #[test]
    fn an_edit_is_urgent_and_what_controllers_write_is_not() {
        let map = |generation| {
            let metadata = ObjectMeta { generation: Some(generation), ..ObjectMeta::default() };
            Arc::new(ConfigMap { metadata, ..ConfigMap::default() })
        };
        let priority_of = |before| priority(&Change::Applied { now: map(2), before });
        assert_eq!(priority_of(Some(map(1))), Priority::High);
        assert_eq!(priority_of(Some(map(2))), Priority::Normal);
        assert_eq!(priority_of(None), Priority::Normal, "a list");
    }
}
