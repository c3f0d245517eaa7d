//! How the sites of a FrappeBench follow another image.

use std::borrow::Cow;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration of hours, minutes and seconds, for example `1h30m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duration(pub String);

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 16,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^([0-9]{1,5}[hms]){1,3}$')",
                "message": "must be hours, minutes and seconds, such as 1h30m or 300s"
            }]
        })
    }
}

/// How sites are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateType {
    /// The pods are replaced, then each site is migrated. Sites whose schema changes respond with 503 from the replacement of nginx until their
    /// own migration has completed.
    #[default]
    InPlace,
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
