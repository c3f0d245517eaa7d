//! Data of a plan, for every kind: the report on an object, a single write (step), and the order of writes.

use std::{fmt, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource,
    core::{DynamicObject, object::HasStatus},
};
use serde::{Serialize, de::DeserializeOwned};

use super::reason::Reason;
use crate::{
    domain::{
        condition,
        key::Key,
        metadata::{MetadataPatch, SecretAdoption},
        object::{Desired, Kind},
    },
    io::events::Notice,
};

/// A kind that is reconciled by plans.
pub trait Reconciled: Resource<DynamicType = ()> + HasStatus<Status: PlanData> + PlanData {
    /// The kind.
    const KIND: Kind;
    /// Phase of an object.
    type Phase: PlanData;
    /// Reason of a condition.
    type Reason: Reason;
    /// Details of a report that only this kind has.
    type Detail: PlanData;
    /// The status that a plan writes. For SiteBackups it is their site's, which records the running operation.
    type Recorded: PlanData + Default + Serialize + DeserializeOwned;
}

/// Requirements of the data in a plan.
pub trait PlanData: Clone + fmt::Debug + PartialEq {}

impl<T: Clone + fmt::Debug + PartialEq> PlanData for T {}

/// Phase, reason and message of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<K: Reconciled> {
    /// The phase.
    pub phase: K::Phase,
    /// The reason.
    pub reason: K::Reason,
    /// Message for users: what is wrong and what to do.
    pub message: String,
    /// Details that only this kind has.
    pub detail: K::Detail,
}

impl<K: Reconciled<Detail: Default>> Report<K> {
    /// A report.
    pub fn new(phase: K::Phase, reason: K::Reason, message: impl Into<String>) -> Self {
        Self { phase, reason, message: message.into(), detail: K::Detail::default() }
    }
}

impl<K: Reconciled> Report<K> {
    /// Whether the Ready condition has this reason already.
    pub fn is_known(&self, conditions: &[Condition]) -> bool {
        condition::find(conditions, "Ready").is_some_and(|it| it.reason == self.reason.to_string())
    }

    /// The Event for it.
    pub fn notice(&self) -> Notice {
        Notice { warning: self.reason.is_warning(), reason: self.reason.to_string(), note: self.message.clone() }
    }
}

/// One write of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<K: Reconciled> {
    /// Patch the metadata of an object of the reconciled kind.
    Patch(Arc<K>, MetadataPatch),
    /// Write the status of such an object if it differs, then publish the Events.
    Status(Arc<K>, Box<K::Status>, Option<Notice>),
    /// A write for one of several objects that are reconciled together: a rejection affects only that object.
    For(Arc<K>, Box<Self>),
    /// Create an object that must not exist yet.
    Create(Desired),
    /// Apply an object if it differs.
    Ensure(Desired),
    /// Adopt an object of another operator, or create it.
    Adopt(Desired),
    /// Keep the current replicas of a Deployment while their owner changes.
    HandOver(Arc<DynamicObject>),
    /// Set the labels of a Secret by which it is watched.
    LabelSecret(Arc<DynamicObject>, MetadataPatch),
    /// Set the label of a user's Secret by which it is watched.
    WatchSecret(Arc<DynamicObject>),
    /// Update the copy of a Secret.
    CopySecret(Key, Desired),
    /// Adopt a Secret of another operator: add this operator's keys and labels.
    AdoptSecret(Arc<DynamicObject>, Box<SecretAdoption>),
    /// Delete this object, by uid.
    Delete(Kind, Arc<DynamicObject>),
}

impl<K: Reconciled> Step<K> {
    /// The object that the step is for, if it is for one of several.
    pub fn of(&self) -> Option<&Arc<K>> {
        match self {
            Self::Patch(of, _) | Self::Status(of, ..) | Self::For(of, _) => Some(of),
            _ => None,
        }
    }

    /// Whether another step makes the same write, for any object.
    pub fn is_same_write(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::For(_, one), Self::For(_, other)) => one == other,
            _ => self == other,
        }
    }
}

/// Writes of a reconcile, in this order: steps, status, preparation of the Job, the Job, last steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<K: Reconciled> {
    /// Writes before the status.
    pub steps: Vec<Step<K>>,
    /// The status, which records an operation before its Job is created.
    pub status: Option<K::Recorded>,
    /// Writes before the Job. If one is rejected, the Job of its object is not created.
    pub prepare: Vec<Step<K>>,
    /// The Job of the recorded operation.
    pub job: Option<Desired>,
    /// A Job that needs a job slot of the bench. Without a free slot the status above is written.
    pub start: Option<Box<Start<K>>>,
    /// Writes after the status and the Job, for example the removal of a finalizer.
    pub last: Vec<Step<K>>,
    /// Time until the next reconcile if nothing changes.
    pub again_after: Option<Duration>,
    /// Whether an object is missing that is not watched: reconcile again with backoff.
    pub missing: bool,
    /// Events to publish.
    pub notices: Vec<Notice>,
}

