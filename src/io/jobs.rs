//! Creates a SiteJob for a command that a user runs: with the user's own rights.

use frappe_crds::SiteJob;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::made::FIELD_MANAGER;

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
