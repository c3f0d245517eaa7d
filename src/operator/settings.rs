//! The ConfigMap `frappe-operator-config`, watched: an edit takes effect at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube_sharding::{Slot, SlotSet, feed::Scope, session::Session, watch::Query};
use metrics::gauge;
use tokio::sync::watch;

use super::{concerned::Concerned, reason::INVALID_VALUE};
use crate::{
    config::{self, BadValue, CONFIG_MAP, OperatorConfig},
    controllers::objects::reference,
    domain::{key::Key, object::Kind},
    io::{
        cache::{Cache, Change},
        events::{Events, Notice},
    },
};

/// Starts the watch; what is returned is whole once the settings are read. `changed` is called when they change, with whom
/// that concerns.
pub(super) fn start(
    session: &Session,
    namespace: &str,
    events: Events,
    settings: watch::Sender<Arc<OperatorConfig>>,
    changed: impl Fn(Concerned) + Send + Sync + 'static,
) -> watch::Receiver<SlotSet> {
    report(&settings.borrow());
    let cache = Arc::new(Cache::<ConfigMap>::new(|_| Some(Slot::new(0))));
    let query = Query { fields: format!("metadata.name={CONFIG_MAP}"), ..Query::of::<ConfigMap>(&(), Some(namespace)) };
    let known = Mutex::new(BTreeMap::new());
    let take = move |change: Change<ConfigMap>| {
        let data = match &change {
            Change::Applied { now, .. } => now.data.clone().unwrap_or_default(),
            Change::Deleted(_) => BTreeMap::new(),
        };
        let former = std::mem::replace(&mut *known.lock().unwrap_or_else(PoisonError::into_inner), data.clone());
        let last_good = settings.borrow().clone();
        let (next, bad) = config::parse(&data, &last_good);
        report_bad_values(&events, change.object(), &bad);
        report(&next);
        if next != *last_good {
            tracing::info!(keys = changed_keys(&former, &data), "configuration changed");
            let concerned = Concerned::by(&last_good, &next);
            settings.send_replace(Arc::new(next));
            changed(concerned);
        }
    };
    session.feed(Scope::everything(query), cache, take)
}

/// Names of the keys that were added, changed or removed; values may be long.
fn changed_keys(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let keys: BTreeSet<&str> =
        before.keys().chain(now.keys()).filter(|key| before.get(*key) != now.get(*key)).map(String::as_str).collect();
    keys.into_iter().collect::<Vec<_>>().join(", ")
}

/// The limit that counts for benches that set none of their own.
fn report(config: &OperatorConfig) {
    let most = u32::try_from(config.max_concurrent_site_reconciles).unwrap_or(u32::MAX);
    gauge!("controller_runtime_max_concurrent_reconciles", "controller" => "frappesite").set(f64::from(most));
}

/// Says what was not taken where people look: Event, log, metric.
fn report_bad_values(events: &Events, map: &ConfigMap, bad: &[BadValue]) {
    gauge!("frappe_operator_config_bad_values").set(f64::from(u32::try_from(bad.len()).unwrap_or(u32::MAX)));
    for value in bad {
        let about = reference(Kind::ConfigMap, &Key::of(map), map.uid());
        let note = format!("{}: {}; the last valid value stays in effect", value.key, value.problem);
        let notice = Notice { warning: true, reason: INVALID_VALUE.to_owned(), note };
        let events = events.clone();
        tokio::spawn(async move { events.publish(&about, &notice).await });
    }
}
