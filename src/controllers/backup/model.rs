//! Data of a site's SiteBackups: plan, report and due operations.

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
/// Plan of a site's SiteBackups.
pub type Plan = model::Plan<SiteBackup>;
/// A Job of a SiteBackup that needs a job slot.
pub type Start = model::Start<SiteBackup>;
/// Phase, reason and message of a SiteBackup.
pub type Report = model::Report<SiteBackup>;

/// A due operation.
pub struct Due {
    /// The SiteBackup.
    pub backup: Arc<SiteBackup>,
    /// The operation.
    pub operation: BackupOperation,
}
