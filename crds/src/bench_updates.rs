//! How the sites of a FrappeBench follow another image.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    bench_waves::{Canary, Percentage},
    common::AppCode,
    duration::Duration,
    window::Window,
};

/// How sites are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateType {
    /// The pods are replaced, then each site is migrated. Sites whose schema changes respond with 503 from the replacement of nginx until their
    /// own migration has completed.
    #[default]
    InPlace,
    /// Pods of the new image run beside those of the previous one, and the sites move to them one after the other: each responds with 503 only
    /// during its own move or migration, and a site whose migration fails stays with the previous image. It needs room for a second set of
    /// pods and a Redis of the operator.
    Revisions,
}

/// How sites follow another image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// How sites are updated. Default: `InPlace`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<UpdateType>,
    /// If true, no further site is migrated; running migrations complete. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Longest time of one site's migration, after which its database is restored. Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline: Option<Duration>,
    /// Longest wait for running background jobs of a site before its migration. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Duration>,
    /// If true, a patch that fails is skipped and reported. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_failing_patches: Option<bool>,
    /// Dump of each site's database before its migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_backup: Option<SafetyBackup>,
    /// With type `Revisions`: sites that move first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// With type `Revisions`: shares of all sites that have moved after each wave, rising. Default: one wave for up to 20 sites, else `10%`,
    /// `50%`, `100%`. The last one is always `100%`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.map(w, w.size() > 1 ? int(w.substring(0, w.size() - 1)) : 0).isSorted()").message("waves must rise, such as 10%, 50%, 100%"))]
    pub waves: Vec<Percentage>,
    /// With type `Revisions`: time between two waves. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_success_time: Option<Duration>,
    /// With type `Revisions`: how many sites may fail before no further site moves: a number, or a percentage of all sites. Of the canary
    /// none may. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 0 : self.matches('^(100|[0-9]{1,2})%$')").message("maxFailures must be a number or a percentage, such as 5 or 1%"))]
    pub max_failures: Option<IntOrString>,
    /// With type `Revisions`: when sites may start to move; any open window counts. Moves that run when it closes complete. Default: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub windows: Vec<Window>,
    /// How many sites of the bench are updated at once. `siteJobConcurrency` limits it as well, and each replica of the operator may update
    /// one. Default: only that limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrency: Option<i32>,
    /// With type `Revisions`: how long the pods of an earlier revision run after its last site has left. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_down_delay: Option<Duration>,
}

/// Where a dump is made before a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SafetyBackupMode {
    /// On the bench's volume.
    #[default]
    Volume,
    /// Nowhere: a migration that fails leaves the site unavailable until a later one succeeds, or a backup is restored.
    None,
}

/// Dump of a site's database before its migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SafetyBackup {
    /// Where the dump is made. Default: `Volume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<SafetyBackupMode>,
    /// How long the dump of a completed migration is kept. Default: `72h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for: Option<Duration>,
}

/// Code of a bench, and the folder of its volume with the sites that this code serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its number; the highest one is the newest. The folder of revision 1 is the root of the volume, that of revision 2 is `.revisions/2`.
    pub number: i32,
    /// Its image, without a digest.
    pub image: String,
    /// Digest of the image, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The copy of the image's code with apps from Git, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    /// Value of the annotation `frappe.vyogo.tech/redeploy` that requested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redeploy: Option<String>,
    /// Number of its database in the Redis for the cache.
    pub cache_database: i32,
    /// Versions and schemas of its apps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppCode>,
    /// Whether all of its pods have run: from then on it may have sites.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// Since when it has had no sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<Time>,
    /// Whether its pods have been removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retired: bool,
}
