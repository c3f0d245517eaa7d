//! The code of a bench's image: versions, schemas and digest, as its configure Job found them. Pure.

use frappe_crds::{FrappeBenchStatus, common::AppCode};

use super::{
    build,
    model::{Observed, Rendered, redeploy},
    reason::Reason,
    rollout,
    seen::{apps, is_inspected},
};

/// Fields of the status about the image's code.
#[derive(Debug)]
pub struct Code {
    /// Versions and schemas of the apps.
    pub apps: Vec<AppCode>,
    /// Schemas of sites that earlier versions of the operator created.
    pub assumed_apps: Vec<AppCode>,
    /// Digest of the image.
    pub digest: Option<String>,
    /// Value of the redeploy annotation for which the image was looked at.
    pub last_handled_redeploy: Option<String>,
    /// Revision that nginx runs completely.
    pub front_revision: Option<String>,
    /// Revision whose hold Job ran last.
    pub held_revision: Option<String>,
    /// Revision of the image that was looked at.
    pub inspected_revision: Option<String>,
}

/// The image's code, as far as it is known.
pub fn code(observed: &Observed, rendered: &Rendered) -> Code {
    let former = observed.bench.status.clone().unwrap_or_default();
    let front_revision = front_revision(observed, rendered, &former);
    let holds = rollout::hold_job(observed, rendered).map(|_| rendered.revision().to_owned());
    let held_revision = holds.or_else(|| former.held_revision.clone());
    let Some(found) = &observed.inspection else {
        let digest = observed.input().digest.map(str::to_owned);
        return Code {
            apps: former.apps,
            assumed_apps: former.assumed_apps,
            digest,
            last_handled_redeploy: former.last_handled_redeploy,
            front_revision,
            held_revision,
            inspected_revision: former.inspected_revision,
        };
    };
    let assumed_apps = if build::assumes(&observed.input()) { found.code.clone() } else { former.assumed_apps };
    Code {
        apps: found.code.clone(),
        assumed_apps,
        digest: found.digest.clone(),
        last_handled_redeploy: redeploy(&observed.bench).cloned(),
        front_revision,
        held_revision,
        inspected_revision: Some(rendered.revision().to_owned()),
    }
}

/// The present revision once all pods of nginx run its code, else the former one.
fn front_revision(observed: &Observed, rendered: &Rendered, former: &FrappeBenchStatus) -> Option<String> {
    let is_rolling = || {
        let left = rollout::rollout(observed, rendered).map(|it| it.left).unwrap_or_default();
        left.iter().any(|component| component == "nginx")
    };
    if is_inspected(observed, rendered.revision()) && !is_rolling() {
        Some(rendered.revision().to_owned())
    } else {
        former.front_revision.clone()
    }
}

/// Whether new pods are pinned to the image's digest: status, reason and message of the condition. None before the image was looked at.
pub fn pinning(observed: &Observed, rendered: &Rendered) -> Option<(bool, Reason, String)> {
    if !is_inspected(observed, rendered.revision()) || apps(observed).is_empty() {
        return None;
    }
    let image = observed.input().image();
    if let Some(digest) = observed.input().digest {
        return Some((true, Reason::Pinned, format!("new pods run {image}@{digest}")));
    }
    let message = format!(
        "the container runtime reports no digest of {image} in a registry: pods that start after another image was pushed under \
         this tag run other code"
    );
    Some((false, Reason::DigestUnknown, message))
}
