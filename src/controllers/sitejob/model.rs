//! Data of a site's SiteJobs: plan and report.

use frappe_crds::{FrappeSiteStatus, SiteJob, job::JobPhase};

use super::reason::Reason;
use crate::{
    controllers::model::{self, Reconciled},
    domain::{code::Code, object::Kind},
};

impl Reconciled for SiteJob {
    /// Why it failed.
    type Detail = Option<Code>;
    type Phase = JobPhase;
    type Reason = Reason;
    type Recorded = FrappeSiteStatus;

    const KIND: Kind = Kind::SiteJob;
}

/// One write for a SiteJob.
pub type Step = model::Step<SiteJob>;
/// Plan of a site's SiteJobs.
pub type Plan = model::Plan<SiteJob>;
/// A Job of a SiteJob that needs a job slot.
pub type Start = model::Start<SiteJob>;
/// Phase, reason and message of a SiteJob.
pub type Report = model::Report<SiteJob>;
