//! When and how a site follows another image of its bench.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::window::Window;

/// How a site follows another image of its bench.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteUpdatePolicy {
    /// When the site's database is migrated to the schema of the image. Until then the site responds with 503. Default: `Automatic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<UpdatePolicy>,
    /// If the bench has revisions: when the site may start to move to another one. Default: the bench's `updateStrategy.windows`, which these
    /// replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<Window>,
    /// If true, a patch that fails is skipped and reported. Default: the bench's `updateStrategy.skipFailingPatches`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_failing_patches: Option<bool>,
}

/// When a site is migrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdatePolicy {
    /// As soon as the bench runs the image.
    #[default]
    Automatic,
    /// When a user sets the annotation `frappe.vyogo.tech/migrate` to a new value.
    Manual,
}
