//! Windows of time, and their schedules, in specs.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::Duration, text::text};

text! {
    /// A cron expression with five fields, for example `0 2 * * *`.
    CronExpression, {"minLength": 1, "maxLength": 128},
    "self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9*,/H-]+ +[0-9*,/H-]+ +[0-9*,/?LWH-]+ +[0-9A-Za-z*,/-]+ +[0-9A-Za-z*,/?#L-]+)$')",
    "schedule must have the five fields of cron, such as \"0 2 * * *\" for every night at two"
}

text! {
    /// The name of a time zone, for example `Europe/Berlin`.
    TimeZone, {"minLength": 1, "maxLength": 64},
    "self.matches('^[A-Za-z0-9_+/-]+$')",
    "timeZone must be a name of the IANA database, such as Europe/Berlin"
}

/// A window of time, which opens at each time of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When it opens, as a cron expression with five fields, for example `0 1 * * 6` for one o'clock on Saturdays.
    pub schedule: CronExpression,
    /// How long it is open, for example `4h`.
    pub duration: Duration,
    /// IANA time zone of the schedule, for example `Europe/Berlin`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
}
