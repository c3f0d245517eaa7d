//! What a plan is made of: where a site stands, how far its operation is, what is to be written. Data alone.

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
    type Detail = Standing;
    type Phase = SitePhase;
    type Reason = Reason;
    type Recorded = FrappeSiteStatus;

    const KIND: Kind = Kind::Site;
}

/// One write for a site.
pub type Step = model::Step<FrappeSite>;
/// What to do for a site.
pub type Plan = model::Plan<FrappeSite>;
/// A Job that a site wants.
pub type Start = model::Start<FrappeSite>;
/// Where a site stands.
pub type Report = model::Report<FrappeSite>;

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
    /// The host is routed to it.
    Route,
    /// Nothing is left to do.
    Done,
}

/// State of a site on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// First stage that is not reached.
    pub reached: Stage,
    /// Stage that the reason is about.
    pub at: Stage,
    /// Whether something is being made or changed.
    pub moving: bool,
}

impl Report {
    /// It waits for something that is not its own.
    pub fn pending(reached: Stage, at: Stage, reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Pending, reason, message, detail: Standing { reached, at, moving: false } }
    }

    /// It cannot go on without a user.
    pub fn failed(reached: Stage, at: Stage, reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Failed, ..Self::pending(reached, at, reason, message) }
    }

    /// It is being made.
    pub fn provisioning(at: Stage, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase: SitePhase::Provisioning, ..Self::pending(at, at, reason, message.into()) }.moving()
    }

    /// It is served.
    pub fn ready(reason: Reason, message: String) -> Self {
        Self { phase: SitePhase::Ready, ..Self::pending(Stage::Done, Stage::Done, reason, message) }
    }

    /// Something of it is being made or changed.
    #[must_use]
    pub fn moving(self) -> Self {
        Self { detail: Standing { moving: true, ..self.detail }, ..self }
    }
}

/// What the runner is told of a site's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigurationRequest {
    /// Apps to install, without frappe.
    pub apps: Vec<String>,
    /// Settings.
    pub config: BTreeMap<String, Value>,
    /// Hosts that the site is reached at.
    pub hosts: Vec<String>,
    /// Apps that the site must not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed_apps: Vec<String>,
    /// Settings whose values are in Secrets.
    pub secret_config: Vec<String>,
}

/// The configuration of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What the runner is told, without any secret.
    pub request: ConfigurationRequest,
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
    /// This attempt is in progress, or is to begin: it is recorded, then its Job is made if it is not there.
    Run(Operation),
    /// It failed and is retried after this time.
    Retry {
        /// The try, with how it ended.
        operation: Operation,
        /// Time until then.
        after: Duration,
        /// What is reported to users.
        message: String,
    },
    /// It failed permanently.
    Failed {
        /// The last try, with how it ended.
        operation: Operation,
        /// What is reported to users.
        message: String,
    },
}
