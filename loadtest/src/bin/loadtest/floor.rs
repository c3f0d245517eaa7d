//! The floor: a bare client that creates the operator's objects with the same number of writes, and nothing else.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use frappe_loadtest::{
    audit::Request,
    cluster::Cluster,
    meter::Process,
    report::{Floor, Row},
    spread::exact,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, Patch, PatchParams, PostParams},
    core::{DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};

use crate::tracker::NAMESPACE;

/// Sites whose objects are created concurrently: more were not faster on two cores.
const SITES_AT_ONCE: usize = 32;
/// Time limit for the cluster to run the Jobs.
const JOBS_WAIT: Duration = Duration::from_mins(10);

/// One write of the operator for the model site.
#[derive(Clone)]
struct Step {
    api: Api<DynamicObject>,
    /// The object, if the write creates one.
    object: Option<Value>,
    name: String,
    is_status: bool,
}

/// Creates the operator's objects of one site for this number of sites.
pub(crate) async fn run(
    cluster: &Cluster,
    client: &Client,
    requests: &[Request],
    row: &Row,
    sites: usize,
) -> anyhow::Result<Floor> {
    let of_row: Vec<&Request> = requests.iter().filter(|it| it.at >= row.begun && it.at <= row.ended).collect();
    let model = of_row
        .iter()
        .rfind(|it| it.resource == "frappesites/status" && it.code < 300)
        .map(|it| it.name.clone())
        .context("no status of a site was written")?;
    let steps = Arc::new(model_steps(cluster, client, &of_row, &model).await?);
    println!("a site's writes: {}", steps.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", "));
    let jobs_per_site = steps.iter().filter(|it| it.object.as_ref().is_some_and(|it| it["kind"] == "Job")).count();
    let done = Arc::new(Mutex::new(HashSet::new()));
    let watch = tokio::spawn(count_jobs(client.clone(), Arc::clone(&done)));
    let (begun, cpu) = (Instant::now(), Process::read(std::process::id())?.cpu_seconds);
    let failed = Arc::new(AtomicUsize::new(0));
    stream::iter(0..sites)
        .for_each_concurrent(SITES_AT_ONCE, |number| {
            let (steps, model, failed) = (Arc::clone(&steps), model.clone(), Arc::clone(&failed));
            async move {
                if let Err(error) = write(&steps, &model, &format!("floor-{number:05}")).await
                    && failed.fetch_add(1, Ordering::SeqCst) == 0
                {
                    println!("a write of the bare client failed: {error:#}");
                }
            }
        })
        .await;
    let write_seconds = begun.elapsed().as_secs_f64();
    while done.lock().unwrap_or_else(PoisonError::into_inner).len() < sites * jobs_per_site {
        if begun.elapsed() > JOBS_WAIT {
            bail!("the cluster did not run the Jobs of the bare client");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = Process::read(std::process::id())?.cpu_seconds - cpu;
    watch.abort();
    anyhow::ensure!(failed.load(Ordering::SeqCst) == 0, "writes of the bare client failed");
    let made = exact(row.ready.count);
    let writes = of_row.iter().filter(|it| it.is_work_write()).count();
    let all = of_row.iter().filter(|it| it.is_work() && it.verb != "watch").count();
    Ok(Floor {
        sites,
        write_seconds,
        seconds,
        // In both cases, the user creates the site itself.
        writes_per_site: steps.len() - 1,
        cpu_milliseconds_per_site: cpu * 1000.0 / exact(sites),
        operator_cpu_milliseconds_per_site: row.cpu_seconds() * 1000.0 / made,
        operator_sites_per_second: made / row.seconds,
        operator_writes_per_site: exact(writes) / made,
        operator_requests_per_site: exact(all) / made,
    })
}

/// The site, then the operator's writes for it, in order.
async fn model_steps(
    cluster: &Cluster,
    client: &Client,
    requests: &[&Request],
    model: &str,
) -> anyhow::Result<Vec<Step>> {
    let site = sites_request(model);
    let mut steps = Vec::new();
    let mut seen = HashSet::new();
    let writes =
        requests.iter().copied().filter(|it| it.is_work_write() && it.code < 300 && it.name.starts_with(model));
    for request in std::iter::once(&site).chain(writes) {
        let (plural, subresource) = request.resource.split_once('/').unwrap_or((&request.resource, ""));
        let kind = kind_of(cluster, &request.group, plural)?;
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&request.group, &request.version, &kind), plural);
        let api: Api<DynamicObject> = if request.namespace.is_empty() {
            Api::all_with(client.clone(), &resource)
        } else {
            Api::namespaced_with(client.clone(), &request.namespace, &resource)
        };
        let is_new = seen.insert((plural.to_owned(), request.name.clone()));
        let live = if is_new || subresource == "status" { Some(api.get(&request.name).await?) } else { None };
        let object = live.map(|it| serde_json::to_value(it).map(|it| bare(it, subresource == "status"))).transpose()?;
        steps.push(Step { api, object, name: request.name.clone(), is_status: subresource == "status" });
    }
    Ok(steps)
}

