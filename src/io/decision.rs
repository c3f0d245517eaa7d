//! Writes a user's decision about a bench, for a command that the user runs: with the user's own rights, and under a field manager of its own.

use frappe_crds::FrappeBench;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::Value;

use crate::domain::key::Key;

/// Name under which the API server records the fields that commands set.
const FIELD_MANAGER: &str = "kubectl-frappe";

/// Merges a change into a bench; with `dry_run` the API server only checks it.
pub async fn change_bench(client: &Client, key: &Key, change: Value, dry_run: bool) -> Result<(), kube::Error> {
    let benches: Api<FrappeBench> = Api::namespaced(client.clone(), &key.namespace);
    let field_manager = Some(FIELD_MANAGER.to_owned());
    let parameters = PatchParams { dry_run, field_manager, ..PatchParams::default() };
    benches.patch(&key.name, &parameters, &Patch::Merge(change)).await.map(drop)
}
