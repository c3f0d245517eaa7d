//! Objects that a command creates for a user and waits for: with the user's own rights.

use std::fmt::Debug;

use frappe_crds::SiteBackup;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use crate::domain::key::Key;

/// Name under which the API server records the fields that commands set.
pub const FIELD_MANAGER: &str = "kubectl-frappe";

/// Creates a SiteBackup; with `dry_run` the API server only checks it.
pub async fn create_backup(client: &Client, backup: &SiteBackup, dry_run: bool) -> Result<SiteBackup, kube::Error> {
    let backups: Api<SiteBackup> = Api::namespaced(client.clone(), &backup.namespace().unwrap_or_default());
    backups.create(&PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) }, backup).await
}

/// A SiteBackup by its name.
pub async fn backup(client: &Client, key: &Key) -> Result<SiteBackup, kube::Error> {
    Api::namespaced(client.clone(), &key.namespace).get(&key.name).await
}

/// The SiteBackups of a namespace.
pub async fn backups(client: &Client, namespace: &str) -> Result<Vec<SiteBackup>, kube::Error> {
    let backups: Api<SiteBackup> = Api::namespaced(client.clone(), namespace);
    Ok(backups.list(&ListParams::default()).await?.items)
}

/// Waits until an object is as wanted.
pub async fn until<K>(client: &Client, key: &Key, mut wanted: impl FnMut(&K) -> bool) -> Result<K, watcher::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let objects: Api<K> = Api::namespaced(client.clone(), &key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let mut seen = watcher(objects, config).applied_objects().boxed();
    while let Some(object) = seen.try_next().await? {
        if wanted(&object) {
            return Ok(object);
        }
    }
    Err(watcher::Error::NoResourceVersion)
}
