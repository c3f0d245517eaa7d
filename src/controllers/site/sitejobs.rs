//! Reads the SiteJobs of a site, and the Job of the running one.

use std::sync::Arc;

use frappe_crds::{FrappeSite, SiteJob};
use kube::{Api, ResourceExt, core::DynamicObject};

use super::{model::Of, place::Place, under_way::site_job_key};
use crate::{
    controllers::{
        context::Context,
        job,
        ran::{self, Run},
    },
    domain::{key::Key, labels, object::Kind},
    io::live,
};

/// The site's SiteJobs. The running one is read live if it is in no watch: while its label changes, it is in neither, and would look
/// deleted.
async fn site_jobs(context: &Context, site: &FrappeSite) -> Result<Vec<Arc<SiteJob>>, kube::Error> {
    let key = Key::of(site);
    let mut found: Vec<Arc<SiteJob>> = context.companions_of(&key);
    let running = site.status.as_ref().and_then(|status| status.job.as_ref());
    if let Some(operation) = running
        && found.iter().all(|it| it.uid().as_ref() != Some(&operation.site_job_uid))
    {
        let api: Api<SiteJob> = Api::namespaced(context.client.clone(), &key.namespace);
        let live = api.get_opt(&operation.site_job).await?;
        found.extend(live.filter(|it| it.uid().as_ref() == Some(&operation.site_job_uid)).map(Arc::new));
    }
    Ok(found)
}

/// The Job of the running SiteJob.
fn site_job(context: &Context, site: &FrappeSite) -> Option<Arc<DynamicObject>> {
    let operation = site.status.as_ref()?.job.as_ref()?;
    let job = context.site_children.get(Kind::Job, &site_job_key(&Place::of(site), operation))?;
    (job.labels().get(labels::SITE_UID) == site.uid().as_ref()).then_some(job)
}

/// SiteJobs of a site, the Job of the running one, its result, and what its process has left.
pub(super) type Found = (Vec<Arc<SiteJob>>, Option<Arc<DynamicObject>>, (Option<job::Ended>, Option<Run>));

/// The site's SiteJobs if they are reconciled, and the Job of the running one. The result of its pod is read until the operation is removed
/// from the site's status, so once or twice.
pub(super) async fn found(context: &Context, site: &FrappeSite, of: Of) -> Result<Found, kube::Error> {
    let running = site_job(context, site);
    if of != Of::Jobs {
        return Ok((Vec::new(), running, (None, None)));
    }
    let result = match running.as_deref().filter(|job| job::state(job) != job::State::Running) {
        Some(job) => {
            let pods = live::pods_of(&context.client, &Key::of(job)).await?;
            (job::ended(job, &pods), ran::run(&pods))
        }
        None => (None, None),
    };
    Ok((site_jobs(context, site).await?, running, result))
}
