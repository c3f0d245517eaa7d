//! Executes plans of every kind. No decisions are made here.

use std::sync::Arc;

use kube::{Resource, core::DynamicObject};
use kube_sharding::lanes::runner::Outcome;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    controllers::{
        adopt::adopt,
        adoption::Owner,
        context::{ChildCache, Children, Context},
        model::{Plan, Reconciled, Step},
        objects::{self, name, reference},
        site::job_slots::Claim,
    },
    domain::{
        key::Key,
        metadata::MetadataPatch,
        object::{Kind, is_released},
        wire,
    },
    io::{
        cache::Cache,
        cached::Cached,
        events::{Notice, log_line},
        writer::{WriteError, Writer},
    },
};

/// Access to the caches of a kind.
pub trait Held: Reconciled<Status: Default + Serialize + DeserializeOwned> + Serialize + DeserializeOwned {
    /// The kind whose status a plan writes.
    type Recorder: Held<Status = Self::Recorded>;
    /// Whether several objects are reconciled together, so that a rejection affects only its object.
    const TOGETHER: bool = false;

    /// The newest known version of an object.
    fn newest(context: &Context, key: &Key) -> Option<Arc<Self>>;

    /// The same, for an object that was observed; None if it no longer exists.
    fn newest_of(context: &Context, known: &Arc<Self>) -> Option<Arc<Self>> {
        Self::newest(context, &Key::of(known.as_ref()))
    }

    /// Caches the response to a write.
    fn wrote(context: &Context, written: DynamicObject);

    /// Removes an object from the cache that a write has deleted.
    fn forget_deleted(context: &Context, known: &Self, written: &DynamicObject);

    /// Cache of the objects created for it.
    fn children(context: &Context) -> &Children;

    /// Cache of the Secrets created for it.
    fn secrets(context: &Context) -> &ChildCache {
        Self::children(context).cache(Kind::Secret)
    }

    /// The object whose operation a status records, if several are reconciled together.
    fn recorded(_: &Context, _: &Key, _: &Self::Recorded) -> Option<Arc<Self>> {
        None
    }

    /// Counts published Events.
    fn count(_: &Notice) {}
}

/// Execution of one plan.
pub struct Attempt<'a> {
    /// Clients, caches and settings.
    pub context: &'a Context,
    /// Writer for its scope.
    pub writer: &'a Writer,
    /// Key of the reconciled object.
    pub key: &'a Key,
    /// The object for which others are adopted, if a single object is reconciled.
    pub owner: Owner,
}

/// A failed write, with its object if several are reconciled together.
pub type Refused<K> = (Option<Arc<K>>, WriteError);

/// Failed writes.
pub struct Failed<K> {
    /// The failure that decides about the retry: the one that ended the execution, if any.
    pub first: Refused<K>,
    /// Rejected writes of other objects.
    pub others: Vec<Refused<K>>,
}

impl<K> From<Refused<K>> for Failed<K> {
    fn from(first: Refused<K>) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl Attempt<'_> {
    /// Executes a plan and publishes its Events. The job slot is released if the Job was not created.
    pub async fn carry_out<K: Held>(&self, plan: &Plan<K>, slot: Option<&Claim>) -> Result<Outcome, Failed<K>> {
        let done = self.execute(plan).await;
        if done.is_err()
            && let Some(slot) = slot
            && plan.job.as_ref().is_none_or(|job| K::children(self.context).get(Kind::Job, &job.key).is_none())
        {
            self.context.jobs.release(slot);
        }
        done?;
        for notice in &plan.notices {
            let uid = Some(self.owner.uid.clone());
            self.context.events.publish(&reference(K::KIND, self.key, uid), notice).await;
        }
        Ok(match (plan.missing, plan.again_after) {
            (true, _) => Outcome::Missing,
            (false, Some(after)) => Outcome::After(after),
            (false, None) => Outcome::Done,
        })
    }

    /// Steps, status, Job, last steps: in this order, because the status records an operation before its Job is created.
    async fn execute<K: Held>(&self, plan: &Plan<K>) -> Result<(), Failed<K>> {
        let context = self.context;
        let recorded = plan.status.as_ref().and_then(|it| K::recorded(context, self.key, it));
        for step in &plan.steps {
            self.run_step(step).await.map_err(|error| (step.of().cloned(), error))?;
        }
        if let Some(next) = &plan.status
            && let Some(known) = K::Recorder::newest(context, self.key)
        {
            let written = self.write_status::<K::Recorder>(&known, next).await;
            written.map_err(|error| (recorded.clone(), error))?;
        }
        let mut refused = Vec::new();
        self.run_steps(&plan.prepare, &mut refused).await?;
        if let Some(job) = &plan.job
            && K::children(context).get(Kind::Job, &job.key).is_none()
            && !recorded.as_ref().is_some_and(|it| is_refused(&refused, it))
        {
            let made = objects::create(self.writer, K::children(context).cache(Kind::Job), job).await;
            if let Some(failed) = ends(made.map(drop).map_err(|error| (recorded, error)), &mut refused) {
                return Err(failed);
            }
        }
        self.run_steps(&plan.last, &mut refused).await?;
        let mut refused = refused.into_iter();
        match refused.next() {
            Some(first) => Err(Failed { first, others: refused.collect() }),
            None => Ok(()),
        }
    }

