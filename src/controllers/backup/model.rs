//! What is to be done for the SiteBackups of a site, as data.

use std::{sync::Arc, time::Duration};

use frappe_crds::{FrappeSiteStatus, SiteBackup, SiteBackupStatus, site::BackupOperation};
use kube::core::DynamicObject;
use serde_json::Value;

use crate::{
    domain::{key::Key, object::Desired},
    io::events::Notice,
};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Change the metadata of a SiteBackup.
    Patch(Arc<SiteBackup>, Value),
    /// Write the status of a SiteBackup, if it differs, and then tell people.
    Status(Arc<SiteBackup>, Box<SiteBackupStatus>, Option<Notice>),
    /// Delete the Job that runs.
    StopJob(Arc<DynamicObject>),
    /// Give a Secret that the storage of a SiteBackup names the label by which its changes are seen.
    WatchSecret(Arc<SiteBackup>, Arc<DynamicObject>),
    /// Bring a copy of such a Secret, of this key, to what that one holds.
    CopySecret(Arc<SiteBackup>, Key, Box<Desired>),
}

/// What to do, in this order. What the API server refuses of one SiteBackup stops neither what ended nor another SiteBackup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes before the site's status: what ended.
    pub steps: Vec<Step>,
    /// The site's status where it records another operation than before: before the Job of one is made, and after its end was
    /// written down.
    pub site_status: Option<FrappeSiteStatus>,
    /// Labels of SiteBackups, and the Secrets that their storages name. One that is refused stops the Job of its SiteBackup.
    pub prepare: Vec<Step>,
    /// The Job of the recorded operation.
    pub job: Option<Desired>,
    /// A Job that is wanted, which takes room in the bench's budget.
    pub start: Option<Box<Start>>,
    /// Writes after that: where each stands.
    pub last: Vec<Step>,
    /// When to look again although nothing changed.
    pub again_after: Option<Duration>,
    /// Whether something is missing that no watch shows: look again with backoff.
    pub missing: bool,
}

impl Step {
    /// The SiteBackup that it is for.
    pub fn of(&self) -> Option<&Arc<SiteBackup>> {
        match self {
            Self::Patch(backup, _)
            | Self::Status(backup, ..)
            | Self::WatchSecret(backup, _)
            | Self::CopySecret(backup, ..) => Some(backup),
            Self::StopJob(_) => None,
        }
    }

    /// Whether another step writes the same: of two SiteBackups that name one Secret.
    pub fn is_same_write(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::WatchSecret(_, one), Self::WatchSecret(_, other)) => one == other,
            (Self::CopySecret(_, _, one), Self::CopySecret(_, _, other)) => one == other,
            _ => false,
        }
    }
}

/// What is due.
pub struct Due {
    /// The SiteBackup.
    pub backup: Arc<SiteBackup>,
    /// What is to be done for it.
    pub operation: BackupOperation,
}

/// A Job that a plan wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The Job.
    pub job: Desired,
    /// The site's status, which records the operation.
    pub site_status: FrappeSiteStatus,
    /// Says of its SiteBackup that it runs, where there is room for the Job.
    pub runs: Option<Step>,
    /// Says that it waits for room, where there is none.
    pub waits: Option<Step>,
}

impl Plan {
    /// The plan where there is room for the Job that it wants, or where the Job is there.
    #[must_use]
    pub fn started(mut self) -> Self {
        if let Some(Start { job, site_status, runs, .. }) = self.start.take().map(|it| *it) {
            (self.job, self.site_status) = (Some(job), Some(site_status));
            self.last.extend(runs);
        }
        self
    }

    /// The plan where there is no room for the Job that it wants.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.last.extend(self.start.take().and_then(|it| it.waits));
        self
    }
}
