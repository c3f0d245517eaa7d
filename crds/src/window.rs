//! Windows of time, and their schedules, in specs.

use std::borrow::Cow;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// A cron expression with five fields, for example `0 2 * * *`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronExpression(pub String);

impl JsonSchema for CronExpression {
    fn schema_name() -> Cow<'static, str> {
        "CronExpression".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 128,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|[0-9*,/H-]+ +[0-9*,/H-]+ +[0-9*,/?LWH-]+ +[0-9A-Za-z*,/-]+ +[0-9A-Za-z*,/?#L-]+)$')",
                "message": "schedule must have the five fields of cron, such as \"0 2 * * *\" for every night at two"
            }]
        })
    }
}

/// The name of a time zone, for example `Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeZone(pub String);

impl JsonSchema for TimeZone {
    fn schema_name() -> Cow<'static, str> {
        "TimeZone".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 64,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^[A-Za-z0-9_+/-]+$')",
                "message": "timeZone must be a name of the IANA database, such as Europe/Berlin"
            }]
        })
    }
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
