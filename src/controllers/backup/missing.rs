//! SiteBackups whose site does not exist. Pure.

use std::sync::Arc;

use frappe_crds::{SiteBackup, backup::BackupPhase};
use jiff::Timestamp;

use super::{
    model::{Report, Step},
    reason::Reason,
    removal,
    status::{self, Times},
    waiting::ended_once,
};
use crate::{controllers::companion::Companion, domain::key::Key};

impl Companion for SiteBackup {
    fn site_name(&self) -> &str {
        &self.spec.site_ref.name
    }

    /// Reports that the site does not exist, or the result of a finished SiteBackup, whose conditions may report a rejected write.
    fn report_missing_site(known: &Arc<Self>, site: &Key, now: Timestamp) -> Option<Step> {
        let report = ended_once(known).unwrap_or_else(|| {
            let message = format!("FrappeSite {site} not found; the backup starts once it exists");
            Report::new(BackupPhase::Pending, Reason::SiteNotFound, message)
        });
        let next = status::status(known, &report, &Times::default(), None, now);
        let differs = known.metadata.deletion_timestamp.is_none() && known.status.as_ref() != Some(&next);
        differs.then(|| Step::Status(known.clone(), Box::new(next), None))
    }

    /// Without a site no backup can be removed, so the finalizer is removed.
    fn finalizers_without_site(&self) -> Option<Vec<String>> {
        removal::has_finalizer(self).then(|| removal::other_finalizers(self))
    }
}