/// The user's request.
fn sites_request(model: &str) -> Request {
    let text = |it: &str| it.to_owned();
    Request {
        verb: text("create"),
        group: text("vyogo.tech"),
        version: text("v1alpha1"),
        resource: text("frappesites"),
        namespace: text(NAMESPACE),
        name: text(model),
        answered_milliseconds: 0.0,
        code: 201,
        at: jiff::Timestamp::UNIX_EPOCH,
        pod: String::new(),
    }
}

fn kind_of(cluster: &Cluster, group: &str, plural: &str) -> anyhow::Result<String> {
    let group = format!("--api-group={group}");
    let listed = cluster.kubectl(&["api-resources", "--no-headers", &group], "")?.out;
    let found = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let kind =
        found.filter(|words| words.first() == Some(&plural)).find_map(|words| words.last().map(|it| (*it).to_owned()));
    kind.with_context(|| format!("kind of {plural}"))
}

/// An object as a client would send it, without fields that the API server sets.
fn bare(mut object: Value, status: bool) -> Value {
    if status {
        return json!({"status": object["status"]});
    }
    let metadata = json!({"name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
        "labels": object["metadata"]["labels"], "annotations": object["metadata"]["annotations"]});
    object["metadata"] = metadata;
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if object["kind"] == "Job" {
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.remove("selector");
        }
        if let Some(labels) = object["spec"]["template"]["metadata"]["labels"].as_object_mut() {
            labels.retain(|name, _| !name.ends_with("controller-uid") && !name.ends_with("job-name"));
        }
    }
    object
}

async fn write(steps: &[Step], model: &str, name: &str) -> anyhow::Result<()> {
    for (index, step) in steps.iter().enumerate() {
        let own = step.name.replace(model, name);
        let parameters = PatchParams::default();
        match &step.object {
            Some(object) if step.is_status => {
                let mut status: Value = serde_json::from_str(&object.to_string().replace(model, name))?;
                status["status"]["observedGeneration"] = json!(index);
                step.api.patch_status(&own, &parameters, &Patch::Merge(&status)).await?;
            }
            Some(object) => {
                let object = serde_json::from_str(&object.to_string().replace(model, name))?;
                step.api.create(&PostParams::default(), &object).await?;
            }
            None => {
                let change = json!({"metadata": {"annotations": {"frappe.vyogo.tech/floor": index.to_string()}}});
                step.api.patch(&own, &parameters, &Patch::Merge(&change)).await?;
            }
        }
    }
    Ok(())
}

/// Records finished Jobs of the bare client.
async fn count_jobs(client: Client, done: Arc<Mutex<HashSet<String>>>) {
    let jobs: Api<Job> = Api::namespaced(client, NAMESPACE);
    let mut stream = watcher(jobs, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Ok(Some(job)) = stream.try_next().await {
        let ended = job.status.as_ref().is_some_and(|it| it.completion_time.is_some());
        if ended && job.name_any().starts_with("floor-") {
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(job.name_any());
        }
    }
}
