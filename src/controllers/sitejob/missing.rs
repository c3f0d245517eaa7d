//! SiteJobs whose site does not exist. Pure.

use std::sync::Arc;

use frappe_crds::{SiteJob, job::JobPhase};
use jiff::Timestamp;

use super::{
    model::{Report, Step},
    reason::Reason,
    status::{self, kept},
};
use crate::{controllers::companion::Companion, domain::key::Key};

impl Companion for SiteJob {
    fn site_name(&self) -> &str {
        &self.spec.site_ref.name
    }

    fn report_missing_site(known: &Arc<Self>, site: &Key, now: Timestamp) -> Option<Step> {
        let report = kept(known).unwrap_or_else(|| {
            let message = format!("FrappeSite {site} not found; the SiteJob starts once it exists");
            Report::new(JobPhase::Pending, Reason::SiteNotFound, message)
        });
        let next = status::status(known, &report, now);
        let differs = known.metadata.deletion_timestamp.is_none() && known.status.as_ref() != Some(&next);
        differs.then(|| Step::Status(known.clone(), Box::new(next), None))
    }
}
