//! Rollout of a new image, or a new copy of the code, over the components of a bench. Pure.
//!
//! nginx first, because it serves the assets of both images; then the web servers; then the workers; last the scheduler, of
//! which there is never more than one. Components of later stages keep their image and are otherwise reconciled. If pods do
//! not become ready, the rollout stops at that stage, and the other pods keep running.

use std::fmt;

use k8s_openapi::api::{
    apps::v1::DeploymentSpec,
    core::v1::{Container, EnvVar, PodTemplateSpec},
};
use kube::{ResourceExt, core::DynamicObject};
use serde_json::Value;

use super::{
    adoption::{is_kept, is_unchanged_workload},
    build, earlier,
    model::{Observed, REVISIONS_FOLDER, Rendered, redeploy},
    seen::{apps, is_rolling, job_of_revision, lacks_pods},
};
use crate::{
    controllers::job,
    domain::{
        image, labels, live,
        names::child,
        object::{Desired, Kind},
        typed::entry,
    },
};

/// The components, stage by stage.
const STAGES: [&[&str]; 5] = [&["nginx"], &["gunicorn"], &["socketio"], HELD_BEFORE, &["scheduler"]];
/// The stage before which the hold Job runs: until then, all components that start jobs of sites are of the previous image.
const HELD_BEFORE: &[&str] = &["worker-default", "worker-short", "worker-long"];

/// A running rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// What some components still run.
    pub from: Code,
    /// What they should run.
    pub to: Code,
    /// Components that are not completely rolled out yet, in order.
    pub left: Vec<String>,
}

/// The code that a pod runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    image: String,
    /// Revision of the copy of the code that is mounted over the image's; None if there is none.
    copy: Option<String>,
    /// Folder of the volume with the sites; None for its root.
    folder: Option<String>,
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.image)?;
        self.copy.as_ref().map_or(Ok(()), |copy| write!(formatter, " with apps of revision {copy}"))?;
        let number = self.folder.as_ref().and_then(|it| it.rsplit('/').next());
        number.map_or(Ok(()), |number| write!(formatter, " (revision {number})"))
    }
}

/// The components, with the present image wherever it is the same one without its digest, or with a digest that is no longer known: an
/// upgrade of the operator restarts no pod. If a user has requested the present image of the tag, its digest is used.
pub fn with_present_references(observed: &Observed, mut rendered: Rendered) -> Rendered {
    if redeploy(&observed.bench).is_some() && observed.input().digest.is_some() {
        return rendered;
    }
    for desired in rendered.components.iter_mut().filter(|it| it.kind == Kind::Deployment) {
        let Some(present_code) = template_now(observed, desired).map(|it| code(&it)) else { continue };
        let present = present_code.image;
        let wanted = code(&template(desired)).image;
        let is_pinned = |it: &str| image::unpinned(it) != it;
        let same = present_code.folder == code(&template(desired)).folder
            && image::unpinned(&present) == image::unpinned(&wanted);
        if same && is_pinned(&present) != is_pinned(&wanted) {
            desired.body["spec"]["template"]["spec"]["containers"][0]["image"] = present.into();
        }
    }
    rendered
}

/// Whether workers of the image may start: the background jobs of sites with another schema were stopped. Of an image whose schema is not
/// known, no site has another one.
fn is_held(observed: &Observed, rendered: &Rendered) -> bool {
    apps(observed).is_empty() || hold_job(observed, rendered).is_some_and(|job| job::state(job) == job::State::Complete)
}

/// Whether sites may be held for a revision whose rollout was not completed: this revision's hold Job releases those that fit it.
fn is_unreleased(observed: &Observed, rendered: &Rendered) -> bool {
    let Some(status) = &observed.bench.status else { return false };
    let other = status.held_revision.as_ref().filter(|held| *held != rendered.revision());
    other.is_some_and(|held| status.running_revision.as_ref() != Some(held))
}

/// The hold Job of this revision.
pub fn hold_job<'a>(observed: &'a Observed, rendered: &Rendered) -> Option<&'a DynamicObject> {
    job_of_revision(&observed.live, rendered.hold.key.name.clone(), rendered.revision())
}

