//! Why a pod does not run, from its status: what a user would look for with `kubectl describe pod`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use kube::{ResourceExt, core::DynamicObject};

use super::{model::PodProblem, reason::Reason, watch};
use crate::{
    domain::{
        key::Key,
        live::{self, Condition},
    },
    io::compact::Compact,
};

/// Waiting reasons of a container that a user must fix.
const IMAGE_REASONS: [&str; 4] = ["ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"];
/// Waiting reasons of a container that crashes repeatedly or cannot be created.
const START_REASONS: [&str; 4] =
    ["CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"];
/// Maximum length of a kubelet's or scheduler's message, in characters.
const MESSAGE_CHARACTERS: usize = 300;

/// Why a pod does not run, if so. Pure.
pub fn problem(pod: &DynamicObject) -> Option<PodProblem> {
    let status: PodStatus = live::status(pod);
    let containers = [&status.init_container_statuses, &status.container_statuses];
    let waiting = containers.into_iter().flatten().flatten().find_map(waits);
    let (reason, message) = waiting.or_else(|| unschedulable(&live::conditions(pod)))?;
    let component = pod.labels().get("component").cloned().unwrap_or_default();
    Some(PodProblem { pod: Key::of(pod), component, reason, message })
}

fn waits(container: &ContainerStatus) -> Option<(Reason, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let word = waiting.reason.as_deref()?;
    let reason = if IMAGE_REASONS.contains(&word) {
        Reason::ImagePullFailed
    } else if START_REASONS.contains(&word) {
        Reason::ContainerFailing
    } else {
        return None;
    };
    let ended = container.last_state.as_ref().and_then(|it| it.terminated.as_ref());
    let code = ended.map(|it| format!(" (exit code {})", it.exit_code)).unwrap_or_default();
    let said = short(waiting.message.as_deref().unwrap_or_default());
    Some((reason, format!("{word}{code}: {said}")))
}

fn unschedulable(conditions: &[Condition]) -> Option<(Reason, String)> {
    let scheduled = conditions.iter().find(|it| it.fails("PodScheduled"))?;
    // If a claim of the bench is not bound, its own state is reported, and this follows from it.
    let unschedulable = scheduled.reason() == "Unschedulable";
    unschedulable.then(|| (Reason::PodUnschedulable, short(scheduled.message().unwrap_or_default())))
}

fn short(text: &str) -> String {
    text.chars().take(MESSAGE_CHARACTERS).collect()
}

/// Pods of all benches that do not run.
#[derive(Default)]
pub struct PodProblems(Mutex<BTreeMap<Key, BTreeMap<String, PodProblem>>>);

impl PodProblems {
    /// Records a change or the deletion of a pod; returns its bench if the result changed.
    pub fn update(&self, pod: &Compact, is_there: bool) -> Option<Key> {
        let bench = watch::owner(pod)?;
        let found = if is_there { problem(&pod.open()) } else { None };
        let mut pod_problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = pod.name_any();
        let changed = match found {
            Some(found) => {
                let of_bench = pod_problems.entry(bench.clone()).or_default();
                of_bench.insert(name, found.clone()).is_none_or(|before| before.reason != found.reason)
            }
            None => pod_problems.get_mut(&bench).is_some_and(|of_bench| of_bench.remove(&name).is_some()),
        };
        pod_problems.retain(|_, of_bench| !of_bench.is_empty());
        changed.then_some(bench)
    }

    /// Pods of a bench that do not run, by name.
    pub fn of(&self, bench: &Key) -> Vec<PodProblem> {
        let pod_problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pod_problems.get(bench).map(|it| it.values().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::io::cached::Cached as _;

    fn pod(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "status": status,
            "metadata": {"name": "prod-nginx-1", "namespace": "a", "labels": {"bench": "prod", "component": "nginx"}},
        }))
        .expect("a pod")
    }

    #[test]
    fn each_problem_has_its_reason() {
        let waiting =
            |word: &str| json!({"containerStatuses": [{"state": {"waiting": {"reason": word, "message": "m"}}}]});
        let table = [
            (waiting("ImagePullBackOff"), Some((Reason::ImagePullFailed, "ImagePullBackOff: m"))),
            (waiting("ErrImagePull"), Some((Reason::ImagePullFailed, "ErrImagePull: m"))),
            (waiting("CreateContainerConfigError"), Some((Reason::ContainerFailing, "CreateContainerConfigError: m"))),
            (waiting("ContainerCreating"), None),
            (json!({"containerStatuses": [{"state": {"running": {}}}]}), None),
            (
                json!({"containerStatuses": [{
                    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                    "lastState": {"terminated": {"exitCode": 137}},
                }]}),
                Some((Reason::ContainerFailing, "CrashLoopBackOff (exit code 137): back-off 10s")),
            ),
            (
                json!({"conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}),
                Some((Reason::PodUnschedulable, "0/3 nodes")),
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                       "message": "pod has unbound immediate PersistentVolumeClaims"}]}),
                Some((Reason::PodUnschedulable, "pod has unbound immediate PersistentVolumeClaims")),
            ),
            (json!({}), None),
        ];
        for (status, wanted) in table {
            let found = problem(&pod(&status)).map(|it| (it.reason, it.message));
            assert_eq!(found, wanted.map(|(reason, message)| (reason, message.to_owned())), "{status}");
        }
    }

    #[test]
    fn a_bench_is_reconciled_when_the_problem_of_a_pod_changes() {
        let problems = PodProblems::default();
        let change = |word: &str, is_there: bool| {
            let pod = pod(&json!({"containerStatuses": [{"state": {"waiting": {"reason": word}}}]}));
            problems.update(&pod.close(), is_there).is_some()
        };
        let changes = [
            ("ContainerCreating", true, false),
            ("ErrImagePull", true, true),
            ("ImagePullBackOff", true, false),
            ("CrashLoopBackOff", true, true),
            ("CrashLoopBackOff", false, true),
            ("CrashLoopBackOff", false, false),
        ];
        for (word, is_there, wanted) in changes {
            assert_eq!(change(word, is_there), wanted, "{word} {is_there}");
        }
    }
}
