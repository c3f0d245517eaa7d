//! Data of a site's plan: report, state of the operation, writes.

use std::{collections::BTreeMap, time::Duration};

use frappe_crds::{
    FrappeSite, FrappeSiteStatus,
    site::{Operation, OperationKind, SitePhase},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    controllers::{
        model::{self, Reconciled},
        site::reason::Reason,
    },
    domain::object::Kind,
};

impl Reconciled for FrappeSite {
    type Detail = StageProgress;
    type Phase = SitePhase;
    type Reason = Reason;
    type Recorded = FrappeSiteStatus;

    const KIND: Kind = Kind::Site;
}

/// One write for a site.
pub type Step = model::Step<FrappeSite>;
/// Plan of a site.
pub type Plan = model::Plan<FrappeSite>;
/// A Job of a site that needs a job slot.
pub type Start = model::Start<FrappeSite>;
/// Phase, reason and message of a site.
pub type Report = model::Report<FrappeSite>;

/// Word for an operation in the names of its Jobs.
pub fn verb(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Init => "init",
        // Not "configure": the bench's configure Job would have the same name as that of a site with the bench's name.
        OperationKind::Configure => "apply",
        OperationKind::Update => "update",
        OperationKind::Delete => "delete",
    }
}

/// Stages of a site, in order; each has a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The bench is ready.
    Bench,
    /// Database, user and grants exist.
    Database,
    /// The site was created.
    Init,
    /// The host is routed to the site.
    Route,
    /// The site is Ready.
    Done,
}

/// Progress of a site through its stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageProgress {
    /// First stage that is not complete.
    pub reached: Stage,
    /// Stage that the reason is about.
    pub at: Stage,
    /// Whether something is being created or changed (condition Progressing).
    pub moving: bool,
}

impl Report {
    /// The site waits for another object.
    pub fn pending(reached: Stage, at: Stage, reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Pending, reason, message, detail: StageProgress { reached, at, moving: false } }
    }

    /// A user must change something.
    pub fn failed(reached: Stage, at: Stage, reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Failed, ..Self::pending(reached, at, reason, message) }
    }

    /// The site is being created.
    pub fn provisioning(at: Stage, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase: SitePhase::Provisioning, ..Self::pending(at, at, reason, message.into()) }.moving()
    }

    /// The site is available.
    pub fn ready(reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Ready, ..Self::pending(Stage::Done, Stage::Done, reason, message) }
    }

    /// The site is available, and nothing is being changed.
    pub fn available() -> Self {
        Self::ready(Reason::Ready, "site is initialized and routed".to_owned())
    }

    /// The same, while something is being created or changed.
    #[must_use]
    pub fn moving(self) -> Self {
        Self { detail: StageProgress { moving: true, ..self.detail }, ..self }
    }
}

/// A site's configuration, as passed to the site runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigurationRequest {
    /// Apps to install, without frappe.
    pub apps: Vec<String>,
    /// Settings.
    pub config: BTreeMap<String, Value>,
    /// Hosts of the site.
    pub hosts: Vec<String>,
    /// Apps to uninstall.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed_apps: Vec<String>,
    /// Settings whose values are in Secrets.
    pub secret_config: Vec<String>,
}

/// The configuration of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The runner's request, without secrets.
    pub request: ConfigurationRequest,
    /// Hash of the request and of the versions of the Secrets that it reads; a new hash needs a new Job.
    pub hash: String,
    /// Version of the Secret with the password of Administrator.
    pub admin_password_version: Option<String>,
}

/// Next action for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It succeeded.
    Done,
    /// This attempt is running or starts now: it is recorded, then its Job is created if it does not exist.
    Run(Operation),
    /// The attempt failed, and the operation is retried after a delay.
    Retry {
        /// The failed attempt, with its outcome.
        operation: Operation,
        /// The delay.
        after: Duration,
        /// Message for users.
        message: String,
    },
    /// The operation failed permanently.
    Failed {
        /// The last attempt, with its outcome.
        operation: Operation,
        /// Message for users.
        message: String,
    },
}