impl<K: Reconciled> Default for Plan<K> {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            status: None,
            prepare: Vec::new(),
            job: None,
            start: None,
            last: Vec::new(),
            again_after: None,
            missing: false,
            notices: Vec::new(),
        }
    }
}

/// A Job that needs a job slot, with the writes for either case.
#[derive(Clone, Debug, PartialEq)]
pub struct Start<K: Reconciled> {
    /// The Job.
    pub job: Desired,
    /// The status, which records the operation.
    pub status: Option<K::Recorded>,
    /// Events to publish.
    pub notices: Vec<Notice>,
    /// Last write if there is a free job slot.
    pub runs: Option<Step<K>>,
    /// Last write if there is none.
    pub waits: Option<Step<K>>,
}

impl<K: Reconciled> Plan<K> {
    /// The plan if there is a free job slot, or if the Job exists.
    #[must_use]
    pub fn started(mut self) -> Self {
        if let Some(Start { job, status, notices, runs, .. }) = self.start.take().map(|it| *it) {
            (self.job, self.status, self.notices) = (Some(job), status, notices);
            self.last.extend(runs);
        }
        self
    }

    /// The plan if there is no free job slot.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.last.extend(self.start.take().and_then(|it| it.waits));
        self
    }

    /// This plan followed by the next one, whose status and Job take precedence.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let joined = |mut first: Vec<Step<K>>, second: Vec<Step<K>>| {
            first.extend(second);
            first
        };
        Self {
            steps: joined(self.steps, next.steps),
            status: next.status.or(self.status),
            prepare: joined(self.prepare, next.prepare),
            job: next.job.or(self.job),
            start: next.start.or(self.start),
            last: joined(self.last, next.last),
            again_after: self.again_after.into_iter().chain(next.again_after).min(),
            missing: self.missing || next.missing,
            notices: self.notices.into_iter().chain(next.notices).collect(),
        }
    }

    /// The statuses for both cases.
    pub fn statuses(&mut self) -> impl Iterator<Item = &mut K::Recorded> {
        self.status.iter_mut().chain(self.start.as_mut().and_then(|it| it.status.as_mut()))
    }
}

#[cfg(test)]
mod tests {
    use frappe_crds::{FrappeSite, FrappeSiteStatus};
    use serde_json::json;

    use super::*;

    fn status(database_name: &str) -> FrappeSiteStatus {
        FrappeSiteStatus { database_name: Some(database_name.to_owned()), ..FrappeSiteStatus::default() }
    }

    fn write(name: &str) -> Step<FrappeSite> {
        Step::Delete(Kind::Job, Arc::new(DynamicObject::new(name, &Kind::Job.resource())))
    }

    #[test]
    fn two_plans_combine_to_the_later_status_and_the_earlier_time() {
        let after = |seconds| Some(Duration::from_secs(seconds));
        let plan = |name: &str, seconds, missing| Plan::<FrappeSite> {
            status: Some(status(name)),
            again_after: after(seconds),
            missing,
            steps: vec![write(name)],
            ..Plan::default()
        };
        let joined = plan("first", 9, true).then(plan("second", 5, false));
        assert_eq!((&joined.status, joined.again_after, joined.missing), (&Some(status("second")), after(5), true));
        assert_eq!(joined.steps, [write("first"), write("second")]);
        let kept = plan("first", 5, false).then(Plan { again_after: after(9), ..Plan::default() });
        assert_eq!((kept.status, kept.again_after, kept.missing), (Some(status("first")), after(5), false));
    }

    #[test]
    fn the_last_write_depends_on_the_job_slot() {
        let job = Desired { kind: Kind::Job, key: Key::new("a", "shop-init"), body: json!({}) };
        let start = Start {
            job: job.clone(),
            status: Some(status("recorded")),
            notices: Vec::new(),
            runs: Some(write("runs")),
            waits: Some(write("waits")),
        };
        let plan =
            Plan::<FrappeSite> { status: Some(status("waits")), start: Some(Box::new(start)), ..Plan::default() };
        let started = plan.clone().started();
        assert_eq!(
            (started.job, started.status, started.last),
            (Some(job), Some(status("recorded")), vec![write("runs")])
        );
        let waiting = plan.waiting();
        assert_eq!((waiting.job, waiting.status, waiting.last), (None, Some(status("waits")), vec![write("waits")]));
    }
}
