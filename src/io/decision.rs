//! Writes a user's decision about a bench or a site, for a command that the user runs: with the user's own rights, and under a field manager of its own.

use frappe_crds::{FrappeBench, FrappeSite};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::Value;

use super::made::FIELD_MANAGER;
use crate::domain::key::Key;

/// Merges a change into a bench, and returns it as changed; with `dry_run` the API server only checks it.
pub async fn change_bench(
    client: &Client,
    key: &Key,
    change: Value,
    dry_run: bool,
) -> Result<FrappeBench, kube::Error> {
    let benches: Api<FrappeBench> = Api::namespaced(client.clone(), &key.namespace);
    benches.patch(&key.name, &parameters(dry_run), &Patch::Merge(change)).await
}

/// Merges a change into a site; with `dry_run` the API server only checks it.
pub async fn change_site(client: &Client, key: &Key, change: Value, dry_run: bool) -> Result<(), kube::Error> {
    let sites: Api<FrappeSite> = Api::namespaced(client.clone(), &key.namespace);
    sites.patch_metadata(&key.name, &parameters(dry_run), &Patch::Merge(change)).await.map(drop)
}

fn parameters(dry_run: bool) -> PatchParams {
    PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
