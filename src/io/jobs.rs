//! Creates a SiteJob and waits for its end, for a command that a user runs: with the user's own rights.

use frappe_crds::SiteJob;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use crate::domain::key::Key;

/// Name under which the API server records the fields that commands set.
const FIELD_MANAGER: &str = "kubectl-frappe";

/// Creates a SiteJob, and before it the ConfigMap of its name with its script, which is deleted with it. With `dry_run` the API server only
/// checks it.
pub async fn create(
    client: &Client,
    job: &SiteJob,
    script: Option<(&str, &str)>,
    dry_run: bool,
) -> Result<SiteJob, kube::Error> {
    let namespace = job.namespace().unwrap_or_default();
    let post = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
    let (jobs, maps): (Api<SiteJob>, Api<ConfigMap>) =
        (Api::namespaced(client.clone(), &namespace), Api::namespaced(client.clone(), &namespace));
    let name = job.name_any();
    if let Some((key, text)) = script {
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            data: Some([(key.to_owned(), text.to_owned())].into()),
            ..ConfigMap::default()
        };
        maps.create(&post, &map).await?;
    }
    let made = jobs.create(&post, job).await;
    if script.is_none() || dry_run {
        return made;
    }
    match made {
        Ok(made) => {
            let owners = json!({"metadata": {"ownerReferences": [made.owner_ref(&())]}});
            let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            maps.patch(&name, &parameters, &Patch::Merge(owners)).await?;
            Ok(made)
        }
        Err(error) => {
            maps.delete(&name, &kube::api::DeleteParams::default()).await?;
            Err(error)
        }
    }
}

/// Waits until a SiteJob is as wanted.
pub async fn until(
    client: &Client,
    key: &Key,
    mut wanted: impl FnMut(&SiteJob) -> bool,
) -> Result<SiteJob, watcher::Error> {
    let jobs: Api<SiteJob> = Api::namespaced(client.clone(), &key.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", key.name));
    let mut seen = watcher(jobs, config).applied_objects().boxed();
    while let Some(job) = seen.try_next().await? {
        if wanted(&job) {
            return Ok(job);
        }
    }
    Err(watcher::Error::NoResourceVersion)
}