/// Components at a stage of a rollout.
pub struct Staged {
    /// The desired components.
    pub components: Vec<Desired>,
    /// Whether the next stage waits for the hold Job.
    pub awaits_hold: bool,
}

/// The desired components at this stage. While `held`, no image changes.
pub fn staged(observed: &Observed, rendered: &Rendered, held: bool) -> Staged {
    let mut components = rendered.components.clone();
    let mut awaits_hold = false;
    let (mut wait, mut left) = (held, Vec::new());
    // Their queues are those of the former folder, which KEDA still scales by.
    let mut kept_folders = Vec::new();
    for stage in STAGES {
        let mut changing = false;
        if !wait && stage == HELD_BEFORE {
            // Sites of an earlier revision are in its folder, where workers of the newest one do not look.
            let in_place = rendered.older.is_empty();
            let needed = in_place && (differs(observed, &components, stage) || is_unreleased(observed, rendered));
            awaits_hold = needed && !is_held(observed, rendered);
            wait = awaits_hold;
        }
        for desired in components.iter_mut().filter(|it| is_of(it, stage)) {
            let Some(present) = template_now(observed, desired).filter(|_| !is_kept(observed, desired)) else {
                continue;
            };
            let other = revision(&present) != revision(&template(desired));
            changing |= other || unready(observed, desired);
            if wait && other && is_unchanged_workload(observed, desired) {
                // The template is another operator's and cannot be merged with this one's.
                left.push(desired.key.clone());
                continue;
            }
            if wait && other {
                if code(&present).folder != code(&template(desired)).folder {
                    kept_folders.push(desired.key.clone());
                }
                keep(desired, &present);
            }
            if let Some(earlier) = earlier_now(observed, desired) {
                desired.body["spec"]["template"] = earlier;
            }
        }
        wait |= changing;
    }
    let keeps = |it: &Desired| it.kind == Kind::ScaledObject && kept_folders.contains(&it.key);
    components.retain(|it| !keeps(it) && (it.kind != Kind::Deployment || !left.contains(&it.key)));
    Staged { components, awaits_hold }
}

/// Whether a component of the stage runs other code than desired.
fn differs(observed: &Observed, components: &[Desired], stage: &[&str]) -> bool {
    let other = |it: &Desired| template_now(observed, it).is_some_and(|now| code(&now) != code(&template(it)));
    components.iter().any(|it| is_of(it, stage) && !is_kept(observed, it) && other(it))
}

/// The running rollout, if any.
pub fn rollout(observed: &Observed, rendered: &Rendered) -> Option<Rollout> {
    let mut deployments: Vec<&Desired> = Vec::new();
    for stage in STAGES {
        deployments.extend(rendered.components.iter().filter(|it| is_of(it, stage)));
    }
    deployments.retain(|it| !is_kept(observed, it));
    let others =
        |it: &&&Desired| template_now(observed, it).is_some_and(|now| revision(&now) != revision(&template(it)));
    let first = deployments.iter().find(others)?;
    let (from, to) = (code(&template_now(observed, first)?), code(&template(first)));
    let left = deployments.iter().filter(|it| others(it) || unready(observed, it)).map(|it| component(it)).collect();
    Some(Rollout { from, to, left })
}

/// What distinguishes old pods from new ones: their code, and the version of the Redis Secret.
fn revision(template: &PodTemplateSpec) -> (Code, Option<&String>) {
    (code(template), redis_secret(template))
}

/// Version of the Redis Secret that pods use.
fn redis_secret(template: &PodTemplateSpec) -> Option<&String> {
    template.metadata.as_ref()?.annotations.as_ref()?.get(labels::REDIS_SECRET)
}

/// The template of a Deployment of the bench.
fn template(desired: &Desired) -> PodTemplateSpec {
    desired.spec::<DeploymentSpec>().unwrap_or_default().template
}

