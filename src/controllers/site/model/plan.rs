//! What a plan is made of: where a site stands, how far its operation is, what is to be written. Data alone.

use std::{sync::Arc, time::Duration};

use frappe_crds::{
    FrappeSiteStatus,
    site::{Operation, OperationKind, SitePhase},
};
use kube::core::DynamicObject;
use serde_json::Value;

use crate::{
    controllers::site::reason::Reason,
    domain::{
        key::Key,
        object::{Desired, Kind},
    },
    io::events::Notice,
};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Change the site's own metadata.
    PatchSite(Value),
    /// Give a Secret the labels by which its changes are seen.
    LabelSecret(Arc<DynamicObject>, Value),
    /// Give a Secret of the user's the label by which its changes are seen.
    WatchSecret(Arc<DynamicObject>),
    /// Bring a copy of the Secret of this key to what that one holds.
    CopySecret(Key, Desired),
    /// Give the Secret of another operator what this one's has, and its labels.
    AdoptSecret(Arc<DynamicObject>, Value),
    /// Take over what another operator made of the site, or make it.
    TakeOver(Desired),
    /// Create what must not be there yet.
    Create(Desired),
    /// Bring an object to what it should be, if it differs.
    Ensure(Desired),
    /// Delete exactly this object.
    Delete(Kind, Arc<DynamicObject>),
}

/// What to do, in this order: steps, status, the Job, the last steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes before the status.
    pub steps: Vec<Step>,
    /// The status. It records an operation before its Job is made.
    pub status: Option<FrappeSiteStatus>,
    /// The Job of the recorded operation.
    pub job: Option<Desired>,
    /// A Job that is wanted, which takes room in the bench's budget. Without room the status above stands.
    pub start: Option<Box<Start>>,
    /// Writes after the status: the finalizer goes last.
    pub last: Vec<Step>,
    /// When to look again although nothing changed.
    pub again_after: Option<Duration>,
    /// Whether something is missing that no watch shows: look again with backoff.
    pub missing: bool,
    /// What to tell people.
    pub notice: Option<Notice>,
}

/// A Job that a plan wants, and what is said of the site where there is room for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The Job.
    pub job: Desired,
    /// The status, which records the operation.
    pub status: Option<FrappeSiteStatus>,
    /// What to tell people.
    pub notice: Option<Notice>,
}

impl Plan {
    /// The plan where there is room for the Job that it wants, or where the Job is there.
    #[must_use]
    pub fn started(mut self) -> Self {
        if let Some(Start { job, status, notice }) = self.start.take().map(|it| *it) {
            (self.job, self.status, self.notice) = (Some(job), status, notice);
        }
        self
    }

    /// The plan where there is no room for the Job that it wants.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.start = None;
        self
    }

    /// The status with room and without.
    pub fn statuses(&mut self) -> impl Iterator<Item = &mut FrappeSiteStatus> {
        self.status.iter_mut().chain(self.start.as_mut().and_then(|it| it.status.as_mut()))
    }
}

/// Word for an operation in the names of its Jobs.
pub fn verb(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Init => "init",
        // Not "configure": the bench's own Job of that name would meet that of a site which is named like the bench.
        OperationKind::Configure => "apply",
        OperationKind::Delete => "delete",
    }
}

/// The stages of a site's way, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The bench is there and ready.
    Bench,
    /// Database, account and rights are there.
    Database,
    /// The site was created.
    Init,
    /// The host leads to it.
    Route,
    /// Nothing is left to do.
    Done,
}

/// Where a site stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its phase.
    pub phase: SitePhase,
    /// First stage that is not reached.
    pub reached: Stage,
    /// Stage that the reason is about.
    pub at: Stage,
    /// Why it stands there.
    pub reason: Reason,
    /// The same for people: what is wrong and what to do.
    pub message: String,
    /// Whether something is being made or changed.
    pub moving: bool,
}

impl Report {
    /// It waits for something that is not its own.
    pub fn pending(reached: Stage, at: Stage, reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Pending, reached, at, reason, message, moving: false }
    }

    /// It cannot go on without a person.
    pub fn failed(reached: Stage, at: Stage, reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Failed, reached, at, reason, message, moving: false }
    }

    /// It is being made.
    pub fn provisioning(at: Stage, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase: SitePhase::Provisioning, reached: at, at, reason, message: message.into(), moving: true }
    }

    /// It is served.
    pub fn ready(reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Ready, reached: Stage::Done, at: Stage::Done, reason, message, moving: false }
    }
}

/// The configuration of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What the runner is told, without any secret.
    pub request: Value,
    /// Hash of it and of the versions of what it reads: another hash needs another run.
    pub hash: String,
    /// Version of the Secret with the password of Administrator.
    pub admin_password_version: Option<String>,
}

/// What is to be done next for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It succeeded.
    Done,
    /// This attempt is under way, or is to begin: it is recorded, then its Job is made if it is not there.
    Run(Operation),
    /// It failed and is tried again after this time.
    Retry {
        /// The try, with how it ended.
        operation: Operation,
        /// Time until then.
        after: Duration,
        /// What people are told.
        message: String,
    },
    /// It failed for good.
    Failed {
        /// The last try, with how it ended.
        operation: Operation,
        /// What people are told.
        message: String,
    },
}
