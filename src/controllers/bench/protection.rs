//! Protection of a bench's Redis by a generated password and a NetworkPolicy, also of existing benches. Pure.
//!
//! It is decided when the bench is created, and recorded before anything is created. An unprotected bench stays so until
//! `redisConfig.protected` is set. The components then get the password stage by stage, while Redis accepts connections with
//! and without it; finally Redis requires it.

use frappe_crds::FrappeBenchStatus;
use kube::{ResourceExt, core::DynamicObject};

use super::{
    build::{self, External, PASSWORD_VOLUME, SERVERS},
    model::Observed,
    reason::Reason,
    seen::{configure_job, is_rolling, lacks_pods},
};
use crate::{
    controllers::{adoption::is_adoption_requested, job},
    domain::{
        labels, live,
        names::child,
        object::{Desired, Kind, is_controlled_by},
    },
};

/// The recorded decision; None if there is none.
pub(super) fn decided(observed: &Observed) -> Option<bool> {
    observed.bench.status.as_ref().and_then(|status| status.redis_protected)
}

/// The decision to record: a new bench is protected, an existing one if its spec requests it.
pub(super) fn decision(observed: &Observed) -> bool {
    let asks = observed.bench.spec.redis_config.as_ref().and_then(|it| it.protected) == Some(true);
    match decided(observed) {
        Some(before) => before || asks,
        None => asks || is_new(observed),
    }
}

/// Whether the bench has no objects yet, of this operator or another.
fn is_new(observed: &Observed) -> bool {
    let made = observed.bench.status.as_ref().is_some_and(|status| status.desired_revision.is_some());
    !made
        && !observed.live.keys().any(|(kind, _)| *kind == Kind::StatefulSet)
        && !is_adoption_requested(&observed.bench)
}

/// The status that records the decision, if it differs. The decision takes effect afterwards.
pub(super) fn record(observed: &Observed) -> Option<FrappeBenchStatus> {
    let decision = Some(decision(observed));
    let protects = decision == Some(true) && decided(observed) != decision;
    protects
        .then(|| FrappeBenchStatus { redis_protected: decision, ..observed.bench.status.clone().unwrap_or_default() })
}

/// Whether the Secret with the generated password's name was created for this bench.
pub(super) fn is_own(observed: &Observed, secret: &DynamicObject) -> bool {
    observed
        .bench
        .uid()
        .is_some_and(|uid| is_controlled_by(secret, &uid) && secret.annotations().get(labels::IDENTITY) == Some(&uid))
}

/// Servers that do not require the password while a component may not have it.
pub(super) fn open_servers(observed: &Observed) -> Vec<&'static str> {
    if !matches!(build::redis_secret(&observed.bench), Some((External::Generated, _))) || !lags(observed) {
        return Vec::new();
    }
    SERVERS.into_iter().filter(|server| runs_open(observed, server)).collect()
}

fn runs_open(observed: &Observed, server: &str) -> bool {
    let name = child(&observed.bench.name_any(), server);
    observed.live.get(&(Kind::StatefulSet, name)).is_some_and(|live| {
        let volumes = live::template(live).spec.and_then(|it| it.volumes);
        !volumes.into_iter().flatten().any(|volume| volume.name == PASSWORD_VOLUME)
    })
}

/// Whether a server keeps its password until the configure Job has read the changed Secret: a server whose Secret lacks the key does
/// not start again.
pub(super) fn awaits_configure(observed: &Observed, desired: &Desired, revision: &str) -> bool {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()));
    let Some(live) = live.filter(|_| desired.kind == Kind::StatefulSet) else { return false };
    let wanted = &desired.body["spec"]["template"]["metadata"]["annotations"][labels::REDIS_SECRET];
    let job = configure_job(&observed.live, &observed.bench.name_any(), revision);
    *wanted != live.data["spec"]["template"]["metadata"]["annotations"][labels::REDIS_SECRET]
        && !job.is_some_and(|job| job::state(job) == job::State::Complete)
}

/// Whether a running component may not have the password yet.
fn lags(observed: &Observed) -> bool {
    let version = observed.redis_secret_version.as_deref();
    let mut deployments = observed.live.iter().filter(|((kind, _), _)| *kind == Kind::Deployment);
    deployments.any(|(_, live)| {
        let component = live.labels().get("component").map(String::as_str).unwrap_or_default();
        let annotations = live::template(live).metadata.and_then(|it| it.annotations);
        let known = annotations.as_ref().and_then(|it| it.get(labels::REDIS_SECRET));
        known.map(String::as_str) != version || is_rolling(observed, component) || lacks_pods(observed, component)
    })
}

/// The report; None for an external Redis.
pub(super) fn condition(observed: &Observed) -> Option<(bool, Reason, String)> {
    let said = |protected, reason, message: &str| Some((protected, reason, message.to_owned()));
    match build::redis_secret(&observed.bench) {
        Some((External::Urls, _)) => None,
        None => said(
            false,
            Reason::RedisOpen,
            "Redis has neither a password nor a NetworkPolicy: any client that reaches it can run code in the bench's \
             workers; set redisConfig.protected: true",
        ),
        Some((External::Password, _)) if !build::is_protected(&observed.bench) => said(
            false,
            Reason::RedisOpen,
            "Redis requires the password in passwordSecretRef, but has no NetworkPolicy: set redisConfig.protected: true",
        ),
        Some(_) if SERVERS.into_iter().any(|server| runs_open(observed, server)) => said(
            false,
            Reason::RedisProtecting,
            "the components get the Redis password, stage by stage; Redis requires it afterwards",
        ),
        Some(_) => said(
            true,
            Reason::RedisProtected,
            "Redis requires a password, and a NetworkPolicy admits only the bench's pods and KEDA",
        ),
    }
}