/// Keeps the present template's image, mounts, volumes and file system permissions in a desired Deployment.
fn keep(desired: &mut Desired, present: &PodTemplateSpec) {
    let Some(mut spec) = desired.spec::<DeploymentSpec>() else { return };
    let template = &mut spec.template;
    if let (Some(own), Some(pod), Some(present)) = (&mut template.spec, &present.spec, container(present)) {
        let volumes = own.volumes.get_or_insert_default();
        let mounted = |name: &str| present.volume_mounts.iter().flatten().any(|it| it.name == name);
        for volume in pod.volumes.iter().flatten().filter(|it| mounted(&it.name)) {
            if volumes.iter().all(|it| it.name != volume.name) {
                volumes.push(volume.clone());
            }
        }
        own.security_context.clone_from(&pod.security_context);
        if let Some(own) = own.containers.first_mut() {
            (own.image, own.volume_mounts) = (present.image.clone(), present.volume_mounts.clone());
            own.security_context.clone_from(&present.security_context);
            keep_revision(&mut own.env, present.env.as_ref());
        }
    }
    if let Some(metadata) = &mut template.metadata {
        let mut annotations = metadata.annotations.take().unwrap_or_default();
        annotations.remove(labels::REDIS_SECRET);
        annotations.extend(redis_secret(present).into_iter().flat_map(|version| entry(labels::REDIS_SECRET, version)));
        metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    }
    *desired = desired.clone().with_spec(&spec);
}

/// Keeps the variables about the revision, which belong to the mounts.
fn keep_revision(own: &mut Option<Vec<EnvVar>>, present: Option<&Vec<EnvVar>>) {
    let is_of_revision = |it: &EnvVar| build::REVISION_VARIABLES.contains(&it.name.as_str());
    let mut kept: Vec<EnvVar> = own.take().into_iter().flatten().filter(|it| !is_of_revision(it)).collect();
    kept.extend(present.into_iter().flatten().filter(|it| is_of_revision(it)).cloned());
    *own = (!kept.is_empty()).then_some(kept);
}

fn container(template: &PodTemplateSpec) -> Option<&Container> {
    template.spec.as_ref()?.containers.first()
}

fn code(template: &PodTemplateSpec) -> Code {
    let container = container(template);
    let mounts = container.and_then(|it| it.volume_mounts.as_ref()).into_iter().flatten();
    let paths: Vec<&String> = mounts.filter_map(|mount| mount.sub_path.as_ref()).collect();
    let copy = paths.iter().find_map(|path| path.strip_prefix(build::COPIES)?.split('/').nth(1));
    let folder = paths.iter().find(|path| path.starts_with(REVISIONS_FOLDER)).map(|path| (*path).clone());
    let image = container.and_then(|it| it.image.clone()).unwrap_or_default();
    Code { image, copy: copy.map(str::to_owned), folder }
}

/// The copy of the code that the bench's web servers run.
pub fn copy_now(observed: &Observed) -> Option<String> {
    let live = observed.live.get(&(Kind::Deployment, child(&observed.bench.name_any(), "gunicorn")))?;
    code(&live::template(live)).copy
}

/// Whether a component has the desired code.
pub fn runs_desired(observed: &Observed, desired: &Desired) -> bool {
    template_now(observed, desired).is_some_and(|now| code(&now) == code(&template(desired)))
}

fn component(desired: &Desired) -> String {
    desired.component().to_owned()
}

fn is_of(desired: &Desired, stage: &[&str]) -> bool {
    desired.kind == Kind::Deployment && stage.contains(&component(desired).as_str())
}

fn template_now(observed: &Observed, desired: &Desired) -> Option<PodTemplateSpec> {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()))?;
    Some(live::template(live)).filter(|it| container(it).is_some_and(|it| it.image.is_some()))
}

/// The template of an earlier version, if the live one equals it.
fn earlier_now(observed: &Observed, desired: &Desired) -> Option<Value> {
    let live = observed.live.get(&(desired.kind, desired.key.name.clone()))?;
    earlier::unchanged_since(&desired.body["spec"]["template"], &live.data["spec"]["template"])
}

fn unready(observed: &Observed, desired: &Desired) -> bool {
    let component = component(desired);
    is_rolling(observed, &component) || lacks_pods(observed, &component)
}
