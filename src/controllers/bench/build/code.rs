//! Apps from Git: they are installed into a copy of the image's code on the volume, and every pod of the bench runs that copy instead
//! of the image's code.

use frappe_crds::bench::{AppSource, AppSourceKind};
use k8s_openapi::api::core::v1::VolumeMount;
use serde::Serialize;

use crate::{
    controllers::bench::model::{BENCH_PATH, Input, Pods},
    domain::{names::hash_hex, wire},
};

/// Volume with the sites.
pub(super) const SITES_VOLUME: &str = "sites";
/// Folder of the copies on the volume, one for each revision of the code.
pub(in crate::controllers) const FOLDER: &str = ".apps";
/// The copied folders of the bench: code, its virtual environment, and built assets.
const PARTS: [&str; 3] = ["apps", "env", "assets"];

/// The runner's request for a copy of the code.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    revision: String,
    clone: Vec<Cloned<'a>>,
}

/// An app to clone, in the runner's request.
#[derive(Serialize)]
struct Cloned<'a> {
    name: &'a str,
    repository: Option<&'a str>,
    branch: Option<&'a str>,
}

/// Apps to clone, in the bench's order.
fn cloned<'a>(input: &Input<'a>) -> Vec<Cloned<'a>> {
    let from_git = input.bench.spec.apps.iter().filter(|app| app.source == AppSourceKind::Git);
    from_git.map(|app| Cloned { name: &app.name, repository: repository(app), branch: branch(app) }).collect()
}

fn repository(app: &AppSource) -> Option<&str> {
    app.git.as_ref().map(|it| it.repository.as_str()).or(app.git_url.as_deref())
}

fn branch(app: &AppSource) -> Option<&str> {
    let nested = app.git.as_ref().and_then(|it| it.branch.as_deref());
    nested.or(app.git_branch.as_deref())
}

/// Revision of the copy that the pods run; None if they run the image's own code.
pub(in crate::controllers) fn revision(input: &Input) -> Option<String> {
    if let Pods::Older(revision) = input.pods {
        return revision.copy.clone();
    }
    let apps = cloned(input);
    (!apps.is_empty()).then(|| hash_hex(&format!("{}{}", input.image(), wire::text(&apps)), 16))
}

/// The runner's request; None if no apps are cloned.
pub(super) fn request<'a>(input: &Input<'a>) -> Option<Request<'a>> {
    Some(Request { revision: revision(input)?, clone: cloned(input) })
}

/// Mounts of the copy over the image's folders.
pub(super) fn mounts(input: &Input) -> Vec<VolumeMount> {
    let Some(revision) = revision(input) else { return Vec::new() };
    let of = |part: &str| VolumeMount {
        name: SITES_VOLUME.to_owned(),
        mount_path: format!("{BENCH_PATH}/{part}"),
        sub_path: Some(format!("{FOLDER}/{revision}/{part}")),
        ..VolumeMount::default()
    };
    PARTS.map(of).into()
}
