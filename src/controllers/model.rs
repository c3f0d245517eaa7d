//! What the plans of every kind are made of, as data: where an object stands, one write, and the order of writes.

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
pub trait Reconciled: Resource<DynamicType = ()> + HasStatus<Status: Told> + Told {
    /// The kind.
    const KIND: Kind;
    /// How far an object of it is.
    type Phase: Told;
    /// Why.
    type Reason: Reason;
    /// What a report says beside that.
    type Detail: Told;
    /// The status that a plan writes: of SiteBackups that of their site, which records what is in progress.
    type Recorded: Told + Default + Serialize + DeserializeOwned;
}

/// What a plan may hold.
pub trait Told: Clone + fmt::Debug + PartialEq {}

impl<T: Clone + fmt::Debug + PartialEq> Told for T {}

/// Where an object stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<K: Reconciled> {
    /// Its phase.
    pub phase: K::Phase,
    /// Why it stands there.
    pub reason: K::Reason,
    /// Message for users: what is wrong and what to do.
    pub message: String,
    /// What is said of its kind alone.
    pub detail: K::Detail,
}

impl<K: Reconciled<Detail: Default>> Report<K> {
    /// A report.
    pub fn new(phase: K::Phase, reason: K::Reason, message: impl Into<String>) -> Self {
        Self { phase, reason, message: message.into(), detail: K::Detail::default() }
    }
}

impl<K: Reconciled> Report<K> {
    /// Whether the Ready condition gives this reason already.
    pub fn is_known(&self, conditions: &[Condition]) -> bool {
        condition::find(conditions, "Ready").is_some_and(|it| it.reason == self.reason.to_string())
    }

    /// What is reported to users of it.
    pub fn notice(&self) -> Notice {
        Notice { warning: self.reason.is_warning(), reason: self.reason.to_string(), note: self.message.clone() }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<K: Reconciled> {
    /// Change the metadata of an object of the kind itself.
    Patch(Arc<K>, MetadataPatch),
    /// Write the status of such an object, if it differs, and then notify users.
    Status(Arc<K>, Box<K::Status>, Option<Notice>),
    /// A write for one of several that are reconciled together: what is refused of one stops no other.
    For(Arc<K>, Box<Self>),
    /// Create what must not be there yet.
    Create(Desired),
    /// Bring an object to what it should be, if it differs.
    Ensure(Desired),
    /// Take over what another operator made, or make it.
    TakeOver(Desired),
    /// Keep the replicas of a Deployment at what they are, whoever sets them next.
    HandOver(Arc<DynamicObject>),
    /// Give a Secret the labels by which its changes are seen.
    LabelSecret(Arc<DynamicObject>, MetadataPatch),
    /// Give a Secret of the user's the label by which its changes are seen.
    WatchSecret(Arc<DynamicObject>),
    /// Bring a copy of the Secret of this key to what that one holds.
    CopySecret(Key, Desired),
    /// Give the Secret of another operator what this one's has, and its labels.
    AdoptSecret(Arc<DynamicObject>, Box<SecretAdoption>),
    /// Delete exactly this object.
    Delete(Kind, Arc<DynamicObject>),
}

impl<K: Reconciled> Step<K> {
    /// The object of the kind itself that it is for.
    pub fn of(&self) -> Option<&Arc<K>> {
        match self {
            Self::Patch(of, _) | Self::Status(of, ..) | Self::For(of, _) => Some(of),
            _ => None,
        }
    }

    /// Whether another step writes the same, for whomever.
    pub fn is_same_write(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::For(_, one), Self::For(_, other)) => one == other,
            _ => self == other,
        }
    }
}

/// What to do, in this order: steps, status, what prepares the Job, the Job, the last steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan<K: Reconciled> {
    /// Writes before the status.
    pub steps: Vec<Step<K>>,
    /// The status. It records an operation before its Job is made.
    pub status: Option<K::Recorded>,
    /// Writes before the Job. One that is refused stops the Job of the object that it is for.
    pub prepare: Vec<Step<K>>,
    /// The Job of the recorded operation.
    pub job: Option<Desired>,
    /// A Job that is wanted, which takes room in the bench's budget. Without room the status above stands.
    pub start: Option<Box<Start<K>>>,
    /// Writes after the status and the Job: a finalizer goes last.
    pub last: Vec<Step<K>>,
    /// When to look again although nothing changed.
    pub again_after: Option<Duration>,
    /// Whether something is missing that no watch shows: look again with backoff.
    pub missing: bool,
    /// What to report to users.
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

/// A Job that a plan wants, and what is said where there is room for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Start<K: Reconciled> {
    /// The Job.
    pub job: Desired,
    /// The status, which records the operation.
    pub status: Option<K::Recorded>,
    /// What to report to users.
    pub notices: Vec<Notice>,
    /// The last write where there is room.
    pub runs: Option<Step<K>>,
    /// The last write where there is none.
    pub waits: Option<Step<K>>,
}

impl<K: Reconciled> Plan<K> {
    /// The plan where there is room for the Job that it wants, or where the Job is there.
    #[must_use]
    pub fn started(mut self) -> Self {
        if let Some(Start { job, status, notices, runs, .. }) = self.start.take().map(|it| *it) {
            (self.job, self.status, self.notices) = (Some(job), status, notices);
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

    /// This, and then that: of what there can be one, that of the later counts.
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

    /// The status with room and without.
    pub fn statuses(&mut self) -> impl Iterator<Item = &mut K::Recorded> {
        self.status.iter_mut().chain(self.start.as_mut().and_then(|it| it.status.as_mut()))
    }
}
