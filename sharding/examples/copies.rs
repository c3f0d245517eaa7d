//! A kind of its own with children: a `Note` is copied into as many ConfigMaps as it says, and its status counts them.
//!
//! `cargo run -p kube-sharding --example copies -- definition | kubectl apply -f -`, then as `configmaps.rs`.
#![allow(clippy::print_stdout, reason = "it prints its definition")]

use std::{error::Error, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Config, CustomResource, CustomResourceExt as _, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use kube_sharding::{Connection, Context, Kind, Objects, Outcome, Settings, Sharded, sharded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is copied, and how often.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, CustomResource)]
#[kube(group = "example.com", version = "v1", kind = "Note", namespaced, status = "NoteStatus")]
pub struct NoteSpec {
    text: String,
    copies: usize,
}

/// How many copies there are.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct NoteStatus {
    copies: usize,
}

async fn reconcile(note: Arc<Note>, context: Context) -> Result<Outcome, kube::Error> {
    let maps = context.api::<ConfigMap>(&note.namespace().unwrap_or_default());
    let wanted: Vec<String> = (0..note.spec.copies).map(|number| format!("{}-{number}", note.name_any())).collect();
    let found = context.children::<ConfigMap>(note.as_ref());
    for name in &wanted {
        let data = Some([("text".to_owned(), note.spec.text.clone())].into());
        if found.iter().any(|map| map.name_any() == *name && map.data == data) {
            continue;
        }
        // Any owner of the note would write the same: a late write does no harm.
        let copy = ConfigMap { metadata: context.child(note.as_ref(), name), data, ..ConfigMap::default() };
        context.store().wrote(maps.patch(name, &PatchParams::apply("copies").force(), &Patch::Apply(&copy)).await?);
    }
    for map in found.iter().filter(|map| !wanted.contains(&map.name_any())) {
        let preconditions = Preconditions { uid: map.uid(), resource_version: None };
        maps.delete(&map.name_any(), &DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() })
            .await?;
    }
    let status = Some(NoteStatus { copies: wanted.len() });
    if note.status != status {
        let next = Note { status, ..Note::clone(&note) };
        let notes = context.api::<Note>(&note.namespace().unwrap_or_default());
        context.store().wrote(notes.replace_status(&note.name_any(), &PostParams::default(), &next).await?);
    }
    Ok(Outcome::Done)
}

/// The controller.
pub fn controller(connection: impl Into<Connection>, settings: Settings) -> Sharded<Objects> {
    sharded(Kind::<Note>::new(), connection, settings).owns(Kind::<ConfigMap>::new()).reconcile(reconcile)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).is_some_and(|it| it == "definition") {
        println!("{}", serde_json::to_string(&Note::crd())?);
        return Ok(());
    }
    let settings = Settings::from_env("example.com", "copies").stop_on_signals();
    controller(Config::infer().await?, settings).run().await?;
    Ok(())
}
