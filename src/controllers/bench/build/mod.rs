//! Builds the objects of a bench. Pure and infallible: `validate` has found all errors.

mod code;
mod configure;
mod disruption_budget;
mod monitor;
mod narrow;
mod network;
mod pod;
mod process;
mod redis;
mod scaling;
mod storage;
mod template;
mod web;
mod workers;

pub(super) use code::{FOLDER as COPIES, revision as copy_of_code};
use configure::older_inputs;
pub use configure::{assumes, configure_job, hold_job, runner_config_map};
pub(in crate::controllers) use configure::{bare_pod, for_job, runner_container, runner_pod, runner_secrets};
pub(in crate::controllers) use narrow::{narrow_container, narrow_pod};
pub(in crate::controllers) use network::NGINX_PORT;
pub(super) use pod::REVISION_VARIABLES;
pub(in crate::controllers) use pod::container_security;
pub(in crate::controllers) use process::{DRAIN, DRAIN_SECONDS};
pub use redis::{External, PASSWORD_VOLUME, SERVERS, is_protected, keys_read, password_secret, redis_secret};
pub use scaling::{Scaling, worker_scaling};
pub(super) use template::refusal;
#[cfg(test)]
pub(in crate::controllers) use template::{is_container, is_ours};
pub(in crate::controllers) use web::GUNICORN_WORKERS_AND_THREADS;
pub use workers::scaled_by;

use super::{
    model::{Input, Rendered},
    placed::revisions,
};
use crate::domain::{
    key::Key,
    object::{Desired, Kind},
};

/// Renders a bench.
pub fn render(input: &Input) -> Rendered {
    Rendered {
        older: older_inputs(input).flat_map(|it| set(&it)).collect(),
        outlived: outlived(input),
        ..newest(input)
    }
}

/// The objects of a revision's pods beside the newest: Services, Deployments and what scales them.
fn set(input: &Input) -> Vec<Desired> {
    let services = web::services(input);
    services.into_iter().chain(workloads(input)).chain(scaling::scaled_objects(input)).collect()
}

/// Deployments and their PodDisruptionBudgets.
fn workloads(input: &Input) -> Vec<Desired> {
    let mut deployments = web::deployments(input);
    deployments.extend(workers::deployments(input));
    // On one node all pods must leave before the first one can start elsewhere: a budget would block the drain of that node.
    let protected = if input.single_node() { &[][..] } else { &deployments[..] };
    let budgets: Vec<Desired> = disruption_budget::budgets(protected).collect();
    deployments.into_iter().map(Desired::from).chain(budgets).collect()
}

/// Names of the objects of revisions whose last site has left.
fn outlived(input: &Input) -> Vec<(Kind, Key)> {
    let retired = revisions(input.bench).iter().filter(|it| it.retired);
    let of = |revision| set(&input.of_older(revision)).into_iter().map(|it| (it.kind, it.key));
    let objects = retired.flat_map(of);
    // Settings may have removed what they do not need any more.
    let every = |(kind, key): (Kind, Key)| match kind {
        Kind::Deployment => {
            [kind, Kind::ScaledObject, Kind::PodDisruptionBudget].map(|kind| (kind, key.clone())).into()
        }
        _ => vec![(kind, key)],
    };
    objects.flat_map(every).collect()
}

fn newest(input: &Input) -> Rendered {
    let mut foundation = vec![storage::sites_claim(input), runner_config_map(input)];
    foundation.extend(redis::both(input));
    foundation.extend(web::services(input));
    foundation.extend(network::policy(input));
    foundation.extend(redis::policy(input));
    let mut components = workloads(input);
    components.extend(scaling::objects(input));
    components.extend(monitor::service_monitor(input));
    Rendered {
        foundation,
        configure: configure_job(input),
        hold: hold_job(input),
        components,
        claims: redis::queue_claim(input).into_iter().collect(),
        older: Vec::new(),
        outlived: Vec::new(),
    }
}