    /// Executes the steps of objects without a rejected write.
    async fn run_steps<K: Held>(&self, steps: &[Step<K>], refused: &mut Vec<Refused<K>>) -> Result<(), Failed<K>> {
        for step in steps {
            if !step.of().is_some_and(|it| is_refused(refused, it)) {
                let done = self.run_step(step).await;
                if let Some(failed) = ends(done.map_err(|error| (step.of().cloned(), error)), refused) {
                    return Err(failed);
                }
            }
        }
        Ok(())
    }

    async fn run_step<K: Held>(&self, step: &Step<K>) -> Result<(), WriteError> {
        let (context, writer, children) = (self.context, self.writer, K::children(self.context));
        let secrets = K::secrets(context);
        match step {
            Step::Patch(of, metadata) => self.patch::<K>(of, metadata).await,
            Step::Status(of, next, notice) => {
                let Some(known) = K::newest_of(context, of) else { return Ok(()) };
                let written = self.write_status::<K>(&known, next).await?;
                if let Some(notice) = notice.as_ref().filter(|_| written) {
                    self.publish::<K>(of, notice).await;
                }
                Ok(())
            }
            Step::For(_, write) => Box::pin(self.run_step(write)).await,
            Step::Create(desired) if desired.kind == Kind::Secret => {
                let made = objects::create(writer, secrets, desired).await?;
                if let Some(live) = secrets.get(&desired.key).filter(|_| made) {
                    context.contents.made(&live, desired);
                }
                Ok(())
            }
            Step::Create(desired) => objects::create(writer, children.cache(desired.kind), desired).await.map(drop),
            Step::Ensure(desired) => objects::ensure(writer, children, desired).await,
            Step::Adopt(desired) => adopt(writer, children, desired, &self.owner).await,
            Step::HandOver(live) => objects::hand_over_replicas(writer, children, live).await,
            Step::LabelSecret(secret, metadata) => objects::patch_secret(writer, secrets, secret, metadata).await,
            Step::WatchSecret(secret) => {
                objects::patch_secret(writer, &context.user_secrets, secret, &objects::watched(secret)).await
            }
            Step::CopySecret(from, desired) => objects::copy_secret(writer, secrets, from, desired).await,
            Step::AdoptSecret(secret, adoption) => objects::adopt_secret(writer, secrets, secret, adoption).await,
            Step::Delete(kind, object) => objects::delete(writer, children.cache(*kind), *kind, object).await,
        }
    }

    /// Patches the metadata of an object of the reconciled kind, and caches the response.
    async fn patch<K: Held>(&self, of: &K, metadata: &MetadataPatch) -> Result<(), WriteError> {
        let key = Key::of(of);
        let written = self.writer.patch_metadata(K::KIND, &key, metadata).await?;
        if is_released(&written) {
            if !K::TOGETHER {
                log_line(&name(K::KIND, &key), false, "Deleted", "finalizer removed, object deleted");
            }
            K::forget_deleted(self.context, of, &written);
        } else {
            K::wrote(self.context, written);
        }
        Ok(())
    }

    /// Writes the status if it differs, based on the known version of the object; returns whether it was written.
    pub async fn write_status<K: Held>(&self, known: &K, next: &K::Status) -> Result<bool, WriteError> {
        if known.status() == Some(next) {
            return Ok(false);
        }
        let mut changed = known.clone();
        *changed.status_mut() = Some(next.clone());
        let object = wire::in_order(&changed);
        K::wrote(self.context, self.writer.replace_status(K::KIND, &Key::of(known), object).await?);
        Ok(true)
    }

    /// Publishes Events of an object.
    pub async fn publish<K: Held>(&self, of: &K, notice: &Notice) {
        K::count(notice);
        self.context.events.publish(&reference(K::KIND, &Key::of(of), of.meta().uid.clone()), notice).await;
    }
}

/// Caches the response to a write in a cache of typed objects.
pub fn remember<K: Cached + Resource<DynamicType = ()> + DeserializeOwned>(cache: &Cache<K>, written: DynamicObject) {
    if let Ok(object) = K::deserialize(wire::tree(written)) {
        cache.wrote(object);
    }
}

/// Collects a rejected write of one of several objects; returns any other failure, which ends the execution.
fn ends<K: Held>(done: Result<(), Refused<K>>, refused: &mut Vec<Refused<K>>) -> Option<Failed<K>> {
    match done.err()? {
        one @ (_, WriteError::Rejected { .. }) if K::TOGETHER => {
            refused.push(one);
            None
        }
        first => Some(Failed { first, others: std::mem::take(refused) }),
    }
}

fn is_refused<K: Held>(refused: &[Refused<K>], of: &K) -> bool {
    refused.iter().any(|(it, _)| it.as_ref().is_some_and(|it| it.meta().uid == of.meta().uid))
}
