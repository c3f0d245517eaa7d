//! Validation of a bench's spec: whether this version supports it. Pure.

use frappe_crds::{
    FrappeBench,
    bench::{AppSourceKind, RedisType, UpdateType},
    common::SecretReference,
};

use kube::ResourceExt;

use super::{build, reason::Reason};
use crate::{
    controllers::windows::Windows,
    domain::{key::Key, labels, site_config::is_reserved_in_bench},
};

/// A problem of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason.
    pub reason: Reason,
    /// Message for users.
    pub message: String,
}

/// Proof that a bench's spec is valid; only [`validate`] creates it.
#[derive(Debug)]
pub struct Valid(());

/// Refuses unsupported settings, which are never partly applied, and objects that are too large.
pub fn validate(bench: &FrappeBench, git_enabled: bool) -> Result<Valid, Problem> {
    let (spec, namespace) = (&bench.spec, Key::of(bench).namespace);
    let problem = |reason, message: String| Err(Problem { reason, message });
    if bench.annotations().contains_key(labels::TOO_LARGE) {
        let message = "the object is too large (spec larger than 128 KiB in memory) or nested too deeply, and is \
                       ignored: make it smaller";
        return problem(Reason::SpecTooLarge, message.to_owned());
    }
    let from = |kind: AppSourceKind| spec.apps.iter().find(move |app| app.source == kind);
    if let Some(app) = from(AppSourceKind::Git).filter(|_| !git_enabled) {
        let message = format!(
            "apps: {} has source git, but Git is disabled: set gitConfig.enabled, or gitEnabled in the operator's ConfigMap",
            app.name
        );
        return problem(Reason::GitDisabled, message);
    }
    if let Some(app) = from(AppSourceKind::Fpm) {
        let message = format!(
            "apps: {} has source fpm, which this version does not support: build it into the image and set source: image, or \
             use source: git",
            app.name
        );
        return problem(Reason::AppSourceNotSupported, message);
    }
    if spec.apps_json.is_some() {
        let message = "appsJSON is deprecated and not read: list the apps in spec.apps".to_owned();
        return problem(Reason::AppSourceNotSupported, message);
    }
    if let Some(redis) = &spec.redis_config {
        if redis.redis_type == Some(RedisType::Dragonfly) {
            let message = "redisConfig.type dragonfly: this version runs redis only".to_owned();
            return problem(Reason::RedisNotSupported, message);
        }
        let foreign = |it: &SecretReference| it.namespace.as_ref().is_some_and(|space| *space != namespace);
        if redis.connection_secret_ref.as_ref().is_some_and(foreign) {
            let message = format!(
                "redisConfig.connectionSecretRef.namespace is not {namespace}: a Secret must be in the bench's namespace"
            );
            return problem(Reason::SecretNamespaceRefused, message);
        }
    }
    if let Some(entry) = spec.common_site_config.keys().find(|it| is_reserved_in_bench(it)) {
        let message = format!(
            "commonSiteConfig: {entry:?} is set by the operator or is no name of letters, digits and _: remove it"
        );
        return problem(Reason::CommonSiteConfigRefused, message);
    }
    if let Some(message) = build::refusal(bench) {
        return problem(Reason::ComponentTemplateRefused, message);
    }
    if let Some(message) = refuses_revisions(bench) {
        return problem(Reason::RevisionsNotSupported, message.to_owned());
    }
    let windows = spec.update_strategy.as_ref().map(|it| it.windows.as_slice()).unwrap_or_default();
    if let Err(message) = Windows::parse(windows, &Key::of(bench).to_string()) {
        return problem(Reason::WindowInvalid, format!("updateStrategy.{message}"));
    }
    Ok(Valid(()))
}

/// Why the bench cannot have a second set of pods, if its spec asks for one.
fn refuses_revisions(bench: &FrappeBench) -> Option<&'static str> {
    let kind = bench.spec.update_strategy.as_ref().and_then(|it| it.kind);
    let redis = bench.spec.redis_config.as_ref();
    if kind != Some(UpdateType::Revisions) {
        None
    } else if redis.is_some_and(|it| it.connection_secret_ref.is_some()) {
        Some(
            "updateStrategy.type Revisions needs the operator's Redis, because each revision has a database of the cache: remove \
             redisConfig.connectionSecretRef, or set type InPlace",
        )
    } else if bench.status.as_ref().is_some_and(|status| status.adopted_volume.is_some()) {
        Some("updateStrategy.type Revisions is not supported for the volume of another operator: set type InPlace")
    } else {
        None
    }
}
