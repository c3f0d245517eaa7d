//! Watches the operator's results: it only knows the kinds of objects.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client, ResourceExt,
    api::ApiResource,
    core::{DynamicObject, GroupVersionKind},
    runtime::watcher,
};

/// Namespace of benches and sites.
pub(crate) const NAMESPACE: &str = "loadtest";
/// Annotation that an edit sets in the site's spec, and the operator in its Ingress.
pub(crate) const EDIT_ANNOTATION: &str = "external-dns.alpha.kubernetes.io/ttl";
/// Delay after a failed watch.
const RETRY: Duration = Duration::from_millis(200);

/// Durations since the last call of `take`, in milliseconds.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) ready: Vec<f64>,
    pub(crate) edit: Vec<f64>,
    pub(crate) delete: Vec<f64>,
}

#[derive(Default)]
struct State {
    creating: HashMap<String, Instant>,
    deleting: HashMap<String, Instant>,
    /// Edits that are not in the Ingress yet: their number and start.
    edits: HashMap<String, Vec<(u64, Instant)>>,
    ready: HashSet<String>,
    waits: Waits,
}

/// Records when requested changes are applied.
#[derive(Clone, Default)]
pub(crate) struct Tracker(Arc<Mutex<State>>);

fn milliseconds(since: &Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// The API of the sites.
pub(crate) fn sites(client: &Client) -> Api<DynamicObject> {
    objects(client, "vyogo.tech", "v1alpha1", "FrappeSite")
}

/// The API of the benches.
pub(crate) fn benches(client: &Client) -> Api<DynamicObject> {
    objects(client, "vyogo.tech", "v1alpha1", "FrappeBench")
}

fn objects(client: &Client, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(group, version, kind);
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind))
}

impl Tracker {
    /// Watches until the process ends.
    pub(crate) fn start(client: &Client) -> Self {
        let this = Self::default();
        let config = || watcher::Config::default().any_semantic();
        let stream = watcher(sites(client), config());
        tokio::spawn(follow(stream.boxed(), this.clone(), Self::site));
        let ingresses = objects(client, "networking.k8s.io", "v1", "Ingress");
        tokio::spawn(follow(watcher(ingresses, config()).boxed(), this.clone(), Self::ingress));
        this
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records that a site is about to be created.
    pub(crate) fn creates(&self, name: &str) {
        self.with(|state| state.creating.insert(name.to_owned(), Instant::now()));
    }

    /// Records that a site is about to be edited; `number` counts all edits.
    pub(crate) fn edits(&self, name: &str, number: u64) {
        self.with(|state| state.edits.entry(name.to_owned()).or_default().push((number, Instant::now())));
    }

    /// Records that a site is about to be deleted. Its edits are no longer pending.
    pub(crate) fn deletes(&self, name: &str) {
        self.with(|state| {
            state.edits.remove(name);
            state.deleting.insert(name.to_owned(), Instant::now())
        });
    }

    /// Records that the request failed: its change is no longer pending.
    pub(crate) fn forget(&self, name: &str, edit: Option<u64>) {
        self.with(|state| match edit {
            Some(number) => {
                if let Some(edits) = state.edits.get_mut(name) {
                    edits.retain(|(known, _)| *known != number);
                }
            }
            None => drop((state.creating.remove(name), state.deleting.remove(name))),
        });
    }

    fn site(&self, site: &DynamicObject, gone: bool) {
        let name = site.name_any();
        self.with(|state| {
            if gone {
                state.ready.remove(&name);
                let since = state.deleting.remove(&name);
                state.waits.delete.extend(since.as_ref().map(milliseconds));
            } else if site.data["status"]["phase"] == "Ready" {
                let since = state.creating.remove(&name);
                state.waits.ready.extend(since.as_ref().map(milliseconds));
                if since.is_some() {
                    state.ready.insert(name);
                }
            }
        });
    }

    fn ingress(&self, ingress: &DynamicObject, gone: bool) {
        let Some(shown) = ingress.annotations().get(EDIT_ANNOTATION).and_then(|it| it.parse::<u64>().ok()) else {
            return;
        };
        let owner = ingress.owner_references().iter().find(|it| it.kind == "FrappeSite").map(|it| it.name.clone());
        let name = owner.unwrap_or_else(|| ingress.name_any().trim_end_matches("-ingress").to_owned());
        if gone {
            return;
        }
        self.with(|state| {
            let Some(edits) = state.edits.get_mut(&name) else { return };
            let done: Vec<f64> =
                edits.extract_if(.., |(number, _)| *number <= shown).map(|(_, since)| milliseconds(&since)).collect();
            state.waits.edit.extend(done);
        });
    }

    /// Number of existing sites that became Ready.
    pub(crate) fn ready(&self) -> usize {
        self.with(|state| state.ready.len())
    }

    /// Number of pending creations, edits and deletions.
    pub(crate) fn pending(&self) -> [usize; 3] {
        self.with(|state| [state.creating.len(), state.edits.values().map(Vec::len).sum(), state.deleting.len()])
    }

    /// Durations since the last call.
    pub(crate) fn take(&self) -> Waits {
        self.with(|state| std::mem::take(&mut state.waits))
    }
}

async fn follow(
    mut stream: impl Stream<Item = Result<watcher::Event<DynamicObject>, watcher::Error>> + Unpin,
    tracker: Tracker,
    seen: fn(&Tracker, &DynamicObject, bool),
) {
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => seen(&tracker, &object, false),
            Ok(watcher::Event::Delete(object)) => seen(&tracker, &object, true),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            // Measured durations must not contain this client's backoff.
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
