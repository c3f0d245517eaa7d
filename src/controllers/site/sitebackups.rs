//! Reads the SiteBackups of a site, and the Job of the running operation.

use std::{collections::BTreeSet, sync::Arc};

use frappe_crds::{FrappeSite, SiteBackup};
use kube::{Api, ResourceExt, core::DynamicObject};

use super::{place::Place, under_way::job_key};
use crate::{
    controllers::{context::Context, job},
    domain::{key::Key, labels, object::Kind},
    io::live,
};

/// The site's SiteBackups. The one with the running operation is read live if it is in no watch: while its label changes, it is in
/// neither, and would look deleted.
pub(super) async fn backups(context: &Context, site: &FrappeSite) -> Result<Vec<Arc<SiteBackup>>, kube::Error> {
    let key = Key::of(site);
    let mut found: Vec<Arc<SiteBackup>> = context.companions_of(&key);
    let under_way = site.status.as_ref().and_then(|status| status.backup.as_ref());
    if let Some(operation) = under_way
        && found.iter().all(|it| it.uid().as_ref() != Some(&operation.site_backup_uid))
    {
        let api: Api<SiteBackup> = Api::namespaced(context.client.clone(), &key.namespace);
        let live = api.get_opt(&operation.site_backup).await?;
        found.extend(live.filter(|it| it.uid().as_ref() == Some(&operation.site_backup_uid)).map(Arc::new));
    }
    Ok(found)
}

/// Volumes that SiteBackups reference and that belong to a bench or a MariaDB of the namespace, by their names.
pub(super) fn taken_claims(context: &Context, place: &Place, backups: &[Arc<SiteBackup>]) -> BTreeSet<String> {
    let is_taken = |claim: &String| {
        let of_queue = || claim.strip_prefix("data-")?.strip_suffix("-redis-queue-0");
        let of_bench = claim.strip_suffix("-sites").or_else(of_queue);
        let of_server = claim.strip_prefix("storage-").and_then(|it| it.rsplit_once('-')).map(|it| it.0);
        of_bench.is_some_and(|name| context.benches.get(&Key::new(&place.namespace, name)).is_some())
            || of_server.is_some_and(|name| {
                context.site_children.get(Kind::MariaDb, &Key::new(&place.namespace, name)).is_some()
            })
    };
    let storages = backups.iter().filter_map(|it| it.spec.storage.as_ref()?.persistent_volume_claim.as_ref());
    storages.map(|it| it.claim_name.clone()).filter(is_taken).collect()
}

/// The Job of the running operation.
pub(super) fn backup_job(context: &Context, site: &FrappeSite) -> Option<Arc<DynamicObject>> {
    let operation = site.status.as_ref()?.backup.as_ref()?;
    let job = context.site_children.get(Kind::Job, &job_key(&Place::of(site), operation))?;
    (job.labels().get(labels::SITE_UID) == site.uid().as_ref()).then_some(job)
}

/// The result of the backup's pod. It is read until the operation is removed from the site's status, so once or twice.
pub(super) async fn backup_result(
    context: &Context,
    job: Option<&DynamicObject>,
) -> Result<Option<job::Ended>, kube::Error> {
    let Some(job) = job.filter(|it| job::state(it) != job::State::Running) else { return Ok(None) };
    Ok(job::ended(job, &live::pods_of(&context.client, &Key::of(job)).await?))
}
