//! Watches: one task for each kind keeps a cache and says which objects changed.

use std::{hash::Hash, sync::Arc, time::Instant};

use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::store::Writer,
        watcher::{self, Event},
    },
};
use metrics::counter;
use serde::de::DeserializeOwned;

use crate::io::cache::Cache;

/// Longest time of one watch request, in seconds: a dead connection is noticed after this. The next watch goes on
/// where this one ended; nothing is listed again.
const WATCH_TIMEOUT_SECONDS: u32 = 55;

/// What a watch saw.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// The object is new or differs from `before`.
    Applied {
        /// As it is now.
        now: Arc<K>,
        /// As the cache had it.
        before: Option<Arc<K>>,
    },
    /// The object is gone.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object, as it is or last was.
    pub fn object(&self) -> &K {
        match self {
            Self::Applied { now, .. } | Self::Deleted(now) => now,
        }
    }
}

/// A selector for a watch; an empty one selects everything.
pub fn config(labels: &str) -> watcher::Config {
    let config = watcher::Config::default().timeout(WATCH_TIMEOUT_SECONDS);
    if labels.is_empty() { config } else { config.labels(labels) }
}

/// Watches objects of one kind, keeps `cache` and calls `changed` for each change, until the task is dropped.
pub async fn run<K, F>(api: Api<K>, config: watcher::Config, mut writer: Writer<K>, cache: Arc<Cache<K>>, changed: F)
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    K::DynamicType: Clone + Eq + Hash + Send + Sync,
    F: Fn(Change<K>) + Send,
{
    let stream = watcher::watcher(api, config).default_backoff();
    drive(stream.boxed(), &mut writer, &cache, changed).await;
}

/// Like [`run`], but of each object only its metadata is transferred and kept.
pub async fn run_metadata<K, F>(
    api: Api<PartialObjectMeta<K>>,
    config: watcher::Config,
    mut writer: Writer<DynamicObject>,
    cache: Arc<Cache<DynamicObject>>,
    changed: F,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    F: Fn(Change<DynamicObject>) + Send,
{
    let stream = watcher::watcher(api, config).default_backoff().map(|item| item.map(bare));
    drive(stream.boxed(), &mut writer, &cache, changed).await;
}

fn bare<K>(event: Event<PartialObjectMeta<K>>) -> Event<DynamicObject> {
    let object = |it: PartialObjectMeta<K>| DynamicObject {
        types: it.types,
        metadata: it.metadata,
        data: serde_json::Value::Null,
    };
    match event {
        Event::Apply(it) => Event::Apply(object(it)),
        Event::InitApply(it) => Event::InitApply(object(it)),
        Event::Delete(it) => Event::Delete(object(it)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

async fn drive<K, S, F>(mut stream: S, writer: &mut Writer<K>, cache: &Cache<K>, changed: F)
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + Hash,
    S: futures::Stream<Item = watcher::Result<Event<K>>> + Unpin,
    F: Fn(Change<K>),
{
    let mut list_begun = Instant::now();
    let mut listed: std::collections::HashSet<String> = std::collections::HashSet::new();
    let mut pending = Vec::new();
    while let Some(item) = stream.next().await {
        let mut event = match item {
            Ok(event) => event,
            Err(error) => {
                counter!("frappe_operator_watch_errors_total").increment(1);
                tracing::debug!(%error, "watch was interrupted");
                continue;
            }
        };
        prune(&mut event);
        let before = cache.before(&event, list_begun);
        match &event {
            Event::Init => {
                list_begun = Instant::now();
                listed.clear();
            }
            Event::InitApply(object) => {
                listed.extend(object.meta().uid.clone());
                if before.as_ref().and_then(|it| it.resource_version()) != object.resource_version() {
                    pending.push(Change::Applied { now: Arc::new(object.clone()), before });
                }
            }
            Event::InitDone => {
                let gone = |it: &Arc<K>| it.meta().uid.as_ref().is_none_or(|uid| !listed.contains(uid));
                pending.extend(cache.all().into_iter().filter(gone).map(Change::Deleted));
            }
            Event::Apply(object) => pending.push(Change::Applied { now: Arc::new(object.clone()), before }),
            Event::Delete(object) => pending.push(Change::Deleted(Arc::new(object.clone()))),
        }
        writer.apply_watcher_event(&event);
        if !matches!(event, Event::Init | Event::InitApply(_)) {
            pending.drain(..).for_each(&changed);
        }
        if matches!(event, Event::InitDone) {
            cache.mark_synced();
        }
    }
}

/// Drops what no reconcile reads: managedFields are half of most objects.
fn prune<K: Resource>(event: &mut Event<K>) {
    if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = event {
        object.meta_mut().managed_fields = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some(format!("uid-{name}")),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    /// A list after a lost watch: what changed, what went and what came is told; what stayed the same is not.
    #[tokio::test]
    async fn a_second_list_tells_what_the_watch_missed() {
        let mut writer = Writer::<ConfigMap>::new(());
        let cache = Cache::new(writer.as_reader(), ());
        let told = Mutex::new(Vec::new());
        let events = vec![
            Event::Init,
            Event::InitApply(object("same", "1")),
            Event::InitApply(object("changed", "2")),
            Event::InitApply(object("gone", "3")),
            Event::InitDone,
            Event::Init,
            Event::InitApply(object("same", "1")),
            Event::InitApply(object("changed", "4")),
            Event::InitApply(object("new", "5")),
            Event::InitDone,
        ];
        drive(stream::iter(events.into_iter().map(Ok)), &mut writer, &cache, |change| {
            let verb = if matches!(change, Change::Deleted(_)) { "-" } else { "+" };
            told.lock().expect("no panic while held").push(format!("{verb}{}", change.object().name_any()));
        })
        .await;
        let mut told = told.into_inner().expect("no panic while held");
        let (first, second) = told.split_at_mut(3);
        first.sort();
        second.sort();
        assert_eq!(first, ["+changed", "+gone", "+same"]);
        assert_eq!(second, ["+changed", "+new", "-gone"]);
    }
}
