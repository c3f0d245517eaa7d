//! Pods of Jobs that have one site's directory of the volume, and nothing of the other sites: they run a user's code.

use frappe_crds::pod_templates::JOBS;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, VolumeMount};

use super::{
    code::{self, SITES_VOLUME},
    configure::{GRACE_SECONDS, runner_own, runner_volumes},
    pod::{empty_pod, folders, image_container},
};
use crate::{
    controllers::bench::model::{BENCH_PATH, Input},
    domain::{
        names::child,
        pod::{Mounted, Pod},
    },
};

/// Files beside the directories of sites that Frappe reads.
const FILES: [&str; 2] = ["apps.txt", "common_site_config.json"];
/// The pod's own folder of sites.
const FOLDER: &str = "site-folder";

/// The volume, the pod's own folder of sites, and the volumes of every pod of the bench. A volume is mounted before what lies in it.
fn volumes(input: &Input) -> Vec<Mounted> {
    let path = format!("{BENCH_PATH}/sites");
    let own = Mounted::empty(FOLDER, &path, EmptyDirVolumeSource::default());
    let volume = Mounted::claim(SITES_VOLUME, &path, child(&input.name(), "sites"));
    [own, volume].into_iter().chain(folders()).collect()
}

/// A pod for containers with the site runner, with additional volumes.
pub(in crate::controllers) fn narrow_pod(input: &Input, extra: &[Mounted]) -> Pod {
    let all = volumes(input).into_iter().chain(runner_volumes(input, extra));
    empty_pod(input, JOBS, GRACE_SECONDS).with_volumes(all.map(|it| it.volume))
}

/// A container that runs the site runner for a site. What it prints is never taken for its result.
pub(in crate::controllers) fn narrow_container(
    input: &Input,
    site: &str,
    command: &str,
    request: &str,
    extra: &[Mounted],
) -> Container {
    let part = |name: &str, read_only: bool| VolumeMount {
        name: SITES_VOLUME.to_owned(),
        mount_path: format!("{BENCH_PATH}/sites/{name}"),
        sub_path: Some(input.pods.folder().map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"))),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let parts = FILES.map(|file| part(file, true)).into_iter().chain([part(site, false)]);
    let code = code::mounts(input).into_iter().map(|it| VolumeMount { read_only: Some(true), ..it });
    let others = volumes(input).into_iter().filter(|it| it.mount.name != SITES_VOLUME).map(|it| it.mount);
    let runner = runner_volumes(input, extra).into_iter().map(|it| it.mount);
    let mounts = others.chain(parts).chain(code).chain(runner).collect();
    let own = runner_own(input, command, request);
    image_container(input, JOBS, Container { termination_message_policy: Some("File".to_owned()), ..own }, mounts)
}
