//! ConfigMaps, shared by any number of replicas: each with the label `example.com/count` gets an annotation with the number of
//! its keys. Start it several times, and end one: `kubectl get slotmaps.example.com,leases`.
//!
//! `cargo run -p kube-sharding --example crd -- example.com | kubectl apply -f -`, then
//! `POD_NAME=one cargo run -p kube-sharding --example configmaps`.

use std::{collections::BTreeMap, error::Error, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Config, ResourceExt,
    api::{Patch, PatchParams},
};
use kube_sharding::{Connection, Context, Kind, Objects, Outcome, Settings, Sharded, key::Key, sharded};
use serde_json::json;

const COUNT: &str = "example.com/count";

/// One reconcile: nothing is written where nothing differs, and a write names the version that it is based on, so that a late
/// one changes nothing.
async fn reconcile(map: Arc<ConfigMap>, context: Context) -> Result<Outcome, kube::Error> {
    let count = map.data.as_ref().map_or(0, BTreeMap::len).to_string();
    if map.annotations().get(COUNT) == Some(&count) {
        return Ok(Outcome::Done);
    }
    let maps = context.api::<ConfigMap>(&map.namespace().unwrap_or_default());
    let metadata = json!({"uid": map.uid(), "resourceVersion": map.resource_version(), "annotations": {COUNT: count}});
    let counted =
        maps.patch(&map.name_any(), &PatchParams::default(), &Patch::Merge(&json!({"metadata": metadata}))).await?;
    // Until the watch delivers it.
    context.store().wrote(counted);
    Ok(Outcome::Done)
}

/// The controller: namespaces take turns, each with at most four reconciles at once.
pub fn controller(connection: impl Into<Connection>, settings: Settings) -> Sharded<Objects> {
    sharded(Kind::<ConfigMap>::new().labels(COUNT), connection, settings)
        .lanes(|map| Key::new("", map.namespace().unwrap_or_default()), |_| 4)
        .reconcile(reconcile)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env("example.com", "counters").stop_on_signals();
    controller(Config::infer().await?, settings).run().await?;
    Ok(())
}
