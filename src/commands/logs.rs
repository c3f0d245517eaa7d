//! `logs`: what the Jobs of a site, or the pods of a bench, have logged.

use anyhow::{Context as _, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::{Client, ResourceExt};

use super::output::{connect, print};
use crate::{
    cli::{LogsArguments, TargetArguments},
    io::logs,
};

/// Containers whose logs are read at the same time.
const STREAMS_MAX: usize = 64;

/// A container that has started.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    pod: String,
    container: String,
}

/// Prints the logs.
pub async fn print_logs(arguments: LogsArguments, target: &TargetArguments) -> anyhow::Result<()> {
    let cluster = connect(target).await?;
    let key = cluster.named(&arguments.name);
    let labels = selector(&key.name, &arguments);
    let found = logs::pods(&cluster.client, &key.namespace, &labels).await.context("list the pods")?;
    let pods = if arguments.bench { found } else { newest_job(found) };
    let sources: Vec<Source> = pods.iter().flat_map(started).collect();
    if sources.is_empty() {
        let what = if arguments.bench { "bench" } else { "Job of site" };
        bail!(
            "no container of a pod with the labels {labels} has started in the namespace {}: see kubectl frappe why {key} for this {what}",
            key.namespace
        );
    }
    let is_one = sources.len() == 1;
    let read = |source: Source| follow(&cluster.client, &key.namespace, source, is_one, &arguments);
    if arguments.follow {
        return stream::iter(sources).map(Ok).try_for_each_concurrent(STREAMS_MAX, read).await;
    }
    for source in sources {
        read(source).await?;
    }
    Ok(())
}

/// The labels of the pods.
fn selector(name: &str, arguments: &LogsArguments) -> String {
    let of = if arguments.bench { "bench" } else { "site" };
    let component = arguments.component.as_ref().map(|it| format!(",component={it}")).unwrap_or_default();
    let pods = if arguments.bench { ",!site" } else { "" };
    format!("{of}={name}{component}{pods}")
}

/// The pods of the Job whose pod was created last.
fn newest_job(pods: Vec<Pod>) -> Vec<Pod> {
    let job =
        |it: &Pod| it.metadata.owner_references.iter().flatten().find(|it| it.kind == "Job").map(|it| it.uid.clone());
    let newest = pods.iter().filter(|it| job(it).is_some()).max_by_key(|it| it.creation_timestamp()).and_then(job);
    pods.into_iter().filter(|it| newest.is_some() && job(it) == newest).collect()
}

/// The containers of a pod that have started, in the order in which they start.
fn started(pod: &Pod) -> Vec<Source> {
    let status = pod.status.clone().unwrap_or_default();
    let has_started = |it: &ContainerStatus| {
        let state = it.state.clone().unwrap_or_default();
        state.running.is_some()
            || state.terminated.is_some()
            || it.last_state.as_ref().is_some_and(|it| it.terminated.is_some())
    };
    let all = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
    all.filter(has_started).map(|it| Source { pod: pod.name_any(), container: it.name }).collect()
}

/// Prints what a container has logged, each line with its pod and container if there are several.
async fn follow(
    client: &Client,
    namespace: &str,
    source: Source,
    is_one: bool,
    arguments: &LogsArguments,
) -> anyhow::Result<()> {
    let Source { pod, container } = &source;
    let of = || format!("logs of container {container} of pod {namespace}/{pod}");
    let lines = logs::lines(client, namespace, pod, container, arguments.follow, arguments.tail).await;
    let mut lines = std::pin::pin!(lines.with_context(of)?);
    while let Some(line) = lines.try_next().await.with_context(of)? {
        print(&if is_one { format!("{line}\n") } else { format!("[{pod}/{container}] {line}\n") })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, job: Option<&str>, created: &str) -> Pod {
        let owners: Vec<_> =
            job.map(|it| json!({"apiVersion": "batch/v1", "kind": "Job", "name": it, "uid": it})).into_iter().collect();
        serde_json::from_value(json!({
            "metadata": {"name": name, "creationTimestamp": created, "ownerReferences": owners},
            "status": {"initContainerStatuses": [{"name": "transfer", "state": {"terminated": {"exitCode": 0}}}],
                       "containerStatuses": [{"name": "restore", "state": {"running": {}}}, {"name": "waits", "state": {"waiting": {}}}]},
        }))
        .expect("a pod")
    }

    #[test]
    fn of_a_site_the_newest_job_is_meant() {
        let pods = vec![
            pod("a", Some("init"), "2026-01-01T00:00:00Z"),
            pod("b", Some("restore"), "2026-01-02T00:00:00Z"),
            pod("c", None, "2026-01-03T00:00:00Z"),
            pod("d", Some("restore"), "2026-01-02T00:00:01Z"),
        ];
        let names: Vec<_> = newest_job(pods).iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["b", "d"]);
        assert_eq!(newest_job(vec![pod("c", None, "2026-01-03T00:00:00Z")]), []);
    }

    #[test]
    fn containers_that_have_started_are_read_in_their_order() {
        let containers: Vec<_> =
            started(&pod("a", None, "2026-01-01T00:00:00Z")).into_iter().map(|it| it.container).collect();
        assert_eq!(containers, ["transfer", "restore"]);
    }
}
