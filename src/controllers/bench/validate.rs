//! Whether a bench asks for what this version does. Pure.

use frappe_crds::{
    FrappeBenchSpec,
    bench::{AppSourceKind, RedisType},
};

use super::reason::Reason;

/// What is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
}

/// What this version does not do is refused, never half done.
pub fn validate(spec: &FrappeBenchSpec) -> Result<(), Problem> {
    let problem = |reason, message: String| Err(Problem { reason, message });
    if let Some(app) = spec.apps.iter().find(|app| app.source != AppSourceKind::Image) {
        let message = format!(
            "apps: {} is to come from outside the image, which this version does not do: build it into the image and set source: image",
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
        if redis.connection_secret_ref.is_some() {
            let message = "redisConfig.connectionSecretRef: this version runs its own Redis only; remove it".to_owned();
            return problem(Reason::RedisNotSupported, message);
        }
    }
    Ok(())
}
