//! What is to be done for the SiteBackups of a site, as data.

use std::sync::Arc;

use frappe_crds::{FrappeSiteStatus, SiteBackup, backup::BackupPhase, site::BackupOperation};

use super::reason::Reason;
use crate::{
    controllers::model::{self, Reconciled},
    domain::{code::Code, object::Kind},
};

impl Reconciled for SiteBackup {
    /// Why a Job failed permanently.
    type Detail = Option<Code>;
    type Phase = BackupPhase;
    type Reason = Reason;
    type Recorded = FrappeSiteStatus;

    const KIND: Kind = Kind::SiteBackup;
}

/// One write for a SiteBackup.
pub type Step = model::Step<SiteBackup>;
/// What to do for the SiteBackups of a site.
pub type Plan = model::Plan<SiteBackup>;
/// A Job that a SiteBackup wants.
pub type Start = model::Start<SiteBackup>;
/// Where a SiteBackup stands.
pub type Report = model::Report<SiteBackup>;

/// What is due.
pub struct Due {
    /// The SiteBackup.
    pub backup: Arc<SiteBackup>,
    /// What is to be done for it.
    pub operation: BackupOperation,
}
