//! How the sites of a FrappeBench move to another image: canary, waves, and what is seen of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Duration, text::text};

/// Who continues after the canary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Promotion {
    /// The operator, if no site of the canary has failed.
    #[default]
    Automatic,
    /// A user, by the annotation `frappe.vyogo.tech/promote`.
    Manual,
}

/// Sites that move first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Labels of these sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Number of these sites if there is no selector. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sites: Option<i32>,
    /// Time after them. Default: that of the waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_success_time: Option<Duration>,
    /// Who continues. Default: `Automatic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

text! {
    /// Share of a bench's sites.
    Percentage, {"maxLength": 4},
    "self.matches('^(100|[1-9][0-9]?)%$')",
    "must be a percentage, such as 10%"
}

impl Percentage {
    /// The number before the sign; 100 if it is none.
    pub fn number(&self) -> u32 {
        self.0.strip_suffix('%').and_then(|it| it.parse().ok()).unwrap_or(100)
    }
}

/// Phase of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// Pods of the new revision start.
    #[default]
    Preparing,
    /// Sites move.
    Progressing,
    /// The sites of the wave have moved; the next one follows after a while.
    Soaking,
    /// No further site moves until a user decides.
    Paused,
    /// A user aborted it: no further site moves.
    Aborted,
    /// Every site has moved, has failed, or must not move.
    Completed,
}

/// Why a rollout is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PauseReason {
    /// `updateStrategy.paused` is true.
    PausedByUser,
    /// More sites failed than `maxFailures` allows.
    FailuresExceeded,
    /// The canary has moved, and its promotion is manual.
    AwaitingPromotion,
}

/// A site whose move failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct FailedSite {
    /// The site, as `namespace/name`.
    pub site: String,
    /// Why it failed.
    pub message: String,
}

/// The sites that may move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// Whether those that the canary's selector matches may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// Those up to this rank may, a number of 16 hexadecimal digits. The rank of a site is the hash FNV-1a of revision and uid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<String>,
}

/// The way of a bench's sites to its newest revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Number of the revision.
    pub to: i32,
    /// Its phase.
    pub phase: RolloutPhase,
    /// Why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<PauseReason>,
    /// Number of the wave; 0 is the canary.
    pub wave: i32,
    /// Number of waves, without the canary.
    pub waves: i32,
    /// Sites that may move.
    #[serde(default)]
    pub released: Released,
    /// Number of sites.
    pub total: i32,
    /// Sites that have moved, or were created on the revision.
    pub updated: i32,
    /// Sites whose move failed: the former revision serves them.
    pub failed: i32,
    /// Sites that must not move: suspended, with policy Manual, or the revision cannot serve them.
    pub held: i32,
    /// Failures that a user accepted by a promotion.
    #[serde(default)]
    pub tolerated: i32,
    /// Until when the next wave waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<Time>,
    /// Until when sites wait for a window of the bench.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_opens_at: Option<Time>,
    /// Some sites whose move failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailedSite>,
    /// Time at which it began.
    pub started_at: Option<Time>,
    /// Time at which it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}
