//! Builds the objects of a bench. Pure and infallible: `validate` has found all errors.

mod code;
mod configure;
mod disruption_budget;
mod monitor;
mod network;
mod pod;
mod process;
mod redis;
mod scaling;
mod storage;
mod web;
mod workers;

pub use configure::{assumes, configure_job, hold_job, runner_config_map};
pub(in crate::controllers) use configure::{bare_pod, for_job, runner_container, runner_pod, runner_secrets};
pub(in crate::controllers) use network::NGINX_PORT;
pub(in crate::controllers) use pod::container_security;
pub(in crate::controllers) use process::{DRAIN, DRAIN_SECONDS};
pub use redis::{External, PASSWORD_VOLUME, SERVERS, is_protected, password_secret, redis_secret};
pub use scaling::{Scaling, worker_scaling};
pub(in crate::controllers) use web::GUNICORN_WORKERS_AND_THREADS;
pub use workers::is_autoscaled;

use super::model::{Input, Rendered};
use crate::domain::object::Desired;

/// Renders a bench.
pub fn render(input: &Input) -> Rendered {
    let mut foundation = vec![storage::sites_claim(input), runner_config_map(input)];
    foundation.extend(redis::both(input));
    foundation.extend(web::services(input));
    foundation.extend(network::policy(input));
    foundation.extend(redis::policy(input));
    let mut deployments = web::deployments(input);
    deployments.extend(workers::deployments(input));
    let budgets: Vec<Desired> = disruption_budget::budgets(&deployments).collect();
    let mut components: Vec<Desired> = deployments.into_iter().map(Desired::from).collect();
    components.extend(budgets);
    components.extend(scaling::objects(input));
    components.extend(monitor::service_monitor(input));
    Rendered {
        foundation,
        configure: configure_job(input),
        hold: hold_job(input),
        components,
        claims: redis::queue_claim(input).into_iter().collect(),
    }
}
